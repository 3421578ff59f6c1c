"""The judge of the fuzzer: each way to fail is counted as what it is, by children that fail so on purpose."""

import json
import os
import re
import signal
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from scripts.fuzzing.child import run_child
from scripts.fuzzing.damage.weights import MARK
from scripts.fuzzing.judge import ACCEPTED, CRASH, EARLY, LATE, LOST, PLAIN, SLOW, UNCLEAR, Found, judge
from scripts.fuzzing.place import Place, contents
from scripts.fuzzing.words import is_ours, sentences
from tests.support.scans import ROOT, STRAIGHT, head_voxels

OURS = sentences([ROOT / "interslice"])
NAME = r"\bbad\b"
REASON = "in/bad.nii.gz: every voxel is 5; a constant volume cannot be reconstructed"
WRITTEN = Found(written=True)


@pytest.fixture
def ended(tmp_path):
    """Runs a function in a child and judges how it ended."""

    def run(command, found=WRITTEN, lenient=False, seconds=20.0, memory=4 << 30):
        outcome = run_child(command, tmp_path, seconds, memory)
        return judge(outcome, found, NAME, OURS, lenient, seconds, memory)[0]

    return run


def leave(*lines, status=1):
    """A command that says lines and ends."""

    def command():
        print("\n".join(lines), file=sys.stderr)
        raise SystemExit(status)

    return command


def fail():
    raise KeyError("image")


def test_a_refusal_in_our_words_that_names_the_file_is_plain(ended):
    assert ended(leave("reading", f"error: {REASON}")) == PLAIN
    assert ended(leave(f"error: {REASON}", status=2)) == PLAIN
    assert ended(leave("1 of 2 volumes were skipped:", f"  {REASON}")) == PLAIN


@pytest.mark.parametrize(("ours", "verdict"), [("", EARLY), ('  File "/x/interslice/files/read.py", line 3', UNCLEAR)])
def test_what_monai_refuses_before_any_line_of_ours_is_not_ours(ended, ours, verdict):
    lines = ["Traceback (most recent call last):", '  File "/env/site-packages/monai/bundle/scripts.py", line 9', ours]
    assert ended(leave(*lines, "KeyError: 'query key: operatoor'")) == verdict


@pytest.mark.parametrize(
    "lines",
    [
        ["error: in/bad.nii.gz: cannot reshape array of size 3 into shape (2,4)"],
        ["error: every voxel is 5; a constant volume cannot be reconstructed"],
        ["1 of 2 volumes were skipped:", "  in/bad.nii.gz: 'NoneType' object is not subscriptable"],
        ["this is a fault of the program, please report it: KeyError at interslice/files/read.py:3: bad"],
        [f"error: {REASON}", *["and much more was said after that"] * 20],
        [],
    ],
    ids=["a library's words", "no name", "a library's words in the list", "a fault", "far above", "nothing"],
)
def test_other_refusals_are_unclear(ended, lines):
    assert ended(leave(*lines)) == UNCLEAR


def test_a_traceback_is_unclear_whatever_else_is_said(ended):
    assert ended(fail) == UNCLEAR
    assert (
        ended(leave("Traceback (most recent call last):", '  File "x.py", line 3, in y', f"error: {REASON}")) == UNCLEAR
    )
    code = '    raise ValueError(f"{name}: bad, every voxel is {v:g}; a constant volume cannot be reconstructed")'
    assert ended(leave(code, "RuntimeError: bad"), lenient=True) == UNCLEAR


def test_the_lenient_judge_takes_a_sentence_that_stands_elsewhere_and_counts_it_apart(ended):
    lines = [f"ValueError: {REASON}", *["frame"] * 20, "RuntimeError: Failed to instantiate component"]
    assert (ended(leave(*lines)), ended(leave(*lines), lenient=True)) == (UNCLEAR, LATE)


def test_a_hook_for_exceptions_has_the_last_word(ended):
    def command():
        def hook(kind, error, trace):
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2)

        sys.excepthook = hook
        raise ValueError(REASON)

    assert ended(command) == PLAIN


@pytest.mark.parametrize("status", [3, 130, 255])
def test_another_status_is_unclear(ended, status):
    assert ended(leave(f"error: {REASON}", status=status)) == UNCLEAR


def test_what_ends_well_is_accepted_if_a_finite_result_is_written(ended):
    assert ended(lambda: None) == ACCEPTED
    assert ended(lambda: None, found=Found(written=False)) == UNCLEAR


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_signal_is_a_crash(ended, number):
    assert ended(lambda: os.kill(os.getpid(), number)) == CRASH


def test_code_that_came_with_data_is_a_crash(ended):
    assert ended(lambda: None, found=Found(written=True, code_ran=True)) == CRASH


def test_what_hangs_is_slow(ended):
    start = time.monotonic()
    assert ended(lambda: time.sleep(60), seconds=0.3) == SLOW
    assert time.monotonic() - start < 20


def test_what_catches_its_alarm_or_has_children_is_ended_too(ended, tmp_path):
    def command():
        if os.fork() == 0:
            time.sleep(60)
        (tmp_path / "group").write_text(str(os.getpgrp()))

    assert ended(command) == ACCEPTED
    group = int((tmp_path / "group").read_text())
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process is left")


def test_what_takes_memory_is_slow(ended):
    assert ended(lambda: np.ones(3 << 26), memory=256 << 20) == SLOW  # refused by the limit: 1.5 GB
    assert ended(leave(f"error: {REASON}"), memory=1 << 20) == SLOW  # taken, and more than allowed


@pytest.mark.parametrize(
    ("found", "lenient"),
    [
        (Found(("good/good_recon.nii.gz differs",), written=True), True),
        (Found((), ("bad/bad_std.nii.gz",), True), False),
    ],
)
def test_what_is_lost_or_mixed_is_lost(ended, found, lenient):
    assert ended(lambda: None, found=found, lenient=lenient) == LOST
    assert ended(leave(f"error: {REASON}"), found=found, lenient=lenient) == LOST


# -- our words --------------------------------------------------------------------------------------
def test_sentences_of_the_sources_are_ours_and_those_of_libraries_are_not():
    assert is_ours("start_fraction must be a number above 0, up to 1, got 'x'", OURS)
    assert is_ours("scan.h5: k-space is 0 everywhere: nothing was measured", OURS)
    for theirs in (
        "list index out of range", "could not convert string to float: 'x'", "'int' object is not iterable",
        "cannot reshape array of size 0 into shape (2,16)", "Expecting value: line 1 column 1 (char 0)",
        "unsupported operand type(s) for /: 'str' and 'int'", "[Errno 2] No such file or directory: 'bad.nii.gz'",
        "__init__() got an unexpected keyword argument 'x'", "Not a gzipped file (b'xx')", "embedded null byte",
        "linalg.eigh: The algorithm failed to converge because the input matrix is ill-conditioned",
        "Unable to synchronously open file (truncated file: eof = 96)", "Failed to instantiate component 'x'",
    ):  # fmt: skip
        assert not is_ours(theirs, OURS), [p.pattern for p in OURS if re.search(p, theirs)]


# -- what is on the disk ----------------------------------------------------------------------------
def write_set(folder, case, level):
    folder = folder / case
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(head_voxels((4, 4, 4)) + level, STRAIGHT), folder / f"{case}_recon.nii.gz")
    (folder / "run.json").write_text(json.dumps({"level": level, "source": "x"}))


@pytest.fixture
def place(tmp_path):
    """Results of an earlier run, and what the good case is alone."""
    place = Place(tmp_path / "place", ROOT)
    for case in ("good", "bad"):
        write_set(tmp_path / "old", case, 0)
    write_set(tmp_path / "alone", "good", 1)
    place.fill([], tmp_path / "old", "bad.nii.gz")
    before = place.state()
    return place, lambda status: place.examine(before, contents(tmp_path / "alone"), status)


def test_a_refusal_that_leaves_the_old_and_writes_the_good_loses_nothing(place):
    place, examine = place
    write_set(place.results, "good", 1)
    assert examine(1) == Found()


def test_an_accepted_case_is_written_whole(place):
    place, examine = place
    write_set(place.results, "good", 1)
    write_set(place.results, "bad", 2)
    assert examine(0) == Found(written=True)
    assert examine(1).lost == ("bad/bad_recon.nii.gz is gone or changed", "bad/run.json is gone or changed")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: write_set(r, "good", 3), "good/good_recon.nii.gz differs"),
        (lambda r: (r / "good" / "run.json").unlink(), "good/run.json is missing"),
        (lambda r: (r / "bad" / ".partial-7-x").touch(), ".partial-7-x is left"),
        (lambda r: (r / "bad" / "run.json").unlink(), "bad/run.json is gone or changed"),
        (lambda r: write_set(r, "bad", 3), "bad/bad_recon.nii.gz is gone or changed"),
    ],
    ids=["other result", "no record", "hidden file", "old record gone", "old result replaced by a refusal"],
)
def test_what_is_lost_is_found(place, change, said):
    place, examine = place
    write_set(place.results, "good", 1)
    change(place.results)
    assert said in examine(1).lost


def test_a_new_volume_beside_an_old_record_is_a_mixed_set(place):
    place, examine = place
    write_set(place.results, "good", 1)
    record = (place.results / "bad" / "run.json").read_text()
    write_set(place.results, "bad", 2)
    (place.results / "bad" / "run.json").write_text(record)
    assert examine(0).mixed == ("bad/run.json is of an older run",)


def test_results_that_are_not_finite_are_none(place):
    place, examine = place
    write_set(place.results, "good", 1)
    write_set(place.results, "bad", np.nan)
    assert not examine(0).written


def test_code_that_ran_leaves_its_mark(place):
    place, examine = place
    (place.here / MARK).touch()
    assert examine(1).code_ran


def test_clearing_leaves_the_bundle(place):
    place, _ = place
    (place.here.parent / "elsewhere").mkdir()
    place.clear()
    assert sorted(p.name for p in place.here.iterdir()) == ["configs", "interslice", "models", "sample_data"]
    assert (ROOT / "interslice" / "__init__.py").exists() and not (place.here.parent / "elsewhere").exists()
