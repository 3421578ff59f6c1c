"""Inputs: which volumes a folder holds, which of them train or validate, and which of them a run can use."""

import json

import numpy as np
import pytest
from monai.transforms import Compose

from interslice.files.cases import Cases, check_region
from interslice.files.check import CheckVolumed
from interslice.files.find import SUFFIXES, case_name, find_volumes, list_volumes, named_case, split_volumes
from interslice.files.fingerprint import ENDS, fingerprint
from interslice.files.read import LoadVolumed
from interslice.usage import UsageError
from tests.support.dicom_files import write_series
from tests.support.scans import thick_voxels, write_volume

READ = Compose([LoadVolumed("image"), CheckVolumed("image")])

NAN = thick_voxels()
NAN[1, 2, 3] = np.nan
CONSTANT = np.full((8, 7, 6), 3.0, np.float32)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def dicom(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(8))
    return path


def names(volumes):
    return [v["image"].rsplit("/", 1)[1] for v in volumes]


# -- finding volumes ------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_case_name_drops_the_image_suffix_and_nothing_else(suffix):
    assert case_name(f"folder/scan.v2{suffix}") == "scan.v2"
    assert case_name(f"folder/SCAN{suffix.upper()}") == "SCAN"
    assert case_name("folder/series.7") == "series.7"


@pytest.mark.parametrize("source", [".", "..", "./", "../inner"])
def test_a_case_has_the_name_of_its_folder_however_it_is_called(tmp_path, monkeypatch, source):
    inside = tmp_path / "series" / "inner"
    dicom(inside / "IM1")
    dicom(inside.parent / "IM1")
    monkeypatch.chdir(inside)
    name = {".": "inner", "./": "inner", "..": "series", "../inner": "inner"}[source]
    assert find_volumes(source).items[0]["case"] == name


@pytest.mark.parametrize("name", [".nii.gz", "..nii.gz", "...nii.gz"])
def test_a_name_that_leaves_none_for_its_case_is_refused(name):
    with pytest.raises(UsageError, match="name leaves no name for its case, got '.{0,2}': rename it"):
        named_case(f"folder/{name}")
    assert named_case(f"folder/x{name}") == case_name(f"folder/x{name}")


def test_a_file_is_one_volume(tmp_path):
    path = touch(tmp_path, "a.nii.gz") / "a.nii.gz"
    assert list_volumes(path) == [{"image": str(path)}] == list_volumes(str(path))


def test_a_folder_is_sorted_and_leaves_other_and_hidden_files_out(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii", "c.MHA", ".partial-7-d.nii.gz", "notes.txt", "e.json", "deep/f.nii.gz")
    assert names(list_volumes(tmp_path)) == ["a.nii", "b.nii.gz", "c.MHA"]


def test_a_dicom_folder_is_one_volume(tmp_path):
    for name in ("IM0002", "IM0001.dcm"):
        dicom(tmp_path / "series" / name)
    touch(tmp_path, "series/DICOMDIR.txt")
    assert list_volumes(tmp_path / "series") == [{"image": str(tmp_path / "series")}]


def test_dicom_folders_stand_beside_files(tmp_path):
    touch(tmp_path, "z.nii", "no_series/readme.txt")
    dicom(tmp_path / "a_series" / "1")
    assert names(list_volumes(tmp_path)) == ["z.nii", "a_series"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n"])
def test_a_damaged_dicom_file_is_not_passed_over(tmp_path, content, capsys):
    """By its name it was a case, which else would be lost without a word."""
    for name in ("one", "two"):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    damaged = tmp_path / "in" / "series" / "frames.dcm"
    damaged.parent.mkdir()
    damaged.write_bytes(content)
    cases = Cases(tmp_path / "in", READ, reader=READ.transforms[0], output_dir=tmp_path / "out")
    assert [v["case"] for v in cases.usable] == ["one", "two"]
    with pytest.raises(SystemExit, match="(?s)1 of 3 volumes.*series: no series of at least 3.*frames.dcm"):
        cases.finish()


def test_hidden_dicom_folders_are_left_out(tmp_path):
    touch(tmp_path, "z.nii")
    dicom(tmp_path / ".trash" / "1")
    assert names(list_volumes(tmp_path)) == ["z.nii"]


def test_missing_and_empty_sources_name_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: set dataset_dir"):
        list_volumes(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no measurement in .*: expected \.nii"):
        list_volumes(touch(tmp_path, "notes.txt"))


def test_volumes_that_would_share_a_result_folder_are_refused_and_the_others_taken(tmp_path):
    for name in ("scan.nii", "scan.nii.gz", "other.nii"):
        write_volume(tmp_path / name, thick_voxels())
    cases = Cases(str(tmp_path), READ)
    assert names(cases.usable) == ["other.nii"]
    assert cases.refused.keys() == {str(tmp_path / "scan.nii"), str(tmp_path / "scan.nii.gz")}
    with pytest.raises(ValueError, match="2 entries of .* cannot be used:\n.*is named scan, too: rename one"):
        list_volumes(tmp_path)


# -- training and validation ----------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 3, 10, 31])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.75, 0.99])
def test_a_split_uses_each_volume_once_and_leaves_no_part_empty(tmp_path, count, fraction):
    folder = touch(tmp_path, *[f"{i:02d}.nii" for i in range(count)])
    training, validation = split_volumes(folder, fraction=fraction)
    assert training + validation == list_volumes(folder)
    assert training and validation


def test_a_split_holds_out_its_fraction(tmp_path):
    touch(tmp_path, *[f"{i:02d}.nii" for i in range(30)])
    training, validation = split_volumes(tmp_path, fraction=0.2)
    assert (len(training), len(validation)) == (24, 6)


def test_a_validation_folder_is_taken_as_it_is(tmp_path):
    touch(tmp_path, "training/only.nii", "validation/a.nii", "validation/b.nii")
    training, validation = split_volumes(tmp_path / "training", tmp_path / "validation")
    assert names(training) == ["only.nii"] and names(validation) == ["a.nii", "b.nii"]


def test_one_volume_cannot_serve_as_both(tmp_path):
    with pytest.raises(ValueError, match="holds one volume: .*validation_dir"):
        split_volumes(touch(tmp_path, "only.nii"))


# -- the volumes of a run -------------------------------------------------------------------------
def test_one_bad_volume_is_skipped_and_named_at_the_end(tmp_path, capsys):
    for name in ("a", "c"):
        write_volume(tmp_path / f"{name}.nii.gz", thick_voxels())
    bad = write_volume(tmp_path / "b.nii.gz", NAN)
    cases = Cases(tmp_path, READ)
    assert names(cases.usable) == ["a.nii.gz", "c.nii.gz"]
    assert str(bad) in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"1 of 3 volumes have no result:\n .*b\.nii\.gz: .*NaN") as end:
        cases.finish()
    assert isinstance(end.value.code, str)  # which Python prints, and ends with status 1


def test_files_of_one_name_in_different_folders_do_not_meet(tmp_path, capsys):
    """Neither does the second take the place of the first, nor is it taken for finished."""
    for n, name in enumerate("ab"):
        write_volume(tmp_path / name / "scan.nii.gz", thick_voxels() + n)
    results, first = tmp_path / "results", tmp_path / "a" / "scan.nii.gz"
    record = {"source": str(first), "fingerprint": fingerprint(first)}
    (results / "scan").mkdir(parents=True)
    (results / "scan" / "run.json").write_text(json.dumps(record))

    def cases(name, skip):
        return Cases(str(tmp_path / name), READ, skip_finished=skip, output_dir=str(results))

    assert cases("a", True).finished == ["scan"] and cases("a", False).usable
    for skip in (True, False):
        with pytest.raises(ValueError, match="holds the results of .*/a/scan.nii.gz: choose another output_dir"):
            cases("b", skip)
    first.parent.rename(tmp_path / "moved")  # the same data elsewhere
    assert cases("moved", True).finished == ["scan"]
    with pytest.raises(ValueError, match="holds the results of"):
        cases("b", True)
    (tmp_path / "b").rename(tmp_path / "a")  # other data where the first were, as on the next disc
    capsys.readouterr()
    assert cases("a", True).usable and "has changed: its results" in capsys.readouterr().err
    (results / "scan" / "run.json").write_text(json.dumps({"source": str(first)}))  # as earlier versions wrote it
    assert cases("a", True).finished == ["scan"]
    with pytest.raises(ValueError, match="holds the results of"):
        cases("moved", True)


@pytest.mark.parametrize("change", [{"shape": (5, 7, 6)}, {"origin": (3.0, 0, 0)}, {}])
def test_a_mask_on_another_grid_refuses_its_volume(tmp_path, change):
    truth = write_volume(tmp_path / "scan.nii.gz", thick_voxels())
    affine = np.eye(4)
    affine[:3, 3] = change.get("origin", 0)
    mask = np.ones(change.get("shape", thick_voxels().shape), np.float32)
    path = write_volume(tmp_path / "mask.nii.gz", mask, affine)
    load = LoadVolumed(["label", "region"])
    data = load({"label": str(truth), "region": str(path)})
    if not change:
        return check_region(data)
    with pytest.raises(ValueError, match="its mask .*mask.nii.gz has .* voxels.* bring the mask to the volume's grid"):
        check_region(data)


def test_links_to_nothing_and_folders_seen_before_are_named(tmp_path):
    write_volume(tmp_path / "in" / "a.nii.gz", thick_voxels())
    (tmp_path / "in" / "b.nii.gz").symlink_to(tmp_path / "nothing.nii.gz")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    found = find_volumes(tmp_path / "in")
    assert names(found.items) == ["a.nii.gz"]
    assert found.left_out == {
        str(tmp_path / "in" / "b.nii.gz"): "a link to nothing",
        str(tmp_path / "in" / "again"): "a link to a folder that is searched already",
    }


def test_fingerprints_tell_contents_and_not_names(tmp_path):
    long = bytes(3 * ENDS)
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y"), ("d", long), ("e", long + b"x"), ("f", b"x" + long)):
        (tmp_path / name).write_bytes(content)
    told = {name: fingerprint(tmp_path / name) for name in "abcdef"}
    assert told["a"] == told["b"] and len(set(told.values())) == 5


def test_finish_is_silent_when_all_is_well(tmp_path):
    write_volume(tmp_path / "a.nii.gz", thick_voxels())
    assert Cases(tmp_path, READ).finish() is None


def test_no_usable_volume_ends_the_run_at_once(tmp_path):
    for name, voxels in (("a", NAN), ("b", CONSTANT)):
        write_volume(tmp_path / f"{name}.nii.gz", voxels)
    with pytest.raises(ValueError, match=r"(?s)no usable volume:.*a\.nii\.gz: .*NaN.*b\.nii\.gz: .*constant"):
        Cases(tmp_path, READ)


def test_regions_are_found_by_file_name(tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", thick_voxels())
    region = write_volume(tmp_path / "regions" / "b.nii.gz", thick_voxels())
    usable = Cases(tmp_path / "scans", READ, tmp_path / "regions").usable
    assert [item.get("region") for item in usable] == [None, str(region)]


def test_results_in_the_folder_of_their_sources_are_no_sources(tmp_path):
    write_volume(tmp_path / "a.nii.gz", thick_voxels())
    write_series(tmp_path / "a" / "a_recon", np.rint(thick_voxels()), np.diag([1.0, 1.0, 4.0, 1.0]))
    assert len(find_volumes(tmp_path, results=tmp_path).items) == 2
    record = tmp_path / "a" / "run.json"
    record.write_text("{}")  # somebody else's
    assert len(find_volumes(tmp_path, results=tmp_path).items) == 2
    record.write_text(json.dumps({"source": None, "settings": {}}))
    found = find_volumes(tmp_path, results=tmp_path)
    assert names(found.items) == ["a.nii.gz"] and not found.unreadable
    assert found.left_out == {str(tmp_path / "a"): "results of an earlier run"}
