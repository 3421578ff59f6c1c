"""What went wrong first: the innermost of the exceptions that were raised from one another.

MONAI wraps what its components, expressions and transforms raise; a process of torch's DataLoader sends its exception
as text, with the traceback in its message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FROM_WORKER = re.compile(r"\ACaught \w+ in .*?\nOriginal Traceback \(most recent call last\):\n", re.DOTALL)
"""How torch begins the message of an exception that comes from another process (torch._utils.ExceptionWrapper)."""
CHAINED = "\n\nThe above exception was the direct cause of the following exception:\n"
FRAME = re.compile(r'^  File "(?P<path>.+?)", line (?P<line>\d+).*\n(?:    (?P<code>\S.*)\n)?', re.MULTILINE)


@dataclass(frozen=True)
class Sent:
    """An exception that another process sent as text.

    Attributes:
        kind: the name of its class.
        message: its text.
        frames: (path, line, code) from the outermost call to where it was raised.
    """

    kind: str
    message: str
    frames: tuple[tuple[str, int, str], ...]


def innermost(error: BaseException) -> BaseException:
    """The exception that the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def sent(error: BaseException) -> Sent | None:
    """What another process raised, where `error` brings it; None where it was raised here."""
    text = str(error.args[0]) if error.args else ""
    if not FROM_WORKER.match(text):
        return None
    first = FROM_WORKER.sub("", text).split(CHAINED)[0].rstrip()
    lines = first.splitlines()
    at = next((i for i, line in enumerate(lines) if line and not line[0].isspace()), len(lines))
    frames = [(m["path"], int(m["line"]), m["code"] or "") for m in FRAME.finditer("\n".join(lines[:at]) + "\n")]
    kind, _, message = "\n".join(lines[at:]).partition(": ")
    return Sent(kind.strip().rsplit(".", 1)[-1], message.strip(), tuple(frames))


def root_cause(error: BaseException) -> str:
    """The message of the innermost exception: what went wrong, without the transforms it passed through."""
    error = innermost(error)
    remote = sent(error)
    if remote is not None:
        return remote.message or remote.kind
    return str(error).strip() or type(error).__name__
