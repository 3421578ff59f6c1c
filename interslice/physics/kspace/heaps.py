"""Damaged texts of HDF5, at which its library would never end.

Texts and arrays of any length lie in "global heaps" (HDF5 File Format Specification, III.E): a signature of 16 bytes,
then objects one behind the other,

    index (2 bytes)   references (2)   reserved (4)   size (8)   content, filled up to 8 bytes

and behind the last one the free space, which has the index 0 and a size that counts these 16 bytes. The library walks
from object to object by their sizes; where the free space has none, it stays where it is. Sizes are taken to have the
8 bytes that every writer in use gives them.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from interslice.files.scan import Refusal

SIGNATURE = b"GCOL\x01\0\0\0"
HEAD = 16


def check_heaps(path: Path) -> None:
    """Raise Refusal for a heap through which there is no way; files without heaps, or of another kind, pass."""
    if path.stat().st_size < HEAD:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(SIGNATURE)
        while start >= 0:
            _walk(content, start)
            start = content.find(SIGNATURE, start + HEAD)


def _walk(content: mmap.mmap, start: int) -> None:
    def number(at: int, length: int) -> int:
        return int.from_bytes(content[at : at + length], "little")

    end = min(start + number(start + 8, 8), len(content))
    at = start + HEAD
    while at + HEAD <= end:
        size = number(at + 8, 8)
        if number(at, 2):
            at += HEAD + -(-size // 8) * 8
        elif size < HEAD:
            raise Refusal(f"its texts are damaged (a heap of HDF5 stops at byte {at}): copy the file anew")
        else:
            at += size
