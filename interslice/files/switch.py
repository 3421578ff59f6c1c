"""Switches of the configs: on or off, read in one way."""

from __future__ import annotations

from interslice.usage import UsageError

ON, OFF = ("true", "yes", "1"), ("false", "no", "0")


def is_on(value: object, name: str = "the switch") -> bool:
    """True for true, yes and 1, False for false, no and 0: as values, or as the text of a command line in any case.

    Raises:
        UsageError: anything else.
    """
    text = str(value).strip().lower()
    if text not in (*ON, *OFF):
        raise UsageError(f"{name} is on or off: {', '.join(ON)}, or {', '.join(OFF)}; got {value!r}")
    return text in ON
