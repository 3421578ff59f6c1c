"""The record of a case, run.json, as it is read: what its set consists of, and whether that is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

RECORD = "run.json"


def record_of(folder: Path) -> dict | None:
    """The record of the set in a folder; None where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def holds_results(folder: Path) -> bool:
    """Whether a run of ours has written its results there; others may call a file of theirs run.json, too."""
    return (record_of(folder) or {}).keys() >= {"source", "settings"}


def is_whole(folder: Path, record: Mapping) -> bool:
    """Whether all files that the record names are there; a record of an earlier version names none."""
    named = record.get("files", {})
    return isinstance(named, dict) and all(
        isinstance(number, int) and count(folder / name) >= number for name, number in named.items()
    )


def count(path: Path) -> int:
    """1 for a file, for a folder the files in it at any depth, and 0 for nothing."""
    return sum(p.is_file() for p in path.rglob("*")) if path.is_dir() else int(path.exists())
