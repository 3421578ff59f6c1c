"""What went wrong first is found through all that wrapped it, and through the text that another process sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset
from torch._utils import ExceptionWrapper

from interslice.files.read import LoadVolumed
from interslice.files.root_cause import innermost, root_cause, sent
from tests.support.helpers import repeatable

messages = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1).map(str.strip)


def raised(error, wraps=0):
    """The exception, as it is caught after so many others were raised from it."""
    try:
        raise error
    except Exception as caught:
        error = caught
    for i in range(wraps):
        try:
            raise RuntimeError(f"wrap {i}") from error
        except RuntimeError as caught:
            error = caught
    return error


def from_worker(error):
    """The exception as torch raises it again in the process that waits for a worker."""
    try:
        ExceptionWrapper((type(error), error, error.__traceback__), "in DataLoader worker process 0").reraise()
    except Exception as caught:
        return caught


@repeatable
@given(
    message=messages.filter(bool), wraps=st.integers(0, 3), kind=st.sampled_from([ValueError, OSError, RuntimeError])
)
def test_the_first_message_is_found(message, wraps, kind):
    error = raised(kind(message), wraps)
    assert root_cause(error) == message and type(innermost(error)) is kind
    again = from_worker(error)
    assert root_cause(again) == message and sent(again).kind == kind.__name__


@pytest.mark.parametrize("message", ["two\nlines", "a: b: c", "  File is here"])
def test_messages_that_look_like_tracebacks_come_whole(message):
    assert root_cause(from_worker(raised(ValueError(message)))) == message.strip()


def test_without_a_message_the_kind_is_said():
    assert root_cause(raised(MemoryError(), 2)) == "MemoryError"
    assert root_cause(from_worker(raised(AssertionError()))) == "AssertionError"


def test_a_worker_of_the_dataloader_sends_the_reason(tmp_path):
    (tmp_path / "bad.nii.gz").write_text("hello")
    dataset = Dataset([{"image": str(tmp_path / "bad.nii.gz")}], LoadVolumed("image"))
    with pytest.raises(RuntimeError, match="in DataLoader worker process 0") as caught:
        next(iter(DataLoader(dataset, num_workers=1)))
    assert root_cause(caught.value) == f"{tmp_path}/bad.nii.gz: this is no volume, but text that begins with 'hello'"
    path, line, code = sent(caught.value).frames[-1]
    assert path.endswith("volume_read.py") and line > 0 and code.startswith("raise ValueError")


def test_what_was_raised_here_was_not_sent():
    assert sent(ValueError("Caught ValueError in a trap")) is None and sent(ValueError()) is None
