"""Every exception becomes plain last lines and a status: usage 2, what the user can mend 1, a fault of ours 1."""

import errno
import json
import multiprocessing
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset

from interslice.files.failure import FIXES, Terminated, failure_of
from interslice.files.read import LoadVolumed
from interslice.files.values import whole_number
from interslice.physics.thick.through_plane import slice_weights
from interslice.usage import UsageError
from tests.support.helpers import repeatable


def caught(call):
    """The exception that a call raises."""
    with pytest.raises(BaseException) as info:  # noqa: PT011
        call()
    return info.value


def building(config, part="part"):
    """The exception of a part of a config that cannot be built."""
    parser = ConfigParser(config)
    return caught(lambda: parser.get_parsed_content(part))


PART = {"_target_": "interslice.sampling.Proximal", "rho": "@weight", "iterations": "@count"}


@pytest.mark.parametrize(
    ("words", "clause"),
    [
        (["--weight", "-1", "--count", "3"], " (--weight -1)"),
        (["--weight=-1"], " (--weight -1)"),
        (["--count", "1", "--weight", "-1"], " (--weight -1)"),  # the 1 of -1 is not that of the count
        (["--count", "-1", "--part#rho", "-1"], " (--part#rho -1)"),  # rho is what the message speaks of
        (["--part#rho", "-1"], " (--part#rho -1)"),
        (["--part::rho", "-1", "--other", "-1"], " (--part#rho -1)"),
        (["--other", "-1"], " (in part)"),
        ([], " (in part)"),
    ],
)
def test_the_option_that_was_refused_is_named(words, clause):
    failure = failure_of(building({"part": PART, "weight": -1, "count": 3}), words)
    assert failure.status == 2 and not failure.fault
    assert failure.said == f"error: rho must be a number above 0, got -1; for rho -> 0 use NullSpace{clause}"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"part": "@nothing"}, "error: part refers to @nothing, and no id is called that"),
        ({"part": "$no_such_name"}, "error: name 'no_such_name' is not defined (in part)"),
        ({"part": "$1 +"}, "error: invalid syntax"),
        ({"part": {"_target_": "no.such.Part"}}, "error: Cannot locate class or function path: 'no.such.Part'"),
        ({"part": {"_target_": "bundle.noise.Field"}}, "the package was called so, now it is interslice"),
        ({"part": {"_target_": "torch.nn.Linear"}}, "error: part cannot be made: TypeError: "),
        (
            {"part": {"_target_": "torch.nn.Linear", "in_features": "x", "out_features": 1}},
            "error: part cannot be made",
        ),
    ],
)
def test_what_a_config_cannot_mean_is_usage(config, said):
    failure = failure_of(building(config))
    assert failure.status == 2 and not failure.fault
    assert said in failure.said


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"part": {"_target_": "builtins.dict", "a": "@nothing"}}, "part refers to @nothing, and no id is called that"),
        ({"part": "@nothing", "nothing": "@part"}, "refers to @part, which needs it itself: give a value"),
    ],
)
def test_the_option_that_refers_to_what_cannot_be_is_named(config, said):
    failure = failure_of(building(config), ["--other", "@nothing2", "--part#a", "@nothing"])
    assert failure.status == 2 and failure.said.endswith(f"{said} (--part#a @nothing)"), failure.said


@pytest.mark.parametrize(
    ("words", "clause"),
    [
        (["--train#part#out_features", "x", "--train#other", "x"], " (--train#part#out_features x)"),
        (["--train::part::out_features", "x"], " (--train#part#out_features x)"),
        (["--other", "x"], ""),
    ],
)
def test_a_part_that_cannot_be_made_names_its_options(words, clause):
    part = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "x"}
    failure = failure_of(building({"train": {"part": part}}, "train#part"), words)
    assert failure.status == 2 and failure.said.startswith("error: train#part cannot be made: TypeError: ")
    assert failure.said.endswith(clause) and ("(--" in failure.said) == bool(clause)


def test_a_check_outside_of_configs_is_usage():
    failure = failure_of(caught(lambda: whole_number("n", 0, 1)), ["--n", "0"])
    assert (failure.status, failure.said) == (2, "error: n must be a whole number from 1, got 0")


@repeatable
@given(code=st.sampled_from(sorted(errno.errorcode)), name=st.sampled_from(["a/b.nii", None]))
def test_what_the_system_says_is_said_with_the_file_and_what_helps(code, name):
    error = caught(lambda: (_ for _ in ()).throw(OSError(code, os.strerror(code), name)))
    failure = failure_of(error)
    if isinstance(error, BrokenPipeError):
        assert failure.said == ""
        return
    said = ": ".join(s for s in (name, os.strerror(code), FIXES.get(code)) if s)
    assert (failure.status, failure.said, failure.fault) == (1, f"error: {said}", False)


def test_a_full_disk_says_where_and_what_to_do():
    error = OSError(errno.ENOSPC, "No space left on device", "out/a.nii")
    assert failure_of(error).said == (
        "error: out/a.nii: No space left on device: make room there, or choose another --output_dir"
    )


@pytest.mark.parametrize(
    "call",
    [lambda: np.empty(1 << 50), lambda: torch.empty(1 << 58), lambda: (_ for _ in ()).throw(MemoryError)],
)
def test_memory_that_ran_out_is_no_fault_of_the_program(call):
    failure = failure_of(caught(call))
    assert failure.status == 1 and not failure.fault
    assert failure.said.startswith("error: memory ran out (") and "--slice_batch_size" in failure.said


def test_files_that_libraries_refuse(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"x")
    failure = failure_of(caught(lambda: nib.load(tmp_path / "a.nii")))
    assert failure.said.startswith(f"error: {tmp_path / 'a.nii'} cannot be read, is it damaged? (ImageFileError: ")
    failure = failure_of(caught(lambda: json.loads("{")))
    assert failure.said.startswith("error: a file cannot be read, is it damaged? (JSONDecodeError: ")


def test_a_package_that_is_missing():
    failure = failure_of(caught(lambda: __import__("no_such_package")))
    assert failure.status == 1 and not failure.fault
    assert failure.said.startswith("error: No module named 'no_such_package': pip install -r requirements.txt")


def test_an_installed_package_is_not_sent_to_an_index_that_does_not_know_it(monkeypatch):
    monkeypatch.setattr("interslice.files.failure.is_installed", lambda: True)
    said = failure_of(caught(lambda: __import__("no_such_package"))).said
    assert 'pip install ".[all]" in the folder of the repository' in said and "interslice[" not in said


def test_what_our_readers_refuse_in_another_process_is_the_user_s(tmp_path):
    (tmp_path / "bad.nii.gz").write_text("hello")
    dataset = Dataset([{"image": str(tmp_path / "bad.nii.gz")}], LoadVolumed("image"))
    failure = failure_of(caught(lambda: next(iter(DataLoader(dataset, num_workers=1)))))
    assert failure.status == 1 and not failure.fault
    assert failure.said == f"error: {tmp_path}/bad.nii.gz: this is no volume, but text that begins with 'hello'"


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: slice_weights(None, None, None, None, None), "TypeError"),
        (lambda: failure_of(None), "AttributeError"),
        (lambda: json.dumps(object()), "TypeError"),
    ],
)
def test_other_exceptions_are_faults_of_the_program(call, kind):
    failure = failure_of(caught(call))
    assert failure.status == 1 and failure.fault
    assert failure.said.startswith("this is a fault of the program, please report it: ") and kind in failure.said


def test_a_pipe_to_another_process_is_not_that_of_the_screen():
    def send():
        ours, theirs = multiprocessing.Pipe()
        theirs.close()
        for _ in range(2):
            ours.send("text")

    failure = failure_of(caught(send))
    assert failure.status == 1 and failure.said.startswith("error: ")


def test_generated_code_is_no_expression_of_a_config():
    error = caught(lambda: setattr(failure_of(KeyboardInterrupt()), "status", 0))
    assert failure_of(error).fault and "FrozenInstanceError" in failure_of(error).said


def test_a_fault_says_where():
    failure = failure_of(caught(lambda: failure_of(None)))
    path, _, line = failure.said.partition(" at ")[2].split(": ")[0].partition(":")
    assert path.startswith("interslice/files/") and line.isdigit()


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted: files that were written before are whole; again, please"),
        (Terminated(), 143, "interrupted: files that were written before are whole; again, please"),
        (KeyboardInterrupt("2 of 3 are written"), 130, "interrupted: 2 of 3 are written"),
    ],
)
def test_interruptions(error, status, said):
    failure = failure_of(error, go_on="again, please")
    assert (failure.status, failure.said, failure.fault) == (status, said, False)


@repeatable
@given(kind=st.sampled_from([ValueError, TypeError, KeyError, RuntimeError, OSError, UsageError]), text=st.text(),
       words=st.lists(st.text()))  # fmt: skip
def test_whatever_was_raised_something_is_said(kind, text, words):
    """The last resort must not fail itself."""
    failure = failure_of(caught(lambda: (_ for _ in ()).throw(kind(text))), words)
    assert failure.status in (1, 2) and len(failure.said.strip()) > len("error:")
