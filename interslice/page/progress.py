"""What a run says while it goes: its bars, as tqdm draws them, and its lines."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Mapping

BAR = re.compile(
    r"(?P<what>[^\r\n]*?): +\d+%\|.*\| *(?P<done>\d+)/(?P<total>\d+) \[(?P<spent>[\d:]+)<(?P<left>[\d:]+|\?), "
)
"""sampling:  25%|###       | 1/4 [00:54<02:43, 54.58s/step]"""
MOVES = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
"""By which tqdm goes from bar to bar."""
MOST_LINES = 500


class Heard:
    """What was heard of a run.

    Args:
        hidden: text -> what is shown in its place: folders that mean nothing to a reader.

    Attributes:
        bars: those that are not at their end: name -> {"done", "total", "spent", "left"}, of which times are words.
        lines: the last of what was said besides.
        worked: whether there has been a bar.
    """

    def __init__(self, hidden: Mapping[str, str] | None = None) -> None:
        self.hidden = dict(hidden or {})
        self.bars: dict[str, dict] = {}
        self.lines: deque[str] = deque(maxlen=MOST_LINES)
        self.worked = False
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def hear(self, content: bytes, final: bool = False) -> None:
        """Some more of the output."""
        *lines, self._rest = re.split(r"[\r\n]", self._rest + self._decode(content, final))
        for line in lines:
            self._take(line)
        if final or BAR.match(MOVES.sub("", self._rest)):  # a bar's line ends when it moves; so it is taken twice
            self._take(self._rest)

    def _take(self, line: str) -> None:
        line = MOVES.sub("", line)
        if bar := BAR.match(line):
            self.worked = True
            about = {"done": int(bar["done"]), "total": int(bar["total"]), "spent": bar["spent"], "left": bar["left"]}
            self.bars[bar["what"]] = about
            if about["done"] >= about["total"]:
                del self.bars[bar["what"]]
        elif line := line.rstrip():
            for text, shown in self.hidden.items():
                line = line.replace(text, shown)
            self.lines.append(line)

    def last_words(self) -> list[str]:
        """From the last line that says how the run ended; all lines where none does."""
        lines = [*self.lines]
        ends = [i for i, line in enumerate(lines) if line.startswith(ENDINGS)]
        return lines[ends[-1] :] if ends else lines


ENDINGS = ("error: ", "interrupted: ", "this is a fault of the program")
"""How the last lines of a run begin (interslice.files.failure)."""
