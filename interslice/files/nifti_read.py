"""NIfTI in: the voxels of .nii, .nii.gz or a pair of .hdr and .img, and the affine that the standard gives them.

NIfTI-1 and NIfTI-2, in either byte order. Analyze 7.5, the format that NIfTI came from, has the same suffixes and
states no orientation: programs that read it disagree on left and right, so it is refused.
"""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Pair

from interslice.files.compressed import file_holder, is_gzip
from interslice.files.limits import LARGEST_PREAMBLE, Limits, check_stored, inflated
from interslice.files.placement import Placement
from interslice.files.scan import Refusal, Scan, check_grey, without_single_axes

SINGLE_FILES, PAIRS = (nib.Nifti1Image, nib.Nifti2Image), (nib.Nifti1Pair, nib.Nifti2Pair)
START = 1024
"""Bytes that tell a header, and hold it."""
COLOURS = {2003: "RGB vector", 2004: "RGBA vector"}
"""Codes of intent whose fourth or fifth dimension is that of colours (NIfTI-1, "intent_code")."""
VECTORS = {
    1004: "matrix", 1005: "symmetric matrix", 1006: "displacement vector", 1007: "vector", 1008: "point set",
    1009: "triangle", 1010: "quaternion",
}  # fmt: skip
"""And those whose is that of components."""


def read_nifti(path: Path, limits: Limits | None = None) -> Scan:
    """Raises Refusal for what is no NIfTI, colours, complex numbers, a spacing of 0 that is needed, too much of it."""
    image = open_nifti(path, limits or Limits())
    volumes_in(image)
    return scan_of(image, without_single_axes(np.asanyarray(image.dataobj)))


def scan_of(image: Nifti1Pair, voxels: np.ndarray) -> Scan:
    """What is read of a file, or of one of its volumes; raises as `read_nifti` does."""
    doubts = _doubts_of_spacing(image)
    placement = Placement.of(image)
    return Scan(voxels, placement.affine, (*doubts, *placement.doubts(image.shape)), nifti=placement)


def volumes_in(image: Nifti1Pair) -> int:
    """How many volumes a file holds. Raises Refusal where they are colours or vectors, or of more dimensions than 4."""
    check_grey(image.get_data_dtype())
    more = [n for n in image.shape[3:] if n != 1]
    if not more:
        return 1
    intent = int(image.header["intent_code"])
    if intent in COLOURS:
        raise Refusal(
            f"its {math.prod(more)} volumes are the channels of a picture in colours (intent {COLOURS[intent]}), and "
            "no time points; save the volume in grey values"
        )
    if intent in VECTORS or (len(image.shape) > 4 and image.shape[3] == 1):
        named = f"intent {VECTORS[intent]}" if intent in VECTORS else "dim[5]"
        raise Refusal(
            f"each voxel is a vector of {math.prod(more)} numbers ({named}), and its volumes are no time points; save "
            "each component as its own volume"
        )
    if len(more) > 1:
        raise Refusal(f"it has {len(image.shape)} dimensions {image.shape}, and at most 4 are read; split it first")
    return more[0]


def open_nifti(path: Path, limits: Limits, each: bool = False, keep_open: bool = False) -> Nifti1Pair:
    """The image of a file, whose header is held against the limits, and whose voxels are not read yet.

    Args:
        each: the limits are those of each volume of a 4-D file.
        keep_open: volumes are read one by one, and in order.
    """
    keeping = {"keep_file_open": True} if keep_open else {}
    if path.name.lower().endswith((".nii", ".nii.gz")):
        holder = file_holder(path)
        with holder.get_prepare_fileobj("rb") as file:
            start = file.read(START)
        kind = next((k for k in SINGLE_FILES if k.header_class.may_contain_header(start)), None)
        if kind is not None:
            _check_size(kind, start, path, limits, each)
            return kind.from_file_map({"image": holder}, **keeping)
        if not nib.AnalyzeImage.header_class.may_contain_header(start):
            raise Refusal("this is no NIfTI file, though it is named as one; is it damaged, or of another format?")
    else:
        files = Nifti1Pair.filespec_to_file_map(path)
        with files["header"].get_prepare_fileobj("rb") as file:
            start = file.read(START)
        kind = next((k for k in PAIRS if k.header_class.may_contain_header(start)), None)
        if kind is not None:
            _check_preamble(Path(files["header"].filename))
            _check_size(kind, start, Path(files["image"].filename), limits, each)
            return kind.from_file_map(files, **keeping)
        nib.load(path)  # says what is wrong with it, if it is no Analyze either
    raise Refusal(
        "this is no NIfTI file, but Analyze 7.5, which does not state which side is left; convert it to NIfTI with the "
        "orientation that you know"
    )


def _check_size(kind: type[Nifti1Pair], start: bytes, path: Path, limits: Limits, each: bool = False) -> None:
    """Raise Refusal for a header whose voxels are too many, or more than the file of the voxels holds."""
    header = kind.header_class(start[: kind.header_class.template_dtype.itemsize], check=False)
    shape, offset = header.get_data_shape(), max(0, int(header.get_data_offset()))
    if offset > LARGEST_PREAMBLE:
        raise Refusal(f"the voxels begin after {offset} bytes (vox_offset); the header is damaged")
    compressed, size = is_gzip(path), path.stat().st_size
    check_stored(math.prod(shape) * header.get_data_dtype().itemsize, size - offset * (not compressed), compressed)
    limits.check(shape[:3] if each else shape)


def _check_preamble(header: Path) -> None:
    """Raise Refusal for the header of a pair that is longer than any: nibabel reads it all."""
    with header.open("rb") as file:
        size = inflated(file, int(LARGEST_PREAMBLE)) if is_gzip(header) else header.stat().st_size
    if size > LARGEST_PREAMBLE:
        raise Refusal(f"the header has more than {LARGEST_PREAMBLE:g} bytes; it is damaged")


def _doubts_of_spacing(image: Nifti1Pair) -> list[str]:
    """What is said of a pixdim below 0, which nibabel and FSL take for its absolute value, or of 0.

    Raises Refusal for 0, which nibabel takes for 1, where no sform places the voxels, and for NaN and infinity.
    """
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        start = file.read(image.header.template_dtype.itemsize)
    header = type(image.header)(start, check=False)
    stated, by_sform = header["pixdim"][1:4], header["sform_code"] > 0
    if not np.isfinite(stated).all() or (not by_sform and (stated == 0).any()):
        raise Refusal(f"spacing {stated.tolist()} mm is not positive in each direction; repair the header")
    if (stated > 0).all():
        return []
    used = "the sform is used, which has its own" if by_sform else "its absolute value is used, as by nibabel and FSL"
    return [f"spacing by pixdim is {stated.tolist()} mm, not positive in each direction; {used}"]
