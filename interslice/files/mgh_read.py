"""FreeSurfer's volumes in: .mgh, and .mgz, the same compressed. Their affine is in the scanner's coordinates, in mm."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np

from interslice.files.compressed import file_holder, is_gzip
from interslice.files.limits import Limits, check_stored
from interslice.files.scan import Refusal, Scan, without_single_axes

RAS_FLAG = slice(28, 30)
"""Bytes of goodRASFlag, which says whether the header states spacing and orientation."""
SHAPE_AND_TYPE, DATA = 4, 284
"""Where the four sizes and the type of a voxel begin, and where the voxels do."""
BYTES = {0: 1, 1: 4, 3: 4, 4: 2}
"""Of a voxel, by its type."""


def read_mgh(path: Path, limits: Limits | None = None) -> Scan:
    """Raises Refusal where the header states no geometry, for which FreeSurfer would take coronal slices of 1 mm.

    And beyond the limits.
    """
    holder = file_holder(path)
    with holder.get_prepare_fileobj("rb") as file:
        start = file.read(RAS_FLAG.stop)
    if len(start) == RAS_FLAG.stop:  # else nibabel says what is wrong
        *shape, kind = np.frombuffer(start, ">i4", 5, offset=SHAPE_AND_TYPE).tolist()
        compressed, size = is_gzip(path), path.stat().st_size
        check_stored(math.prod(shape) * BYTES.get(kind, 1), size - DATA * (not compressed), compressed)
        (limits or Limits()).check(shape)
    image = nib.MGHImage.from_file_map({"image": holder})
    if not int.from_bytes(start[RAS_FLAG], "big", signed=True) > 0:
        raise Refusal("the header states no spacing and no orientation (goodRASFlag is 0); convert the scan again")
    return Scan(without_single_axes(np.asanyarray(image.dataobj)), image.affine)
