"""Volumes inside a web page: whole numbers of a step, packed tightly.

    q = round((x - offset) / step)                      int16; what the page shows is q step + offset
    d = differences of q along two axes, modulo 2^16    as many numbers, near 0 where the volume is smooth
    bytes = gzip(low bytes of 2|d|, or 2|d| - 1 where d < 0, then high bytes), in base64

`step` is 1, 2 or 5 times a power of ten, and small beside the span from the 0.1st to the 99.9th percentile: at most
1/2048 of it for small volumes, 1/512 for large ones, four times that for maps. Noise below it, which cannot be packed,
is left out. The two axes are those along which the volume changes least: repeated slices take almost no space.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Iterable

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

LIMIT = 32767
NIFTI_HEADER = 352
"""Bytes before the voxels: the header, and four that say that nothing comes between."""


def levels_for(voxels: int, is_map: bool = False) -> int:
    """Least number of steps in the span of a volume, or of a map, of so many voxels."""
    levels = 2048 if voxels <= 1_500_000 else 1024 if voxels <= 4_000_000 else 512
    return levels // 4 if is_map else levels


def step_of(volumes: Iterable[np.ndarray], levels: int) -> tuple[float, float]:
    """Step and offset, a multiple of it, that serve all of these volumes."""
    volumes = list(volumes)
    ranges = [np.quantile(v, (0.001, 0.999)) for v in volumes]
    lower, upper = float(min(r[0] for r in ranges)), float(max(r[1] for r in ranges))
    least, most = float(min(v.min() for v in volumes)), float(max(v.max() for v in volumes))
    if upper - lower < 1e-3 * (most - least):  # nearly all voxels are alike, as in a map of few draws
        lower, upper = least, most
    finest = (upper - lower or abs(upper) or 1.0) / levels
    power = 10.0 ** math.floor(math.log10(finest))
    step = max(float(m * power) for m in (1, 2, 5) if m * power <= finest * (1 + 1e-9))
    return step, float(step * round((lower + upper) / 2 / step))


def decimals_of(step: float) -> int:
    """Digits after the point that tell multiples of `step` apart."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


def quantised(volume: np.ndarray, step: float, offset: float) -> np.ndarray:
    """q of the module's head, int16; values too far away stop at the ends of int16."""
    return np.clip(np.rint((volume - offset) / step), -LIMIT, LIMIT).astype(np.int16)


def nifti_header(shape: tuple[int, int, int], affine: np.ndarray, step: float, offset: float) -> str:
    """Base64 of the head of a NIfTI file in int16 with this affine in mm: what the voxels are put behind."""
    header = nib.Nifti1Header()
    header.set_data_dtype("<i2")
    header.set_data_shape(shape)
    header.set_zooms(nib.affines.voxel_sizes(affine))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm")
    # Header.set_slope_inter is lost where nibabel writes a file: it scales anew.
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = step, offset, NIFTI_HEADER, b"n+1"
    return base64.b64encode(header.binaryblock.ljust(NIFTI_HEADER, b"\0")).decode("ascii")


def packed(volume: np.ndarray, step: float, offset: float) -> tuple[str, tuple[int, int]]:
    """The volume (X, Y, Z) as the head of this file describes, and the two axes of its differences."""
    q = quantised(volume, step, offset)
    pairs = {axes: np.diff(np.diff(q, axis=axes[0], prepend=0), axis=axes[1], prepend=0) for axes in PAIRS}
    axes = min(pairs, key=lambda pair: np.abs(pairs[pair], dtype=np.float32).mean())
    d = pairs[axes].ravel(order="F")
    folded = ((d << 1) ^ (d >> 15)).astype("<u2")
    content = (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii"), axes


PAIRS = ((0, 1), (0, 2), (1, 2))


def canonical(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The volume with its axes in the order and direction closest to RAS+, and their voxel sizes in mm."""
    orientation = io_orientation(affine)
    sizes = nib.affines.voxel_sizes(affine)
    spacing = [0.0, 0.0, 0.0]
    for axis, (to, _) in enumerate(orientation):
        spacing[int(to)] = float(sizes[axis])
    return apply_orientation(volume, orientation), tuple(spacing)
