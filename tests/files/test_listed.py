"""A list of files: what it names is found as in a folder, nothing in it is run, and what cannot be used is named."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import Compose

from interslice.files.cases import Cases
from interslice.files.check import CheckVolumed
from interslice.files.find import find_volumes, namesakes, one_scan, split_volumes
from interslice.files.listed import read_list, told_apart
from interslice.files.read import LoadVolumed
from tests.support.scans import thick_voxels, write_volume

READ = Compose([LoadVolumed("image"), CheckVolumed("image")])


def list_of(folder, content, name="list.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def scans(folder, *names):
    for seed, name in enumerate(names):
        write_volume(folder / name, thick_voxels(seed), spacing=(1, 1, 4))
    return folder


def test_paths_are_from_the_folder_of_the_list_or_absolute(tmp_path):
    scans(tmp_path / "a", "one.nii", "two.nii.gz")
    path = list_of(tmp_path / "a", f"two.nii.gz\n{tmp_path}/a/one.nii\n")
    assert find_volumes(path).items == [
        {"image": str(tmp_path / "a" / "two.nii.gz"), "case": "two"},
        {"image": str(tmp_path / "a" / "one.nii"), "case": "one"},
    ]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a\n\n  \n# said of it\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("\ufeffa\nb c \n", ["a", "b c "]),
        ("./#a\n$(b)\n%c\n'd'\n-e", ["#a", "$(b)", "%c", "'d'", "-e"]),
        (b"a\nb\0#c\0\0", ["a\nb", "#c"]),
        (b"\xff.nii\n", [os.fsdecode(b"\xff.nii")]),
        ("ä/β\n", ["ä/β"]),
    ],
)
def test_lines_are_names_as_they_are(tmp_path, content, names):
    assert read_list(list_of(tmp_path, content)) == [tmp_path / name for name in names]


NAME = st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1, max_size=30).filter(
    lambda n: n.strip() and n not in (".", "..")
)


@given(st.lists(NAME, min_size=1, max_size=5))
def test_every_name_can_be_listed(tmp_path_factory, names):
    path = list_of(tmp_path_factory.getbasetemp(), "\0".join(names) + "\0")
    assert read_list(path) == [path.parent / name for name in names]


def test_utf_16_and_what_is_no_list_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is a list in UTF-16: save it as UTF-8"):
        read_list(list_of(tmp_path, "a\nb".encode("utf-16")))
    monkeypatch.setattr("interslice.files.listed.LARGEST", 3)
    with pytest.raises(ValueError, match="too much for a list of files"):
        read_list(list_of(tmp_path, "aaaa"))


def test_a_missing_entry_is_one_refused_case(tmp_path, capsys):
    scans(tmp_path, "a.nii", "b.nii")
    cases = Cases(
        list_of(tmp_path, "a.nii\nnone.nii\nb.nii\nlist.txt\n" + "x" * 300), READ, output_dir=tmp_path / "out"
    )
    assert [c["case"] for c in cases.usable] == ["a", "b"] and len(cases.refused) == 3
    assert f"skipped {tmp_path / 'none.nii'}: does not exist" in capsys.readouterr().err
    with pytest.raises(
        SystemExit, match="3 of 5 volumes have no result:(.|\n)*none.nii: does not exist(.|\n)*a list in a"
    ):
        cases.finish()


def test_nothing_usable_ends_the_run_with_the_reasons(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no measurement in the list .*\n .*none.nii: does not exist"):
        find_volumes(list_of(tmp_path, "none.nii"))
    with pytest.raises(FileNotFoundError, match="which is empty"):
        find_volumes(list_of(tmp_path, "# none"))


def test_folders_are_searched_and_nothing_is_taken_twice(tmp_path):
    scans(tmp_path / "in", "a.nii", "b.nii")
    (tmp_path / "in" / "series").mkdir()
    (tmp_path / "in" / "series" / "1").write_bytes(bytes(128) + b"DICM" + bytes(8))
    path = list_of(tmp_path, "in/series\nin/b.nii\nin\n./in/../in/b.nii")
    found = find_volumes(path)
    assert [i["case"] for i in found.items] == ["series", "b", "a"]
    assert set(found.left_out.values()) == {f"named twice in {path}"}


def test_entries_of_one_name_get_those_of_their_folders(tmp_path):
    scans(tmp_path, "s1/anat/t1.nii", "s2/anat/t1.nii", "s2/anat/t2.nii", "s2/anat/t2.nii.gz", "s3/t1.nii.gz")
    found = find_volumes(
        list_of(tmp_path, "s1/anat/t1.nii\ns2/anat/t1.nii\ns3/t1.nii.gz\ns2/anat/t2.nii\ns2/anat/t2.nii.gz")
    )
    refused = namesakes(found.items)
    taken = [item["case"] for item in found.items if item["image"] not in refused]
    assert taken == ["s1_anat_t1", "s2_anat_t1", f"{tmp_path.name}_s3_t1"]
    assert len(refused) == 2 and "is named t2, too: rename one" in refused[str(tmp_path / "s2/anat/t2.nii")]


@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 3), unique=True, min_size=1))
def test_different_places_get_different_names(places):
    paths = {"/" + "/".join(p): p[-1] for p in places}
    assert len(set(told_apart(paths).values())) == len(paths)


def test_masks_of_renamed_cases_are_found_by_the_case(tmp_path):
    """Else two volumes would share the mask of one of them."""
    scans(tmp_path, "s1/t1.nii", "s2/t1.nii", "other.nii")
    scans(tmp_path / "masks", "t1.nii", "s2_t1.nii.gz", "other.nii")
    source = list_of(tmp_path, "s1/t1.nii\ns2/t1.nii\nother.nii")
    cases = Cases(source, READ, region_dir=tmp_path / "masks", output_dir=tmp_path / "out")
    assert [c.get("region") for c in cases.usable] == [
        None, str(tmp_path / "masks" / "s2_t1.nii.gz"), str(tmp_path / "masks" / "other.nii"),
    ]  # fmt: skip


def test_training_takes_lists_and_ends_where_an_entry_is_missing(tmp_path):
    scans(tmp_path, "a.nii", "b.nii", "c.nii")
    training, validation = split_volumes(list_of(tmp_path, "c.nii\na.nii"), list_of(tmp_path, "b.nii", "v.txt"))
    assert [v["image"][-5:] for v in training + validation] == ["c.nii", "a.nii", "b.nii"]
    with pytest.raises(ValueError, match=r"1 entries of .* cannot be used:\n .*d.nii: does not exist"):
        split_volumes(list_of(tmp_path, "a.nii\nb.nii\nd.nii"))
    with pytest.raises(ValueError, match="holds 2 volumes: adaptation is to one scan"):
        one_scan(list_of(tmp_path, "a.nii\nb.nii"))
    assert len(one_scan(list_of(tmp_path, "a.nii"))[0]) == 1
