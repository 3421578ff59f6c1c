"""Files that nibabel opens by their suffix, opened by what they hold: a .nii.gz may not be compressed."""

from __future__ import annotations

import gzip
from io import BytesIO
from pathlib import Path

from nibabel.fileholders import FileHolder

GZIP = b"\x1f\x8b"
"""How gzip begins; no header of a volume does."""


def file_holder(path: Path) -> FileHolder:
    """What nibabel takes for the path of a single file; where the suffix is wrong, the content is in memory."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    if compressed == path.name.lower().endswith((".gz", ".mgz")):
        return FileHolder(str(path))
    content = path.read_bytes()
    return FileHolder(fileobj=BytesIO(gzip.decompress(content) if compressed else content))
