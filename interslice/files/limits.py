"""How large a file may be that is read: what its header states is held against a limit before memory is taken.

    size     voxels, counted as float32 (what they become, whatever the file holds), up to `max_gigabytes`
    memory   COPIES times that, which reading, checking and scaling take, up to what the machine has, or `max_memory`

A file of 1 MB can unpack to gigabytes, and a damaged header can state any size. A compressed stream is never unpacked
beyond what the header states.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from interslice.files.machine import GIGA, available_memory, in_gigabytes
from interslice.files.scan import Refusal
from interslice.files.values import number
from interslice.ranks import on_this_machine

MAX_GIGABYTES = 4.0
"""1000 x 1000 x 1000 voxels, or 512 x 512 x 3800: more than nearly all scans, and less than most machines have."""
COPIES = 5.0
"""Arrays of float32 that reading, checking and scaling a volume hold at once, at most (docs/reference/limits.md)."""
FLOAT = 4
OFF = ("false", "no", "off", "0")
LARGEST_TEXT = 64e6
"""Bytes of a text that describes a measurement (JSON, XML), at most."""
LARGEST_PREAMBLE = 64e6
"""Bytes that may stand before the voxels of a volume, at most."""
DEFLATE = 1032
"""Times that deflate can make data smaller, at most (zlib.net, "zlib Technical Details")."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of what is read, and of the memory that a run may take.

    Args:
        max_gigabytes: of one file, its voxels counted as float32 (10^9 bytes).
        max_memory: "auto" for what the machine has, a number of GB in its place, or "off" for no limit.

    Raises:
        ValueError: values that are none of these.
    """

    max_gigabytes: float = MAX_GIGABYTES
    max_memory: float | str = "auto"

    def __post_init__(self) -> None:
        number("max_gigabytes", self.max_gigabytes, above=0, kind="a number of GB")
        if self.max_memory != "auto" and not self.off:
            number("max_memory", self.max_memory, above=0, kind='"auto", "off", or a number of GB')

    @property
    def off(self) -> bool:
        return str(self.max_memory).lower() in OFF

    def memory(self, device: str = "cpu") -> float:
        """Bytes of memory that this process may take, at most: of a machine's, its share among the ranks there."""
        if self.off:
            return math.inf
        there = available_memory(device) if self.max_memory == "auto" else self.max_memory * GIGA
        return there / on_this_machine() if str(device) == "cpu" else there

    def check(self, shape: Sequence[int], parts: int = 1, copies: float = COPIES) -> None:
        """Raise Refusal for a shape of more voxels than may be read, or than fit into memory.

        Args:
            shape: as the file states it.
            parts: numbers in a voxel: 2 of complex ones.
            copies: float32 arrays of this size that reading takes at once.
        """
        size = float(math.prod(max(0, int(n)) for n in shape) * parts * FLOAT)
        states = f"the file states {' x '.join(str(int(n)) for n in shape)} voxels, {in_gigabytes(size)} as float32"
        if size > self.max_gigabytes * GIGA:
            raise Refusal(
                f"{states}, and at most {self.max_gigabytes:g} GB are read: if it is no mistake, --max_gigabytes "
                f"{math.ceil(size / GIGA)} reads it"
            )
        if (needed := copies * size) > GIGA / 10 and needed > (there := self.memory()):
            raise Refusal(
                f"{states}; to read it takes about {in_gigabytes(needed)} of memory, and {in_gigabytes(there)} are "
                "available: use a machine with more, or crop it (--max_memory off tries it all the same)"
            )


def check_stored(stated: int, stored: int, compressed: bool = False) -> None:
    """Raise Refusal where a file holds fewer bytes of voxels than its header states.

    Args:
        stated: bytes of voxels.
        stored: bytes in the file, from where they begin.
        compressed: by deflate, which has a limit of its own.
    """
    most = stored * DEFLATE if compressed else stored
    if most < stated:
        those = "compressed bytes, which cannot hold" if compressed else "of"
        raise Refusal(f"the file is truncated or damaged: {stored} {those} {stated} bytes of voxels are there")


def inflated(file: BinaryIO, most: int, kind: str = "deflate") -> int:
    """How many bytes the compressed ones from here on stand for; counted up to `most`, and a byte more.

    Args:
        kind: "deflate" (zlib or gzip), "raw" (deflate without a header) or "bzip2".
    """
    bits = -zlib.MAX_WBITS if kind == "raw" else zlib.MAX_WBITS | 32
    unpack = bz2.BZ2Decompressor() if kind == "bzip2" else zlib.decompressobj(bits)
    count, waiting = 0, b""
    try:
        while count <= most and not unpack.eof:
            if not waiting and getattr(unpack, "needs_input", True) and not (waiting := file.read(CHUNK)):
                break
            count += len(unpack.decompress(waiting, CHUNK))
            waiting = b"" if kind == "bzip2" else unpack.unconsumed_tail
    except (zlib.error, OSError, EOFError):
        pass
    return count


def check_text(path: Path) -> None:
    """Raise Refusal for a JSON or XML file that is too large to describe anything."""
    if (size := path.stat().st_size) > LARGEST_TEXT:
        raise Refusal(f"{path.name} has {in_gigabytes(size)}, and a description at most {in_gigabytes(LARGEST_TEXT)}")


def read_text(path: Path) -> str:
    """The text of a JSON file; raises as `check_text` does."""
    check_text(path)
    return path.read_text(encoding="utf-8-sig")
