"""DICOM in: the stack of slices of a folder as a volume.

A stack is the images of one series with the same orientation, size, pixel spacing, image type, echo and thickness.
What is no scan, and files that are no image, are left out and named (interslice.files.dicom_search). A stack with
missing slices, several images at one place, or slices that do not lie on a line is refused
(interslice.files.dicom_check). The affine of a tilted gantry is sheared, which `interslice.files.check` refuses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.data import ImageReader

from interslice.files.dicom_search import choose, search
from interslice.files.dicom_stack import Stack
from interslice.files.find import is_dicom_file, is_dicom_series
from interslice.files.limits import Limits
from interslice.files.source import Source


def find_stack(source: str | Path, series: int | str | None = None) -> Stack:
    """The one stack of a folder, or of one multi-frame file, that can be reconstructed; see `choose`.

    The headers of all files are parsed, so what is found is kept: a volume that is read from it carries it ("source").
    """
    return choose(search(source), series)


class StackReader(ImageReader):
    """MONAI's reader protocol for a stack that was found; the voxels are (columns, rows, slices) float32, rescaled.

    Metadata: affine (RAS), spatial_shape, and slice_thickness in mm, 0 where the header has none; the stack goes with
    them, in "source".
    """

    def __init__(self, stack: Stack, limits: Limits | None = None) -> None:
        super().__init__()
        self.stack, self.limits = stack, limits
        self.source = Source(dicom=stack)

    def verify_suffix(self, filename) -> bool:
        return True

    def read(self, data, **_) -> Stack:
        return self.stack

    def get_data(self, img: Stack) -> tuple[np.ndarray, dict]:
        meta = {
            "affine": img.affine,
            "original_affine": img.affine.copy(),
            "spatial_shape": np.array(img.shape),
            "original_channel_dim": float("nan"),  # MONAI's word for none
            "space": "RAS",
            "slice_thickness": max(s.thickness for s in img.slices),
        }
        return img.voxels(self.limits), meta


def is_dicom_source(source) -> bool:
    """True for a DICOM file, and for a folder with one directly inside, which its reader then reads or refuses."""
    source = source[0] if isinstance(source, (list, tuple)) else source
    if not str(source):
        return False  # and not the current folder
    source = Path(source)
    return is_dicom_series(source) if source.is_dir() else is_dicom_file(source)
