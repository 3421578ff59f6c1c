"""Paths that options name, whatever the command line has made of their text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from interslice.files.command_line import is_made_of, parse
from interslice.usage import UsageError


def path_of(name: str, value: object, words: Sequence[str] | None = None) -> Path:
    """The path that the option `name` was given.

    The command line makes a number of `--dataset_dir 1001`, and `results` of `--output_dir 'results#2'`
    (interslice.files.command_line). So the text itself is taken from the command line, `words` (sys.argv), if it has
    the option and the value is what becomes of that text; any other value came from Python or from a config, and
    stands. A whole number given from Python is its digits.

    Raises:
        UsageError: no text, or a value that no command line made of text.
    """
    text = parse(sys.argv if words is None else words)[1].get(name)
    if text and is_made_of(value, text):
        return Path(text)
    if isinstance(value, (str, os.PathLike)):
        if not str(value):
            raise UsageError(f"{name} must name a file or a folder, got {value!r}; for this folder give .")
        return Path(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return Path(str(value))
    raise UsageError(f"{name} must be a path, got {value!r}: give it as text, or begin it with ./")
