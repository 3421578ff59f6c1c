"""What is heard of a run, whatever the pieces that its output comes in."""

import io
import sys

import pytest
from tqdm import tqdm

from interslice.page.progress import Heard


def output():
    """What a run writes, tqdm's own bars with lines between them: until a bar is nearly at its end, and all."""
    file = io.StringIO()
    for _ in tqdm(range(2), desc="reading", unit="case", leave=False, file=file, mininterval=0, ascii=False):
        pass
    file.write("warning: doubtful\n")
    bar = tqdm(total=4, desc="sampling", unit="step", file=file, mininterval=0, ascii=False)
    for n in range(3):
        bar.update()
        if n == 1:
            bar.clear()
            file.write("skipped /tmp/x/scan/ä.nii: no\n")
    before = file.getvalue().encode()
    bar.update()
    bar.close()
    return before, file.getvalue().encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_bars_and_lines_are_told_apart_in_any_pieces(size):
    content, whole = output()
    heard, seen = Heard({"/tmp/x/scan/": ""}), []
    for start in range(0, len(content), size):
        heard.hear(content[start : start + size])
        seen += [(what, b["done"]) for what, b in heard.bars.items() if (what, b["done"]) not in seen]
    assert [*heard.lines] == ["warning: doubtful", "skipped ä.nii: no"]
    assert heard.bars["sampling"]["done"] == 3 and heard.bars["sampling"]["total"] == 4 and heard.worked
    if size < 10:
        assert seen == [("reading", 0), ("reading", 1), *[("sampling", n) for n in range(4)]]
    heard.hear(whole[len(content) :], final=True)
    assert heard.bars == {} and len(heard.lines) == 2


def test_the_time_left_is_that_of_the_bar():
    heard = Heard()
    heard.hear(b"\rsampling:   0%|          | 0/4 [00:00<?, ?step/s]")
    assert heard.bars["sampling"] == {"done": 0, "total": 4, "spent": "00:00", "left": "?"}
    heard.hear("\rsampling:  25%|██▌       | 1/4 [00:54<1:02:43, 54.58s/step]".encode())
    assert heard.bars["sampling"] == {"done": 1, "total": 4, "spent": "00:54", "left": "1:02:43"}


def test_bars_in_each_other_are_both_there():
    heard = Heard()
    heard.hear(b"\rscan:  33%|###   | 1/3 [00:54<01:43, 54.58s/volume]\n")
    heard.hear(b"\rsampling:  25%|## | 1/4 [00:05<00:15, 5.0s/step]\x1b[A")
    assert {name: bar["done"] for name, bar in heard.bars.items()} == {"scan": 1, "sampling": 1}
    assert [*heard.lines] == []


def test_the_last_words_are_those_of_the_end():
    heard = Heard()
    heard.hear(b"skipped x: bad\nerror: no usable volume:\n  x: bad\n", final=True)
    assert heard.last_words() == ["error: no usable volume:", "  x: bad"]
    heard = Heard()
    heard.hear(b"1 of 2 volumes have no result:\n  x: bad", final=True)
    assert heard.last_words() == ["1 of 2 volumes have no result:", "  x: bad"]


def test_what_is_remembered_has_an_end():
    heard = Heard()
    heard.hear(b"line\n" * 100_000)
    assert len(heard.lines) == 500 and sys.getsizeof(heard._rest) < 100
