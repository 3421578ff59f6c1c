"""Text of the command line as values of the configs: none of it is evaluated, whatever it looks like.

MONAI takes text that begins with `$` for Python, `@` and `%` for references, and `#` for the sign between the parts of
an id. So text reaches it as a Python literal in which no such sign stands, and is the text again behind it:

    $(touch x)  ->  $'\\x24\\x28touch x\\x29'
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from interslice.usage import UsageError

NOTHING = "$None"
"""Nothing, as the configs write it where MONAI would drop a plain None."""
REFERENCE = re.compile(r"@[A-Za-z_]\w*((#|::)\w+)*")
PLAIN = re.compile(r"[A-Za-z0-9_./ -]")
MOST = 10_000
"""Characters of a value that is read as numbers."""


def inert(text: str) -> str:
    """What a config may hold in place of a text, and means exactly that text."""
    return "$'" + "".join(c if PLAIN.fullmatch(c) else _escaped(c) for c in text) + "'"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def value_of(name: str, kind: Sequence[str], text: str) -> object:
    """What a config gets for the text of an option.

    Args:
        name: of the option, for the message.
        kind: its name, then the words that are taken besides.

    Raises:
        UsageError: the text is nothing of that kind.
    """
    head, *words = kind
    if text in words:
        return text
    if head == "choice":
        raise UsageError(f"{name} must be one of {', '.join(words)}, got {text!r}")
    if text == "none" and head != "text":
        return NOTHING
    return KINDS[head](name, text, words)


def whole(name: str, text: str, words: Sequence[str] = ()) -> int:
    """A whole number."""
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        raise UsageError(f"{name} must be {_or(words)}a whole number, got {text!r}")
    return int(text)


def number(name: str, text: str, words: Sequence[str] = ()) -> int | float:
    """A number; whole ones stay whole."""
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return int(text)
    try:
        return float(text if len(text) < MOST else "")
    except ValueError:
        raise UsageError(f"{name} must be {_or(words)}a number, got {text!r}") from None


def numbers(name: str, text: str, words: Sequence[str] = ()) -> list:
    """Numbers with commas between them, in brackets or not."""
    inside = text.strip()
    if inside[:1] in ("[", "(") and inside[-1:] in ("]", ")"):
        inside = inside[1:-1]
    try:
        return [number(name, part.strip()) for part in inside.split(",")]
    except UsageError:
        raise UsageError(f"{name} must be numbers with commas between them, such as 0,1.5, got {text!r}") from None


def reference(name: str, text: str, words: Sequence[str] = ()) -> str:
    """A reference to a part of the configs."""
    if not REFERENCE.fullmatch(text):
        raise UsageError(
            f"{name} must be none, or refer to a part of the configs, as @baselines#smoothest; got {text!r}"
        )
    return text


def anything(name: str, text: str, words: Sequence[str] = ()) -> object:
    """A number, numbers with commas, true, false, JSON, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (number, numbers, _json):
        try:
            return read(name, text)
        except (UsageError, ValueError, RecursionError):
            continue
    return inert(text)


def text_of(name: str, text: str, words: Sequence[str] = ()) -> str:
    """The text itself."""
    return inert(text)


KINDS: dict[str, Callable] = {
    "whole": whole, "number": number, "numbers": numbers, "reference": reference, "value": anything, "text": text_of,
    "path": text_of,
}  # fmt: skip
"""What an option takes, besides "choice" (a word of a list) and "switch"."""


def _or(words: Sequence[str]) -> str:
    return "".join(f"{word}, " for word in words) + ("or " if words else "")


def _json(name: str, text: str) -> object:
    value = json.loads(text if len(text) < MOST else "")
    return _inside(value) if isinstance(value, (list, dict)) else inert(text)


def _inside(value: object) -> object:
    """A value from JSON, whose texts are inert."""
    if isinstance(value, dict):
        if odd := [key for key in value if not re.fullmatch(r"[\w.-]+", key) or key.startswith("_")]:
            raise UsageError(f"{odd[0]!r} is no name here: letters, digits and signs of - . are")
        return {key: _inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inside(item) for item in value]
    return inert(value) if isinstance(value, str) else value
