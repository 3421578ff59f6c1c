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
from bundle.files.scan import Refusal, Scan, check_grey, without_single_axes

SINGLE_FILES = (nib.Nifti1Image, nib.Nifti2Image)


def read_nifti(path: Path) -> Scan:
    """Raises Refusal for what is no NIfTI, colours, complex numbers, and a spacing of 0 that is needed."""
    image = _opened(path)
    doubts = _doubts_of_spacing(image)
    check_grey(image.get_data_dtype())
    placement = Placement.of(image)
    voxels = without_single_axes(np.asanyarray(image.dataobj))
    return Scan(voxels, placement.affine, (*doubts, *placement.doubts(image.shape)), nifti=placement)


def _opened(path: Path) -> Nifti1Pair:
    if path.name.lower().endswith((".nii", ".nii.gz")):
        holder = file_holder(path)
        with holder.get_prepare_fileobj("rb") as file:
            start = file.read(1024)
        kind = next((k for k in SINGLE_FILES if k.header_class.may_contain_header(start)), None)
        if kind is not None:
            return kind.from_file_map({"image": holder})
        if not nib.AnalyzeImage.header_class.may_contain_header(start):
            raise Refusal("this is no NIfTI file, though it is named as one; is it damaged, or of another format?")
    else:
        image = nib.load(path)
        if isinstance(image, Nifti1Pair):
            return image
    raise Refusal(
        "this is no NIfTI file, but Analyze 7.5, which does not state which side is left; convert it to NIfTI with the "
        "orientation that you know"
    )


def _doubts_of_spacing(image: Nifti1Pair) -> list[str]:
    """What is said of a pixdim below 0, which nibabel and FSL take for its absolute value, or of 0.

    Raises Refusal for 0, which nibabel takes for 1, where no sform places the voxels, and for NaN and infinity.
    """
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        header = type(image.header).from_fileobj(file, check=False)
    stated, by_sform = header["pixdim"][1:4], header["sform_code"] > 0
    if not np.isfinite(stated).all() or (not by_sform and (stated == 0).any()):
        raise Refusal(f"spacing {stated.tolist()} mm is not positive in each direction; repair the header")
    if (stated > 0).all():
        return []
    used = "the sform is used, which has its own" if by_sform else "its absolute value is used, as by nibabel and FSL"
    return [f"spacing by pixdim is {stated.tolist()} mm, not positive in each direction; {used}"]
