"""Values of options: checked where they are used first, before any work, in words that say what is allowed.

Numbers from a command line may be anything that Python can write: a list, text, NaN. Each check returns the value or
raises UsageError with the option's name, the value, and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real

from interslice.usage import UsageError


def whole_number(name: str, value: object, least: int = 0, fix: str = "") -> int:
    """A whole number from `least`; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise UsageError(f"{name} must be a whole number from {least}, got {value!r}{_after(fix)}")
    return int(value)


def number(name: str, value: object, least: float | None = None, most: float | None = None, *,
           above: float | None = None, below: float | None = None, kind: str = "a number", fix: str = ""
           ) -> float:  # fmt: skip
    """A finite number within limits: from `least` up to `most`, or strictly `above` and `below`; `kind` in words."""
    limits = [f"{word} {limit:g}" for word, limit in (("from", least), ("above", above), ("up to", most),
                                                      ("below", below)) if limit is not None]  # fmt: skip
    if not (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    ):
        allowed = f"{kind} {', '.join(limits)}".rstrip()
        raise UsageError(f"{name} must be {allowed}, got {value!r}{_after(fix)}")
    return value


def rising_pair(name: str, value: object, above: float = -math.inf) -> tuple[float, float]:
    """Two finite numbers, the second above the first, and both above a third."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    finite = len(pair) == 2 and all(isinstance(v, Real) and math.isfinite(v) for v in pair)
    if not (finite and pair[1] > pair[0] > above):
        limit = "" if above == -math.inf else f" above {above:g}"
        example = [-1.0, 1.0] if above < -1 else [above + 1, above + 2]
        raise UsageError(f"{name} must be two rising numbers{limit}, such as {example}, got {value!r}")
    return pair


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of the words `allowed`."""
    if value not in tuple(allowed):  # a mapping would ask for the hash of a list
        raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def callable_or_none(name: str, value: object, such_as: str) -> Callable | None:
    """Nothing, or what can be called: on a command line a reference, `such_as`."""
    if value is not None and not callable(value):
        raise UsageError(f"{name} must be nothing or refer to a part of the config, such as {such_as}, got {value!r}")
    return value


def _after(fix: str) -> str:
    return f"; {fix}" if fix else ""
