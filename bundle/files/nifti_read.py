"""NIfTI in: voxels, and the affine that the standard gives them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import NibabelReader

from bundle.files.placement import Placement
from bundle.files.source import Source

SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: str | Path) -> bool:
    """Whether this is the path of one NIfTI file."""
    return isinstance(path, (str, Path)) and str(path).lower().endswith(SUFFIXES)


class NiftiReader(NibabelReader):
    """MONAI's reader, which would replace an sform that differs from pixdim by a rounding error.

    Attributes:
        source: of the volume that was read last.
    """

    def read(self, data: Sequence[str], **kwargs) -> nib.Nifti1Image:
        """The image of one path, with a warning for each doubt about its place."""
        (path,) = self.filenames = data
        image = nib.load(path, **self.kwargs | kwargs)
        self.source = Source(nifti=Placement.of(image))
        for doubt in self.source.nifti.doubts(image.shape):
            warnings.warn(f"{path}: {doubt}", stacklevel=2)
        return image

    def _get_affine(self, img: nib.Nifti1Image) -> np.ndarray:
        return self.source.nifti.affine.copy()
