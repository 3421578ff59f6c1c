"""Archives of arrays (.npz): what an array's header states, before numpy unpacks it.

Source: "NumPy array file format", numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

from numpy.lib import format as npy

from interslice.files.limits import Limits, check_stored
from interslice.files.scan import Refusal

LONGEST_HEADER = 10_000
"""Bytes, as in numpy, which unpacks a longer one before it refuses it."""


def check_npz(path: Path, name: str, limits: Limits) -> None:
    """Raise Refusal for an array of a .npz that is too large, or larger than what is stored of it.

    An archive without it is not looked at.
    """
    with zipfile.ZipFile(path) as archive:
        entry = next((e for e in archive.infolist() if e.filename in (name, f"{name}.npy")), None)
        if entry is None:
            return
        with archive.open(entry) as file:
            start = file.read(npy.MAGIC_LEN + 4)
            if not start.startswith(npy.MAGIC_PREFIX):
                raise Refusal(f"{entry.filename} of the archive is no array; save it with numpy.savez_compressed")
            version = start[npy.MAGIC_LEN - 2]
            length = int.from_bytes(start[npy.MAGIC_LEN :][: 2 if version == 1 else 4], "little")
            if length > LONGEST_HEADER:
                raise Refusal(f"the header of {entry.filename} has {length} bytes; the file is damaged")
        with archive.open(entry) as file:
            read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
            shape, _, kind = read(file)
    check_stored(math.prod(shape) * kind.itemsize, entry.file_size - npy.MAGIC_LEN)
    limits.check(shape)
