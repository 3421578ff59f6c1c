"""Tells the data of a case from those of others, whatever they are called and wherever they lie.

A name says little: discs call their folders alike, and files are moved. The record of a case (run.json) holds the
fingerprint of what was reconstructed. It is a hash, from which nothing can be read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from interslice.files.dicom_stack import Stack
from interslice.files.member import Group
from interslice.files.series import Series, TimePoint

ENDS = 1 << 20
"""Bytes at the beginning and at the end of a file that are looked at, besides its size."""
DIGITS = 16
OF_A_FOLDER = 16
"""Files that are looked at of a folder that is one measurement, besides their number and sizes."""


def fingerprint(data: Path | str | Stack | Group | Series | TimePoint) -> str | None:
    """16 hexadecimal digits of a file, or of a stack by the identities of its images; None if it cannot be read.

    Of a series by all its volumes. Of a group by the fingerprints of its members; one of a single member has that
    member's.
    """
    if isinstance(data, TimePoint):
        data = data.series
    if isinstance(data, Series):
        data = data.data
    if isinstance(data, Group):
        of_members = [fingerprint(member.data) or "" for member in data.members]
        if len(of_members) == 1:
            return of_members[0] or None
        return hashlib.sha256("\n".join(sorted(of_members)).encode()).hexdigest()[:DIGITS]
    if isinstance(data, Stack) and all(s.instance for s in data.slices):
        told = "\n".join(sorted(f"{s.instance} {s.frame}" for s in data.slices)).encode()
    else:
        paths = sorted({s.path for s in data.slices}) if isinstance(data, Stack) else [Path(data)]
        try:
            told = b"".join(ends_of(path) for path in paths)
        except OSError:
            return None
    return hashlib.sha256(told).hexdigest()[:DIGITS]


def ends_of(path: Path) -> bytes:
    """Size, beginning and end of a file; of a folder those of some of its files, and the sizes of all."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        sizes = sorted(p.stat().st_size for p in files)
        some = files[:: max(1, len(files) // OF_A_FOLDER)][:OF_A_FOLDER]
        return hashlib.sha256(str(sizes).encode()).digest() + b"".join(map(ends_of, some))
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(ENDS)
        file.seek(max(0, size - ENDS), os.SEEK_SET)
        return str(size).encode() + start + file.read(ENDS)


def states_of(path: Path | str | None) -> list[str]:
    """Of a file, or of each file in a folder at any depth, its name, size and time: they change when it does."""
    if path is None:
        return []
    root = Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root] if root.is_file() else []
    return [f"{p} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
