"""What became of an input: refused in plain words, accepted, or one of four ways to fail.

    plain refusal   status 1 or 2; the last lines name the file or the option, and say why in our words
    accepted        status 0; a result is written, and finite
    by MONAI        MONAI's parser refused an option before any line of ours ran; in its words, and nothing is begun
    unclear         a traceback, or a library's words, or nothing that names the file or the option
    lost            the good case beside is not there bit for bit; a hidden or half-written file is left; an older
                    result is gone, or half replaced
    crash           ended by a signal, or code that came with the data ran
    slow            above the limits of time or memory

With `lenient` the plain sentence may stand anywhere, and sets of results may be mixed: "late" counts such refusals.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.fuzzing.child import MEMORY, SECONDS, Outcome
from scripts.fuzzing.words import GENERAL, is_ours

PLAIN, ACCEPTED, EARLY, LATE, UNCLEAR, LOST, CRASH, SLOW = (
    "plain refusal", "accepted", "by MONAI", "late", "unclear", "lost", "crash", "slow",
)  # fmt: skip
VERDICTS = (PLAIN, ACCEPTED, EARLY, LATE, UNCLEAR, LOST, CRASH, SLOW)
FAILURES = (LATE, UNCLEAR, LOST, CRASH, SLOW)
LAST_LINES = 12
TRACEBACK = "Traceback (most recent call last)"
OF_MONAI, OF_OURS = re.compile(r'File "[^"]*/monai/bundle/'), re.compile(r'File "[^"]*/interslice/\w+/')
"""Lines of a traceback that lie in MONAI's runner, and in the rooms of the bundle."""
NO_MEMORY = re.compile(r"MemoryError|Unable to allocate|can't allocate memory|bad_alloc|Cannot allocate memory")
CODE = re.compile(r"^(\s{4,}|  File \")")
"""Lines of a traceback that show sources, where our sentences stand as code."""
LOG = re.compile(r"^\d{4}-\d\d-\d\d .* - (INFO|WARNING)")


@dataclass(frozen=True)
class Found:
    """What is on the disk after a run.

    Attributes:
        lost: what is missing, changed or left over and should not be, in words; empty if all is well.
        mixed: files of an older set beside those of a new one.
        written: whether the damaged case has a new result, and all that is new is finite.
        left_out: whether a result was not to be expected.
        code_ran: whether code that came with the data ran.
    """

    lost: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    written: bool = False
    code_ran: bool = False


def judge(outcome: Outcome, found: Found, name: str, ours: Sequence[re.Pattern[str]], lenient: bool = False,
          seconds: float = SECONDS, memory: int = MEMORY) -> tuple[str, str]:  # fmt: skip
    """(verdict, why) of a run on an input that its refusal must call by `name`, a pattern."""
    if found.code_ran:
        return CRASH, "code that came with the data ran"
    if outcome.seconds > seconds or outcome.signal in (signal.SIGALRM, signal.SIGXCPU):
        return SLOW, f"{outcome.seconds:.0f} s"
    if outcome.peak > memory or NO_MEMORY.search(outcome.text):
        return SLOW, f"memory: {outcome.peak / 1e9:.1f} GB"
    if outcome.signal is not None:
        return CRASH, f"signal {signal.Signals(outcome.signal).name}"
    if found.lost or (found.mixed and not lenient):
        return LOST, "; ".join((*found.lost, *found.mixed))
    if outcome.status == 0:
        if found.written:
            return ACCEPTED, ""
        reason = plain_reason(outcome.text, name, ours, anywhere=True)
        return UNCLEAR, f"status 0 and no finite result ({reason or 'nothing said'})"
    if outcome.status not in (1, 2):
        return UNCLEAR, f"status {outcome.status}"
    if TRACEBACK not in outcome.text and (reason := plain_reason(outcome.text, name, ours)):
        return PLAIN, reason
    if TRACEBACK in outcome.text and OF_MONAI.search(outcome.text) and not OF_OURS.search(outcome.text):
        return EARLY, last_lines(outcome.text)
    if lenient and (reason := plain_reason(outcome.text, name, ours, anywhere=True)):
        return LATE, reason
    return UNCLEAR, last_lines(outcome.text)


def plain_reason(text: str, name: str, ours: Sequence[re.Pattern[str]], anywhere: bool = False) -> str:
    """The line that names the input, if it or those after it give a reason in our words; else nothing."""
    lines = [line for line in text.splitlines() if line.strip() and not CODE.match(line) and not LOG.match(line)]
    if not anywhere:
        lines = lines[-LAST_LINES:]
    reasons = [line for line in lines if not GENERAL.search(line)]
    for at in reversed(range(len(reasons))):
        if re.search(name, reasons[at]) and any(is_ours(line, ours) for line in reasons[at : at + 6]):
            return reasons[at].strip()[:300]
    return ""


def last_lines(text: str) -> str:
    """What is shown of an unclear end: its last two lines, and the first line of an exception."""
    lines = [line for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)][:1]
    return " | ".join(line.strip()[:200] for line in [*raised, *lines[-2:]])
