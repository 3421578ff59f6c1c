"""The files of a case are one set: of one run, whole, and beside what is not of them."""

import json
import os
import time
from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor

from interslice.files.case_folder import (
    LONGEST_NAME,
    STALE,
    WriteCases,
    Writer,
    check_case,
    check_place,
    others_in,
)
from interslice.files.record import count, is_whole, record_of
from interslice.files.write import write_json
from interslice.usage import UsageError
from tests.support.kill import forks, killed_before_each_step


class Files(Writer):
    """Writes files of one content."""

    def __init__(self, content, *names):
        self.content, self.names = content, names

    def write(self, result, folder):
        for name in self.names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(self.content)


class Record(Files):
    def write(self, result, folder):
        names = {p.name: count(p) for p in folder.iterdir()}
        write_json(folder / "run.json", {"files": names, "of": self.content})


class Broken(Writer):
    def write(self, result, folder):
        raise OSError("no space left on device")


def write(output_dir, content, *names, writers=()):
    image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "case.nii.gz"})
    engine = SimpleNamespace(state=SimpleNamespace(output=[{"image": image, "pred": image}]))
    WriteCases(str(output_dir), [Files(content, *names), *writers], Record(content)).write(engine)


def contents(folder):
    """What each file is of."""
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {n: json.loads(p.read_text())["of"] if n == "run.json" else p.read_text() for n, p in found.items()}


def test_a_second_set_takes_the_place_of_the_first_and_of_nothing_else(tmp_path, capsys):
    write(tmp_path, "old", "case_recon.nii.gz", "case_std.nii.gz", "case_recon/1.dcm")
    case = tmp_path / "case"
    (case / "case_prior.pt").write_text("mine")
    (case / "drawings").mkdir()
    (case / "drawings" / "1").write_text("mine")
    (case / ".partial-1-case_recon").mkdir()  # of an earlier version, killed
    capsys.readouterr()
    write(tmp_path, "new", "case_recon.nii.gz", "report.html")
    assert contents(case) == {
        "case_recon.nii.gz": "new", "report.html": "new", "run.json": "new", "case_prior.pt": "mine",
        "drawings/1": "mine",
    }  # fmt: skip
    assert capsys.readouterr().out == f"wrote {case}: case_recon.nii.gz, report.html, run.json\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case"]


def test_the_set_of_an_earlier_version_is_known_by_its_names(tmp_path):
    case = tmp_path / "case"
    Files("old", "case_recon.nii.gz", "case_std.nii.gz", "metrics.json", "trajectory/steps.json", "other_std.nii.gz",
          "case_reconsidered.nii.gz").write(None, case)  # fmt: skip
    assert others_in(case, "case") == ["case_reconsidered.nii.gz", "other_std.nii.gz"]
    write_json(case / "run.json", {"seed": 0})
    write(tmp_path, "new", "case_recon.nii.gz")
    assert contents(case) == {
        "case_recon.nii.gz": "new", "run.json": "new", "other_std.nii.gz": "old", "case_reconsidered.nii.gz": "old",
    }  # fmt: skip


def test_an_error_in_writing_leaves_the_old_set(tmp_path):
    write(tmp_path, "old", "case_recon.nii.gz")
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, "new", "case_recon.nii.gz", writers=[Broken()])
    assert set(contents(tmp_path / "case").values()) == {"old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case"]


@forks
def test_a_kill_at_any_step_leaves_the_old_set_or_the_new_one(tmp_path):
    old = {"case_recon.nii.gz": "old", "case_std.nii.gz": "old", "run.json": "old", "case_prior.pt": "mine"}
    new = {"case_recon.nii.gz": "new", "report.html": "new", "run.json": "new", "case_prior.pt": "mine"}
    seen = []
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        write(folder, "old", "case_recon.nii.gz", "case_std.nii.gz")
        (folder / "case" / "case_prior.pt").write_text("mine")
        if number == 1:
            steps = killed_before_each_step(lambda: write(tmp_path / str(len(seen) + 1), "new", "case_recon.nii.gz",
                                                          "report.html"))  # fmt: skip
        if next(steps, None) is None:
            break
        assert contents(folder / "case") in (old, new)
        assert is_whole(folder / "case", record_of(folder / "case"))
        seen.append(contents(folder / "case"))
    assert seen.count(old) > 10 and seen[-1] == new


def test_a_set_is_whole_while_all_its_files_are_there(tmp_path):
    write(tmp_path, "new", "case_recon.nii.gz", "report.html")
    case = tmp_path / "case"
    assert is_whole(case, record_of(case))
    (case / "report.html").unlink()
    assert not is_whole(case, record_of(case))
    write(tmp_path, "new", "case_recon/1.dcm", "case_recon/2.dcm")
    assert is_whole(case, record_of(case))
    (case / "case_recon" / "2.dcm").unlink()
    assert not is_whole(case, record_of(case))
    assert is_whole(case, {"seed": 0})  # a record of an earlier version, which was the last file of its case
    for nonsense in ("nonsense", ["report.html"], {"report.html": "x"}, {"report.html": None}, 5):
        assert not is_whole(case, {"files": nonsense})


def test_records_that_cannot_be_read_are_none(tmp_path):
    for content in (b"", b"[1]", b"{", b"\xff"):
        (tmp_path / "run.json").write_bytes(content)
        assert record_of(tmp_path) is None


@pytest.mark.parametrize(("case", "over"), [("a" * 240, 1), ("ü" * 120, 1), ("a" * 250, 11)])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, case, over):
    with pytest.raises(ValueError, match=f"name is too long: .* {LONGEST_NAME + over} bytes.*; shorten it by {over}$"):
        check_place(tmp_path, case)
    check_place(tmp_path, case[:-over])


def test_a_file_in_the_place_of_the_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "case").touch()
    with pytest.raises(ValueError, match="results go into .*case, which is no folder: remove it, or choose"):
        check_place(tmp_path, "case")


@pytest.mark.parametrize("case", ["", ".", "..", "a/b", "/", ".old-a", ".partial-1", ".unfinished"])
def test_names_that_are_no_folder_of_their_own_are_refused(tmp_path, case):
    """A file may be called `...nii.gz`; its results would take the place of what lies above."""
    with pytest.raises(ValueError, match="no folder of results can be called that: rename it"):
        check_place(tmp_path, case)
    check_case("...a")


def test_a_folder_that_may_not_be_changed_is_refused_before_the_work(tmp_path, monkeypatch):
    write(tmp_path, "old", "case_recon.nii.gz")
    monkeypatch.setattr(os, "access", lambda *_: False)  # which binds root, too
    with pytest.raises(ValueError, match="which you may not change: change its rights, or output_dir"):
        check_place(tmp_path, "case")


def test_a_set_that_a_kill_left_aside_is_put_back(tmp_path):
    write(tmp_path, "old", "case_recon.nii.gz")
    (tmp_path / "case").rename(tmp_path / ".old-case")
    check_place(tmp_path, "case")
    assert set(contents(tmp_path / "case").values()) == {"old"}


@pytest.mark.parametrize("writers", [[], (), "xy", 5, ["x"], None])
def test_what_writes_nothing_is_refused(tmp_path, writers):
    with pytest.raises(UsageError, match="writers must be a list of interslice.files.case_folder.Writer, got"):
        WriteCases(str(tmp_path), writers, Record("new"))


def test_only_what_was_left_long_ago_is_taken_away(tmp_path):
    for name, age in ((".partial-1-case", 2 * STALE), (".partial-2-case", 0), ("case", 2 * STALE)):
        Files("left", "a").write(None, tmp_path / name)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    (tmp_path / ".partial-3-file").touch()
    os.utime(tmp_path / ".partial-3-file", (time.time() - 2 * STALE,) * 2)
    handlers = []
    engine = SimpleNamespace(add_event_handler=lambda event, handler: handlers.append(handler))
    WriteCases(str(tmp_path), [Files("new", "a")], Record("new")).attach(engine)
    handlers[0](engine)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".partial-2-case", "case"]
