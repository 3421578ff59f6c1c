"""A list of files: a text file with one path a line, read by our own code, so that no name in it is evaluated.

UTF-8, as names of files are; relative paths are from the list's own folder. Empty lines are passed over, and lines that
begin with `#`; a name that begins so is written `./#name`. A list that holds a NUL is one of `find -print0`: NULs stand
between its names, which may hold line ends, and nothing is a comment.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SUFFIX = ".txt"
LARGEST = 64 << 20
"""Bytes: some hundred thousand paths."""


def is_list(path: Path) -> bool:
    """True for the file of a list, by its name."""
    return path.name.lower().endswith(SUFFIX) and os.path.isfile(path)


def as_list(paths: Iterable[str | os.PathLike]) -> bytes:
    """The content of a list that names these, from wherever it is read: NUL after each, so that any name will do."""
    return b"".join(os.fsencode(os.path.abspath(path)) + b"\0" for path in paths)


def read_list(path: Path) -> list[Path]:
    """The paths that a list names, in its order; whether they exist is not asked.

    Raises:
        ValueError: UTF-16, or too large for a list.
    """
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} takes {size >> 20} MB, too much for a list of files: at most {LARGEST >> 20} MB")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} is a list in UTF-16: save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        names = content.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") for line in content.split(b"\n") if not line.startswith(b"#")]
    return [path.parent / os.fsdecode(name) for name in names if name.strip()]


def told_apart(cases: Mapping[str, str]) -> dict[str, str]:
    """path -> case: those that share a name get the names of the folders in front of it, until they differ.

    Which the names are depends on no other entries than those of the same name. Two of one name in one folder keep it.
    """
    sharing: dict[str, list[str]] = {}
    for path, case in cases.items():
        sharing.setdefault(case, []).append(path)
    apart = dict(cases)
    for case, paths in sharing.items():
        if len(paths) > 1:
            apart |= dict(zip(paths, _longer(case, paths), strict=True))
    return apart


def _longer(case: str, paths: Sequence[str]) -> list[str]:
    folders = [[part.strip(os.sep) for part in Path(os.path.abspath(path)).parent.parts] for path in paths]
    for depth in range(1, max(map(len, folders)) + 1):
        names = ["_".join([*filter(None, parts[-depth:]), case]) for parts in folders]
        if len(set(names)) == len(names):
            return names
    return [case] * len(paths)
