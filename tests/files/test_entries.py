"""Odd entries of a folder: each is named with the reason, and the volumes beside it are taken."""

import os
from pathlib import Path

import pytest

from interslice.files import entries
from interslice.files.dicom_search import search
from interslice.files.find import find_volumes, list_volumes
from interslice.files.scan import unreadable

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"x")
    return tmp_path / "scans"


def cases(found):
    return [item["case"] for item in found.items]


@pytest.mark.parametrize("name", ["link.nii.gz", "link.dcm", "link"])
def test_a_link_whose_target_is_too_long_is_named(folder, name):
    (folder / name).symlink_to("x" * 300)
    found = find_volumes(folder)
    assert cases(found) == ["a"]
    assert found.unreadable == {str(folder / name): "File name too long: mend or remove the link"}
    assert search(folder).left_out["File name too long"] == [folder / name]


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_that_may_not_be_entered_is_named_once(folder, monkeypatch, inside):
    closed = folder / "closed" if inside else folder
    closed.mkdir(exist_ok=True)
    for name in ("b.nii", "c.nii"):
        (closed / name).write_bytes(b"x")

    def refusing(path, *others, stat=os.stat, **more):
        if Path(path).parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *others, **more)

    monkeypatch.setattr(entries.os, "stat", refusing)
    why = "Permission denied: give yourself the right to enter it (chmod u+x)"
    if inside:
        found = find_volumes(folder)
        assert cases(found) == ["a"] and found.unreadable == {str(closed): why}
    else:
        with pytest.raises(FileNotFoundError, match="right to enter it"):
            find_volumes(folder)


def test_what_cannot_be_looked_at_is_refused_in_words(folder, monkeypatch):
    def refusing(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("interslice.files.find.kind_of", refusing)
    with pytest.raises(ValueError, match="a.nii.gz: Permission denied: give yourself the right to read it"):
        find_volumes(folder / "a.nii.gz")


@needs_pipes
def test_pipes_are_named_and_never_opened(folder):
    for name in ("p.nii", "p.dcm"):
        os.mkfifo(folder / name)
    found = find_volumes(folder)
    assert cases(found) == ["a"]
    assert found.left_out == {str(folder / name): entries.NO_FILE for name in ("p.nii", "p.dcm")}
    assert search(folder).left_out[entries.NO_FILE] == [folder / "p.dcm", folder / "p.nii"]
    with pytest.raises(ValueError, match=r"p.nii is no file, but a pipe or a device: save what it gives in a file"):
        list_volumes(folder / "p.nii")


@needs_pipes
def test_odd_entries_of_a_list_are_refused_and_the_others_taken(folder):
    os.mkfifo(folder / "p.nii")
    (folder / "link.nii").symlink_to("x" * 300)
    listed = folder / "list.txt"
    listed.write_text("a.nii.gz\np.nii\nlink.nii\nnowhere.nii\n", encoding="utf-8")
    found = find_volumes(listed)
    assert cases(found) == ["a"]
    assert found.unreadable == {
        str(folder / "p.nii"): "is no file, but a pipe or a device: save what it gives in a file, and name that",
        str(folder / "link.nii"): "File name too long: mend or remove the link",
        str(folder / "nowhere.nii"): f"does not exist, and is named in {listed}",
    }


def test_a_circle_of_links_is_a_link_to_nothing(folder):
    (folder / "c.nii").symlink_to(folder / "c.nii")
    assert find_volumes(folder).left_out == {str(folder / "c.nii"): "a link to nothing"}


def test_a_file_without_the_right_to_read_it_is_not_called_damaged():
    said = unreadable(PermissionError(13, "Permission denied", "a.nii"))
    assert said == "Permission denied: give yourself the right to read it"
    assert "is it damaged" in unreadable(OSError("Not a gzipped file"))
