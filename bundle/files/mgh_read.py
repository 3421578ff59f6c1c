"""FreeSurfer's volumes in: .mgh, and .mgz, the same compressed. Their affine is in the scanner's coordinates, in mm."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bundle.files.compressed import file_holder
from bundle.files.scan import Refusal, Scan, without_single_axes

RAS_FLAG = slice(28, 30)
"""Bytes of goodRASFlag, which says whether the header states spacing and orientation."""


def read_mgh(path: Path) -> Scan:
    """Raises Refusal where the header states no geometry, for which FreeSurfer would take coronal slices of 1 mm."""
    holder = file_holder(path)
    with holder.get_prepare_fileobj("rb") as file:
        start = file.read(RAS_FLAG.stop)
    image = nib.MGHImage.from_file_map({"image": holder})
    if not int.from_bytes(start[RAS_FLAG], "big", signed=True) > 0:
        raise Refusal("the header states no spacing and no orientation (goodRASFlag is 0); convert the scan again")
    return Scan(without_single_axes(np.asanyarray(image.dataobj)), image.affine)
