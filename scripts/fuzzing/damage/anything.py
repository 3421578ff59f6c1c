"""Damage that knows no format: bytes cut off, flipped, moved, replaced, and files of another kind."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from scripts.fuzzing.damage.odd import pick

GZIP = b"\x1f\x8b"
FOREIGN = (
    b"", b"\x00", b"hello\n", b"<html><body>404 Not Found</body></html>", b'{"error": "not found"}',
    b"PK\x03\x04" + b"\0" * 60,
    b"\x89HDF\r\n\x1a\n" + b"\0" * 80, b"\x1f\x8b\x08\x00" + b"\0" * 20, b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"\0" * 128 + b"DICM" + b"\0" * 40,
    b"NRRD0005\ntype: float\n", b"ObjectType = Image\nNDims = 3\n", b"\x5c\x01\0\0" + b"\0" * 344, b"\x93NUMPY\x01\0",
    b"<?xml version='1.0'?><a/>", b"MZ" + b"\xff" * 400, b"\xef\xbb\xbf{}", b"\0" * 5000, b"\xff" * 5000,
)  # fmt: skip
"""What else may stand under a name."""


def damage_bytes(rng: np.random.Generator, path: Path) -> str:
    """Change the bytes of a file; of a compressed one, of what it holds, or of the file itself."""
    content = path.read_bytes()
    inside = content.startswith(GZIP) and rng.random() < 0.6
    if inside:
        content = gzip.decompress(content)
    content, what = damaged(rng, content)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if inside else content)
    return f"{path.name}: {what}{', then compressed' if inside else ''}"


def damaged(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Changed bytes, and how."""
    size = max(len(content), 1)
    # Headers are small and stand first: half of the damage goes there.
    at = int(rng.integers(min(size, 512) if rng.random() < 0.5 else size))
    width = int(rng.integers(1, 1 + min(size, pick(rng, (1, 4, 64, 4096)))))
    block = content[at : at + width]
    if rng.random() < 0.12:
        return pick(rng, FOREIGN), "another file's content"
    changes = {
        "cut off": lambda: content[:at],
        "a byte short": lambda: content[:-1],
        "beginning lost": lambda: content[at + 1 :],
        "bits flipped": lambda: flipped(rng, content, at),
        "zeros": lambda: content[:at] + bytes(len(block)) + content[at + width :],
        "ones": lambda: content[:at] + b"\xff" * len(block) + content[at + width :],
        "noise": lambda: content[:at] + rng.bytes(len(block)) + content[at + width :],
        "block removed": lambda: content[:at] + content[at + width :],
        "block repeated": lambda: content[: at + width] + block + content[at + width :],
        "noise inserted": lambda: content[:at] + rng.bytes(width) + content[at:],
        "halves swapped": lambda: content[at:] + content[:at],
        "garbage appended": lambda: content + rng.bytes(width),
        "twice": lambda: content + content,
        "compressed again": lambda: gzip.compress(content, 1, mtime=0),
        "lines ended as on Windows": lambda: content.replace(b"\n", b"\r\n"),
    }
    name = pick(rng, tuple(changes))
    return changes[name](), f"{name} at {at}, {width} bytes"


def flipped(rng: np.random.Generator, content: bytes, at: int) -> bytes:
    """One to eight bits flipped, the first of them at a given place."""
    array = bytearray(content)
    for place in [at, *rng.integers(max(len(array), 1), size=int(rng.integers(8)))]:
        if place < len(array):
            array[place] ^= 1 << int(rng.integers(8))
    return bytes(array)
