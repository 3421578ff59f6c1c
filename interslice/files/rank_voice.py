"""What ranks say on the one screen that they share: rank 0 as ever, the others with their number, or nothing."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
from typing import TextIO

FIRST = 10.0
"""Seconds that other ranks wait before they say why they end: what ends all of them, rank 0 says in that time."""


def number() -> int:
    """Of this process among those of torchrun, before and after they have joined."""
    return int(os.environ.get("RANK", 0))


class RankVoice(io.TextIOBase):
    """A stream whose whole lines go to another, with the number of the rank before each.

    Args:
        stream: of the screen.
        rank: the number.
        aloud: or nothing goes there.
    """

    def __init__(self, stream: TextIO, rank: int, aloud: bool) -> None:
        self.stream, self.rank, self.aloud, self._begun = stream, rank, aloud, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        shown = [line.rpartition("\r")[2] for line in lines]  # of a bar, what came after it
        if self.aloud:
            self.stream.write("".join(f"rank {self.rank}: {line}\n" for line in shown if line.strip()))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def speak_as_rank(aloud: bool) -> None:
    """From here on, what a rank other than 0 says has its number before it, or is not said; what is logged, too."""
    if not number():
        return
    voices = {stream: RankVoice(stream, number(), aloud) for stream in (sys.__stdout__, sys.__stderr__)}
    known = (logging.root, *logging.root.manager.loggerDict.values())
    for handler in (h for logger in known for h in getattr(logger, "handlers", ())):
        stream = getattr(handler, "stream", None)
        if (screen := getattr(stream, "stream", stream)) in voices:
            handler.setStream(voices[screen])
    sys.stdout, sys.stderr = voices.values()


def let_first_speak(error: BaseException) -> None:
    """Before the last words of a rank other than 0: wait for rank 0 to say the same, and torchrun to end this one.

    What one rank alone has met is then said by that rank. An interruption is for all, and rank 0 says it.
    """
    if number() and not isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(FIRST)
        speak_as_rank(aloud=True)
