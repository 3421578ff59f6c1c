"""Which scans become one case: by BIDS, DICOM headers, folders; and what such a case is called."""

import copy
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.cases import Cases
from interslice.files.fingerprint import fingerprint
from interslice.files.groups import COMBINE, by_contrast, grouped
from interslice.files.member import Contrast, Group, Member
from interslice.files.read import LoadVolumed
from tests.support.dicom_files import AFFINE, VOXELS, write_changed, write_localiser, write_series
from tests.support.helpers import repeatable
from tests.support.scans import thick_voxels, write_volume


class Reader:
    """What `Cases` asks of a reader that joins scans."""

    suffixes = LoadVolumed.suffixes

    def __init__(self, combine="auto", series=None):
        self.combine, self.series = combine, series

    def __call__(self, data):
        return data


def cases_of(source, combine="auto", series=None, **settings):
    reader = Reader(combine, series)
    return Cases(str(source), reader, reader=reader, output_dir=str(source) + "_out", **settings)


def groups_of(source, *args, **settings):
    """{case: labels of its members}"""
    items = cases_of(source, *args, **settings).usable
    return {item["case"]: [m.label for m in item["image"].members] for item in items}


def files(folder, *names):
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([n]) * 400)
    return folder


BIDS = ("sub-01/ses-1/anat/sub-01_ses-1_acq-ax_T2w.nii.gz", "sub-01/ses-1/anat/sub-01_ses-1_acq-cor_run-2_T2w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_acq-ax_T2w.nii.gz",
        "sub-02/anat/sub-02_acq-ax_T2w.nii.gz", "sub-02/anat/sub-02_acq-sag_T2w.nii.gz")  # fmt: skip


def test_bids_names_say_who_and_what(tmp_path):
    assert groups_of(files(tmp_path / "data", *BIDS)) == {
        "sub-01_ses-1_T2w": ["sub-01_ses-1_acq-ax_T2w.nii.gz", "sub-01_ses-1_acq-cor_run-2_T2w.nii.gz"],
        "sub-01_ses-1_T1w": ["sub-01_ses-1_T1w.nii.gz"],
        "sub-01_ses-2_T2w": ["sub-01_ses-2_acq-ax_T2w.nii.gz"],
        "sub-02_T2w": ["sub-02_acq-ax_T2w.nii.gz", "sub-02_acq-sag_T2w.nii.gz"],
    }


def test_in_one_folder_bids_names_are_told_apart_as_well(tmp_path):
    folder = files(tmp_path / "data", *(name.rsplit("/")[-1] for name in BIDS))
    assert sorted(groups_of(folder)) == ["sub-01_ses-1_T1w", "sub-01_ses-1_T2w", "sub-01_ses-2_T2w", "sub-02_T2w"]


def test_what_is_no_scan_by_its_name_is_left_out(tmp_path):
    folder = files(tmp_path / "data", "sub-01_T2w.nii.gz", "sub-01_desc-brain_mask.nii.gz", "sub-01_part-phase_T2w.nii")
    cases = cases_of(folder)
    assert [item["case"] for item in cases.usable] == ["sub-01_T2w"]
    assert sorted(cases.left_out) == [str(folder / "sub-01_desc-brain_mask.nii.gz"),
                                      str(folder / "sub-01_part-phase_T2w.nii")]  # fmt: skip
    assert "phase" in cases.left_out[str(folder / "sub-01_part-phase_T2w.nii")]


@pytest.mark.parametrize(("combine", "cases"), [
    ("folder", {"sub-01": 4, "sub-02": 2}), ("all", {"data": 6}),
    ("none", {name.rsplit("/")[-1].removesuffix(".nii.gz"): 1 for name in BIDS}),
])  # fmt: skip
def test_other_rules(tmp_path, combine, cases):
    found = groups_of(files(tmp_path / "data", *BIDS), combine)
    assert {case: len(members) for case, members in found.items()} == cases


def test_other_names_are_grouped_by_folder_and_contrast(tmp_path):
    folder = files(tmp_path / "data", "jane/axial.nii", "jane/coronal.nii", "joe/t1_ax.nii", "joe/t2_ax.nii",
                   "joe/t2_cor.nii", "joe/t1_ax_post.nii")  # fmt: skip
    assert groups_of(folder) == {
        "jane": ["axial.nii", "coronal.nii"],
        "joe_T1w": ["t1_ax.nii"],
        "joe_T1w_agent": ["t1_ax_post.nii"],
        "joe_T2w": ["t2_ax.nii", "t2_cor.nii"],
    }


def test_words_of_other_names_tell_patients_of_one_folder_apart(tmp_path):
    folder = files(tmp_path / "data", "ms_p01_study1_T1W.nii", "ms_p01_study1_T2W.nii", "ms_p03_study1_T1W.nii")
    assert sorted(groups_of(folder)) == ["p01_study1_T1w", "p01_study1_T2w", "p03_study1_T1w"]


def test_what_says_nothing_of_its_contrast_joins_the_only_one(tmp_path):
    assert groups_of(files(tmp_path / "a", "t2_ax.nii", "coronal.nii")) == {"a_T2w": ["coronal.nii", "t2_ax.nii"]}
    many = groups_of(files(tmp_path / "b", "t2_ax.nii", "t1_ax.nii", "coronal.nii"))
    assert many == {"b": ["coronal.nii"], "b_T1w": ["t1_ax.nii"], "b_T2w": ["t2_ax.nii"]}


def test_one_file_keeps_its_name(tmp_path):
    folder = files(tmp_path / "data", "sub-01_acq-ax_T2w.nii.gz", "scan.nii")
    assert list(groups_of(folder / "sub-01_acq-ax_T2w.nii.gz")) == ["sub-01_acq-ax_T2w"]
    assert list(groups_of(folder / "scan.nii")) == ["scan"]


@pytest.mark.parametrize("combine", ["auto", "all"])
def test_a_list_is_combined_too(tmp_path, combine):
    files(tmp_path / "data", "one/ax.nii", "two/cor.nii")
    (tmp_path / "list.txt").write_text("data/one/ax.nii\ndata/two/cor.nii\n")
    found = groups_of(tmp_path / "list.txt", combine)
    assert found == {"all": {"data": ["ax.nii", "cor.nii"]}, "auto": {"one": ["ax.nii"], "two": ["cor.nii"]}}[combine]


def test_two_data_sets_with_the_same_subjects_stay_apart(tmp_path):
    files(tmp_path, "a/sub-01_acq-ax_T2w.nii", "b/sub-01_acq-ax_T2w.nii")
    (tmp_path / "list.txt").write_text("a\nb\n")
    assert sorted(groups_of(tmp_path / "list.txt")) == ["a_sub-01_T2w", "b_sub-01_T2w"]


SIDE = AFFINE @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]) @ np.diag([1, 1, 4 / 1.2, 1])


def dicom_of(folder, one_folder, **of_second):
    write_localiser(folder / ("" if one_folder else "loc"))
    write_series(folder / ("" if one_folder else "ax"), VOXELS, AFFINE, number=3, description="t2_tra")
    write_series(
        folder / ("" if one_folder else "cor"), VOXELS, SIDE, **{"number": 4, "description": "t2_cor"} | of_second
    )
    return folder


@pytest.mark.parametrize("one_folder", [True, False])
def test_the_series_of_a_patient_are_one_case(tmp_path, one_folder):
    cases = cases_of(dicom_of(tmp_path / "jane", one_folder))
    (item,) = cases.usable
    assert item["case"] == "jane_T2w"
    assert [m.label for m in item["image"].members] == ["series 3 't2_tra'", "series 4 't2_cor'"]
    assert [m.frame for m in item["image"].members] == ["1.2.3.5", "1.2.3.5"]
    assert any("localiser" in why for why in cases.left_out.values())
    assert not cases.refused


@pytest.mark.parametrize("changed", [{"description": "t1_cor"}, {"study": "1.2.9"}])
def test_other_contrasts_and_studies_are_cases_of_their_own(tmp_path, changed):
    assert len(groups_of(dicom_of(tmp_path / "jane", False, **changed))) == 2


@pytest.mark.parametrize(("keyword", "values", "names"), [
    ("PatientID", ("A", "B"), ["disc_T2w_20220304_1", "disc_T2w_20220304_2"]),
    ("StudyDate", ("20200101", "20210101"), ["disc_T2w_20200101", "disc_T2w_20210101"]),
])  # fmt: skip
def test_patients_and_studies_in_one_folder_are_cases_of_their_own(tmp_path, keyword, values, names):
    for number, value in enumerate(values):
        study = {"study": f"1.2.{number}"} if keyword == "StudyDate" else {}

        def edit(ds, k, value=value):
            setattr(ds, keyword, value)

        write_changed(tmp_path / str(number), edit, VOXELS, AFFINE, number=number, **study)
        for path in (tmp_path / str(number)).iterdir():
            (tmp_path / "disc").mkdir(exist_ok=True)
            path.rename(tmp_path / "disc" / f"{number}_{path.name}.dcm")
    assert sorted(groups_of(tmp_path / "disc")) == names


@pytest.mark.parametrize(("image_type", "why"), [
    (["DERIVED", "SECONDARY", "MPR"], "made of other images (MPR"),
    (["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"], "made of other images (REFORMATTED"),
    (["ORIGINAL", "PRIMARY", "P", "ND"], "P by its ImageType"), (["DERIVED", "PRIMARY", "M", "NORM"], None),
    (["ORIGINAL", "PRIMARY"], None),
])  # fmt: skip
def test_series_that_were_made_of_others_are_left_out(tmp_path, image_type, why):
    write_series(tmp_path / "jane/ax", VOXELS, AFFINE, number=3, description="t2_ax")
    write_changed(tmp_path / "jane/made", lambda ds, k: setattr(ds, "ImageType", image_type), VOXELS, SIDE, number=4,
                  description="t2_cor")  # fmt: skip
    cases = cases_of(tmp_path / "jane")
    (item,) = cases.usable
    assert len(item["image"].members) == (2 if why is None else 1)
    assert [why in said for said in cases.left_out.values()] == ([] if why is None else [True])


def test_a_group_of_dicom_travels_whole(tmp_path):
    (item,) = cases_of(dicom_of(tmp_path / "jane", True)).usable
    sent = pickle.loads(pickle.dumps(item["image"]))
    assert fingerprint(sent) == fingerprint(item["image"])
    assert [m.label for m in sent.members] == [m.label for m in item["image"].members]


def test_files_of_a_disc_that_are_no_slices_are_said_once(tmp_path):
    files(dicom_of(tmp_path / "jane", False), *(f"ax/note{n}.txt" for n in range(5)))
    left_out = cases_of(tmp_path / "jane").left_out
    assert left_out[str(tmp_path / "jane/ax/note0.txt")] == "no DICOM; and 4 other files"
    assert not any("note1" in path for path in left_out)


def test_what_has_no_folder_in_common_is_called_patient():
    found = [Member(f"/{name}/x.nii", Contrast(), name) for name in "ab"]
    assert [item["case"] for item in grouped(found, "all", [])] == ["patient"]


def test_series_are_chosen_by_number(tmp_path):
    cases = cases_of(dicom_of(tmp_path / "jane", True), series="4")
    (item,) = cases.usable
    assert [m.label for m in item["image"].members] == ["series 4 't2_cor'"]
    assert "no series 4" in cases.left_out.values()
    for both in ("3, 4", (3, 4), [3, "4"]):
        assert list(groups_of(tmp_path / "jane", series=both).values()) == [["series 3 't2_tra'", "series 4 't2_cor'"]]


def test_none_makes_each_series_a_case(tmp_path):
    assert sorted(groups_of(dicom_of(tmp_path / "jane", True), "none")) == ["jane_3", "jane_4"]


members = st.lists(
    st.builds(
        lambda name, agent, echo: Member("x.nii", Contrast(name, agent, echo), "x"),
        st.sampled_from([None, "T1w", "T2w"]), st.sampled_from([None, True]), st.sampled_from([None, 10.0, 90.0]),
    ),
    max_size=6,
)  # fmt: skip


@repeatable
@given(members)
def test_every_scan_is_in_one_kind_with_none_that_differs(members):
    kinds = by_contrast(members)
    assert sorted(id(m) for kind in kinds for m in kind) == sorted(map(id, members))
    for kind in kinds:
        assert not any(a.contrast.differs(b.contrast) for a in kind for b in kind)


@repeatable
@given(members, st.randoms())
def test_which_are_together_does_not_hang_on_their_order(members, random):
    members = [replace(member, label=str(n)) for n, member in enumerate(members)]
    shuffled = random.sample(members, len(members))
    one, other = ({frozenset(m.label for m in kind) for kind in by_contrast(found)} for found in (members, shuffled))
    assert one == other


SOME = ["a/x", "a/y", "b/x", "b/c/x", "x", "sub-1_acq-a_T2w", "b/sub-1_run-1_T2w", "a/sub-1_T2w"]


@repeatable
@given(st.lists(st.sampled_from(SOME),
                unique=True, min_size=1), st.sampled_from(COMBINE))  # fmt: skip
def test_cases_have_names_of_their_own_and_hold_every_scan_once(names, combine):
    found = [Member(f"/data/{name}.nii", Contrast(), name) for name in names]
    items = grouped(found, combine, [Path("/data")])
    assert sorted(m.label for item in items for m in item["image"].members) == sorted(names)
    assert len({item["case"] for item in items}) == len(items)


def test_a_group_is_told_by_its_members_in_any_order_and_travels_whole(tmp_path):
    folder = files(tmp_path, "a.nii", "b.nii", "c.nii")
    a, b, c = (Member.of_file(folder / name) for name in ("a.nii", "b.nii", "c.nii"))
    assert fingerprint(Group((a, b))) == fingerprint(Group((b, a))) != fingerprint(Group((a, c)))
    assert fingerprint(Group((a,))) == fingerprint(folder / "a.nii")
    group = Group((a, b))
    assert copy.deepcopy(group) is group
    assert fingerprint(pickle.loads(pickle.dumps(group))) == fingerprint(group)
    assert os.fspath(group) == str(folder / "a.nii")
    assert [m.label for m in group.nameless().members] == ["stack 1", "stack 2"]
    (folder / "b.nii").write_bytes(b"other" * 100)
    changed = fingerprint(group)
    assert changed != fingerprint(Group((a, c)))


def test_without_names_cases_and_stacks_are_numbers(tmp_path, capsys):
    folder = files(tmp_path / "data", "Quuxley_ax.nii", "Quuxley_cor.nii")
    cases = cases_of(folder, deidentify=True)
    (item,) = cases.usable
    assert item["case"] == f"case_{fingerprint(item['image'])}"
    assert [m.label for m in item["image"].members] == ["stack 1", "stack 2"]
    assert "Quuxley_cor.nii is called stack 2" in capsys.readouterr().err


def test_other_readers_find_what_they_found(tmp_path):
    write_volume(tmp_path / "data/a.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    write_volume(tmp_path / "data/inside/b.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    reader = LoadVolumed("image")
    cases = Cases(str(tmp_path / "data"), reader, reader=reader, output_dir=str(tmp_path / "out"))
    assert [item["image"] for item in cases.usable] == [str(tmp_path / "data/a.nii.gz")]
    assert list(cases.left_out) == [str(tmp_path / "data/inside")]
