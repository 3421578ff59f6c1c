"""NIfTI in: the voxels of .nii, .nii.gz or a pair of .hdr and .img, and the affine that the standard gives them.

NIfTI-1 and NIfTI-2, in either byte order. Analyze 7.5, the format that NIfTI came from, has the same suffixes and
states no orientation: programs that read it disagree on left and right, so it is refused.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Pair

from bundle.files.compressed import file_holder
from bundle.files.placement import Placement
from bundle.files.scan import Scan, check_grey, without_single_axes

SINGLE_FILES = (nib.Nifti1Image, nib.Nifti2Image)


def read_nifti(path: Path) -> Scan:
    """Raises ValueError for what is no NIfTI, colours, complex numbers, and spacing that is not positive."""
    image = _opened(path)
    _check_spacing(image)
    check_grey(image.get_data_dtype())
    placement = Placement.of(image)
    voxels = without_single_axes(np.asanyarray(image.dataobj))
    return Scan(voxels, placement.affine, tuple(placement.doubts(image.shape)), nifti=placement)


def _opened(path: Path) -> Nifti1Pair:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        holder = file_holder(path)
        with holder.get_prepare_fileobj("rb") as file:
            start = file.read(1024)
        kind = next((k for k in SINGLE_FILES if k.header_class.may_contain_header(start)), None)
        if kind is not None:
            return kind.from_file_map({"image": holder})
    else:
        image = nib.load(path)
        if isinstance(image, Nifti1Pair):
            return image
    raise ValueError(
        "this is no NIfTI file (Analyze 7.5 is none: it does not state which side is left); convert it to NIfTI with "
        "the orientation that you know"
    )


def _check_spacing(image: Nifti1Pair) -> None:
    """Refuses a pixdim of 0 or below, which nibabel reads as 1 and as the absolute value."""
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        stated = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
    if not (stated > 0).all():
        raise ValueError(f"spacing {stated.tolist()} mm is not positive in each direction; repair the header")
