"""Files and folders appear whole or not at all, whenever the process is killed."""

import multiprocessing
import os
import shutil
import signal

import pytest

from interslice.files import whole
from interslice.files import write as outputs
from interslice.files.find import list_volumes
from interslice.files.whole import folder_written_whole, put_back, written_whole
from interslice.files.write import write_nifti
from tests.files.test_write import files, oblique_result
from tests.support.kill import forks, killed_before_each_step


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.nii.gz"
    with written_whole(path) as partial:
        partial.write_bytes(b"content")
        assert not path.exists()
        assert partial.name.endswith(".nii.gz")  # nibabel chooses the format by the name
        assert partial.name.startswith(".")
    assert path.read_bytes() == b"content"
    assert files(path.parent) == ["a.nii.gz"]


@pytest.mark.parametrize("old", [None, b"old"])
def test_an_error_leaves_what_was_there(tmp_path, old):
    path = tmp_path / "a.json"
    if old:
        path.write_bytes(old)
    with pytest.raises(KeyboardInterrupt), written_whole(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert files(tmp_path) == (["a.json"] if old else [])
    assert not old or path.read_bytes() == old


def killed_while_saving(path, result):
    """Die, as by the kernel's memory killer, with half of the file on the disk."""

    def write_half(file):
        file.write(b"half of a volume")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    outputs.gzip_writer = write_half
    write_nifti(path, result)


@forks
@pytest.mark.parametrize("old", [False, True])
def test_a_killed_run_leaves_no_half_written_result(tmp_path, old):
    path = tmp_path / "case_recon.nii.gz"
    if old:
        write_nifti(path, oblique_result())
    before = path.read_bytes() if old else None
    process = multiprocessing.get_context("fork").Process(target=killed_while_saving, args=(path, oblique_result()))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(files(tmp_path)) == 1 + old  # what was written so far has another name
    assert path.exists() == old
    if old:
        assert path.read_bytes() == before
        assert list_volumes(tmp_path) == [{"image": str(path)}]  # and is not taken for a volume


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "case" / "series"
    with folder_written_whole(path) as partial:
        (partial / "1").touch()
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), folder_written_whole(path) as partial:
        (partial / "2").touch()
        raise KeyboardInterrupt
    assert files(path) == ["1"] and files(path.parent) == ["series"]
    with folder_written_whole(path) as partial:  # a second run replaces the first
        (partial / "3").touch()
    assert files(path) == ["3"] and files(path.parent) == ["series"]


def filled(folder, content, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(content)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_to_be_kept_is_in_the_new_folder_unless_it_has_its_own(tmp_path):
    path = tmp_path / "case"
    filled(path, "old", "a", "b", "notes.txt")
    filled(path / "drawings", "old", "1", "2")
    inode = (path / "notes.txt").stat().st_ino
    with folder_written_whole(path, keep=lambda _: ["notes.txt", "drawings", "b"]) as partial:
        filled(partial, "new", "a", "b")
    assert contents(path) == {"a": "new", "b": "new", "notes.txt": "old", "drawings/1": "old", "drawings/2": "old"}
    assert (path / "notes.txt").stat().st_ino == inode  # the file itself, not a copy
    assert files(tmp_path) == ["case"]


def test_what_comes_into_the_old_folder_meanwhile_is_not_lost(tmp_path):
    path = tmp_path / "case"
    filled(path, "old", "a")
    with folder_written_whole(path, keep=lambda old: [p.name for p in old.iterdir() if p.name != "a"]) as partial:
        filled(partial, "new", "a")
        filled(path, "mine", "segmentation")
    assert contents(path) == {"a": "new", "segmentation": "mine"}


@pytest.mark.parametrize("name", ["..", "a/.."])
def test_what_lies_above_is_never_replaced(tmp_path, name):
    filled(tmp_path / "here" / "a", "mine", "1")
    refused = pytest.raises(ValueError, match="is no folder of its own, and is not replaced")
    with refused, folder_written_whole(tmp_path / "here" / "a" / name) as partial:
        filled(partial, "new", "2")
    assert contents(tmp_path / "here") == {"a/1": "mine"} and files(tmp_path) == ["here"]


def test_a_folder_that_is_a_link_is_replaced_where_it_lies(tmp_path):
    filled(tmp_path / "far" / "case", "old", "a")
    (tmp_path / "case").symlink_to(tmp_path / "far" / "case")
    with folder_written_whole(tmp_path / "case") as partial:
        filled(partial, "new", "a")
    assert (tmp_path / "case").is_symlink() and contents(tmp_path / "far" / "case") == {"a": "new"}


def test_the_rights_of_a_folder_stay(tmp_path):
    filled(tmp_path / "case", "old", "a")
    (tmp_path / "case").chmod(0o750)
    with folder_written_whole(tmp_path / "case") as partial:
        filled(partial, "new", "a")
    assert (tmp_path / "case").stat().st_mode & 0o777 == 0o750


def test_what_another_process_of_this_number_has_left_stops_nothing(tmp_path, monkeypatch):
    """In a container, every process has the number 1."""
    names = set()
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), folder_written_whole(tmp_path / "case") as partial:
            names.add(partial.name)
            raise KeyboardInterrupt
    assert len(names) == 3
    filled(tmp_path / f".partial-{os.getpid()}-case", "left", "a")
    with folder_written_whole(tmp_path / "case") as partial:
        filled(partial, "new", "a")
    assert contents(tmp_path / "case") == {"a": "new"}


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "a" * 240 + "_recon.nii.gz"])
def test_the_longest_names_have_hidden_names_too(tmp_path, name):
    with written_whole(tmp_path / name) as partial:
        partial.write_text("content")
    assert contents(tmp_path) == {name: "content"}


@forks
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two_steps"])
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, exchange):
    """Two names for one folder: also where they cannot be exchanged at once, the old one can be brought back."""
    if not exchange:
        monkeypatch.setattr(whole, "_exchange", lambda one, other: False)
    path, seen = tmp_path / "out" / "case", []
    old = {"a": "old", "b": "old", "notes": "old", "drawings/1": "old"}
    new = {"a": "new", "c": "new", "notes": "old", "drawings/1": "old"}

    def work():
        with folder_written_whole(path, keep=lambda _: ["notes", "drawings"]) as partial:
            filled(partial, "new", "a", "c")

    def renew():
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        filled(path, "old", "a", "b", "notes")
        filled(path / "drawings", "old", "1")

    renew()
    for _ in killed_before_each_step(work):
        if not exchange:
            put_back(path)
        seen.append(contents(path))
        assert seen[-1] in (old, new)
        renew()
    assert old in seen[:-1] and new in seen[:-1] and len(seen) > 10
    assert seen == sorted(seen, key=[old, new].index)  # once new, for good
