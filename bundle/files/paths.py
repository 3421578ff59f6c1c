"""Paths that options name, whatever the command line has made of their text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path


def path_of(name: str, value: object, words: Sequence[str] | None = None) -> Path:
    """The path that the option `name` was given.

    Python Fire, which reads MONAI's command line, takes `--dataset_dir 1001` for a number and `--dataset_dir a,b` for a
    tuple: there the text itself is taken from the command line, `words` (sys.argv). A whole number given from Python is
    its digits.

    Raises:
        ValueError: no text, or a value that no command line made of text.
    """
    if isinstance(value, (str, os.PathLike)):
        if not str(value):
            raise ValueError(f"{name} must name a file or a folder, got {value!r}; for this folder give .")
        return Path(value)
    words = sys.argv if words is None else words
    for i, word in enumerate(words):
        option, _, text = word.partition("=")
        if option.startswith("-") and option.lstrip("-").replace("-", "_") == name:
            return Path(text if "=" in word or i + 1 == len(words) else words[i + 1])
    if isinstance(value, Integral) and not isinstance(value, bool):
        return Path(str(value))
    raise ValueError(f"{name} must be a path, got {value!r}: give it as text, or begin it with ./")
