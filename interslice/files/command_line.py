"""The words of a command line of `monai.bundle run`, and the values that they become in a config.

    results#2 -> results    a,b -> ('a', 'b')    (new) -> new    1e5 -> 100000.0    ./a#2 -> ./a::2

Python Fire takes a value for Python where it can, and # for its comment; MONAI takes the # of any text for the sign
between the parts of an id, and writes it as ::.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fire.parser import DefaultParseValue

SEPARATOR = re.compile("#|::")
"""Between the parts of an id."""


def is_run(words: Sequence[str]) -> bool:
    """Whether sys.argv is that of `python -m monai.bundle run`."""
    return len(words) > 1 and words[0].endswith(str(Path("monai", "bundle", "__main__.py"))) and words[1] == "run"


def parse(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words without a name, and options with their values as text, as Python Fire reads them."""
    read = list(pairs(words))
    return [value for name, value in read if name is None], {name: value for name, value in read if name is not None}


def pairs(words: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """(name, value) of every option, as often as it is given, and (None, word) of every word without a name."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not is_option(word):
            yield None, word
            continue
        name, _, value = word.lstrip("-").partition("=")
        if "=" not in word:
            value = rest.pop(0) if rest and not is_option(rest[0]) else "True"
        yield name.replace("-", "_"), value


def is_option(word: str) -> bool:
    """`--name`, `-n`, or, as Python Fire has it, `-inf`; and no negative number."""
    return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None


def becomes(text: str) -> object:
    """What the text of an option is where a config of ours meets it."""
    value = DefaultParseValue(text)
    return as_monai_writes(value) if isinstance(value, str) else value


def is_made_of(value: object, text: str) -> bool:
    """Whether the command line's `text` arrives as this value."""
    made = becomes(text)
    return type(made) is type(value) and as_monai_writes(str(made)) == as_monai_writes(str(value))


def as_monai_writes(text: str) -> str:
    """With :: for #; after @ and % of an option, which is no part of another, the sign goes."""
    return re.sub("(?<=[@%])::", "", text.replace("#", "::"))
