"""Files that nibabel opens by their suffix, opened by what they hold: a .nii.gz may not be compressed."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

from nibabel.fileholders import FileHolder

GZIP = b"\x1f\x8b"
"""How gzip begins; no header of a volume does."""


def file_holder(path: Path) -> FileHolder:
    """What nibabel takes for the path of a single file; a wrong suffix does no harm."""
    compressed = is_gzip(path)
    if compressed == path.name.lower().endswith((".gz", ".mgz")):
        return FileHolder(str(path))
    return FileHolder(fileobj=gzip.open(path) if compressed else BytesIO(path.read_bytes()))


def is_gzip(path: Path) -> bool:
    """Whether a file holds what gzip made."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP
