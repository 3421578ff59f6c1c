"""Compression of what is written and read: plain gzip, that every program reads.

Written by ISA-L (python-isal), whose level 2 takes a tenth of the time of zlib's level 1 on results, for files of the
same size; where the package is missing, by zlib at level 1. Neither name nor time is in it: one volume gives one file,
on one kind of processor (ISA-L has other code for each).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from nibabel.fileholders import FileHolder

try:
    from isal import igzip, isal_zlib

    LEVEL, WRITER, COMPRESSOR = 2, igzip.IGzipFile, isal_zlib.compressobj
except ImportError:  # no wheel for this platform
    LEVEL, WRITER, COMPRESSOR = 1, gzip.GzipFile, zlib.compressobj

GZIP = b"\x1f\x8b"
"""How gzip begins; no header of a volume does."""
BLOCK = 1 << 18
"""Bytes that are compressed at once."""
AS_GZIP = 16 + zlib.MAX_WBITS
"""zlib's word for the format, in place of its own."""


def gzip_writer(file: BinaryIO) -> gzip.GzipFile:
    """A file that compresses into another, which stays open."""
    return WRITER(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0)


def gzip_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip file of all pieces together, in pieces; the same however they are cut."""
    compressor = COMPRESSOR(LEVEL, zlib.DEFLATED, AS_GZIP)
    for block in blocks_of(pieces):
        yield compressor.compress(block)
    yield compressor.flush()


def blocks_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut anew: ISA-L's choices depend on what it is given at once."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= BLOCK:
            yield bytes(waiting[:BLOCK])
            del waiting[:BLOCK]
    yield bytes(waiting)


def file_holder(path: Path) -> FileHolder:
    """What nibabel takes for the path of a single file, opened by what it holds: a wrong suffix does no harm."""
    compressed = is_gzip(path)
    if compressed == path.name.lower().endswith((".gz", ".mgz")):
        return FileHolder(str(path))
    return FileHolder(fileobj=gzip.open(path) if compressed else BytesIO(path.read_bytes()))


def is_gzip(path: Path) -> bool:
    """Whether a file holds what gzip made."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP
