"""Names on a command line that MONAI would run, where a file is meant: refused before anything is evaluated.

MONAI takes text that begins with `$` for Python, with `%` for a part of a config, which may hold Python, and a list or
a mapping for a config of its own. A name of a file may begin so, too: `for f in *; do ... --dataset_dir "$f"; done`.
By the time that MONAI evaluates the first expression of ours, in `initialize`, it has made of the text what it makes;
so it cannot be taken for the file any more, and what is said is the fix: `./$name`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from interslice.files.command_line import SEPARATOR, becomes, is_run, pairs
from interslice.usage import UsageError

PATHS = (
    "bundle_root", "sample_dir", "run_dir", "dataset_dir", "output_dir", "checkpoint", "region_dir", "validation_dir",
    "mask_dir", "poses",
)  # fmt: skip
"""Ids that are paths."""
WORDS = ("series", "reference", "unit", "model_name")
"""Ids that are other texts, which may come from data."""
PARTS = ("path", "source", "folder", "log_dir")
"""Names of the arguments of components that are paths: `--weights#path`."""
TAKEN_AS_TEXT = ("config_file", "meta_file", "logging_file", "args_file", "tracking")
"""Files that MONAI opens by their name, whatever that is."""
NOTHING = "$None"
"""What is given for nothing."""


def check_names(words: Sequence[str]) -> None:
    """Refuse a command line `monai.bundle run` that would run what is meant as a name.

    Args:
        words: sys.argv. Of other programs nothing is looked at.

    Raises:
        UsageError: names each, and how to write it.
    """
    if not is_run(words):
        return
    said = [line for name, text in pairs(words[2:]) if name is not None and (line := would_run(name, text))]
    if said:
        raise UsageError("\n".join(said))


def would_run(name: str, text: str) -> str | None:
    """Why the text of the option `name` is not taken, in words; None if no name in it is evaluated."""
    last = SEPARATOR.split(name.lstrip("+~"))[-1]
    is_name = last in (*PATHS, *WORDS) or (last != name and last in PARTS)
    if name in TAKEN_AS_TEXT or text == NOTHING or not (is_name or os.path.lexists(text)):
        return None
    fix = "it has no place here, give its number" if last in ("series", "reference") else f"write ./{text}"
    if text.startswith("$"):
        return f"--{name} {text}: what begins with $ is run as Python by MONAI; for what has that name, {fix}"
    if text.startswith("%"):
        return f"--{name} {text}: what begins with % is looked up in a config by MONAI; for what has that name, {fix}"
    if holds_config(becomes(text)):
        return f"--{name} {text}: this is a config to MONAI, which would run it; for what has that name, {fix}"
    return None


def is_code(name: str, text: str) -> bool:
    """Whether an option and its text are anything that MONAI would evaluate, look up in a file, or make."""
    makes = any(part.startswith("_") for part in SEPARATOR.split(name.lstrip("+~")))
    return makes or (text != NOTHING and holds_config(becomes(text)))


def holds_config(value: object) -> bool:
    """True for a list or a mapping in which MONAI would find something to run, to look up or to make."""
    if isinstance(value, dict):
        return "_target_" in value or any(holds_config(v) for v in (*value.keys(), *value.values()))
    if isinstance(value, list):
        return any(holds_config(v) for v in value)
    return isinstance(value, str) and value.startswith(("$", "%"))
