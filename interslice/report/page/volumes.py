"""Volumes inside a web page: whole numbers of a step, packed tightly.

    q = round((x - offset) / step)                      int16; what the page shows is q step + offset
    d = differences of q along two axes, modulo 2^16    as many numbers, near 0 where the volume is smooth
    bytes = gzip(low bytes of 2|d|, or 2|d| - 1 where d < 0, then high bytes), in base64

`step` is 1, 2 or 5 times a power of ten, and small beside the span from the 0.1st to the 99.9th percentile: at most
1/2048 of it for small volumes, 1/512 for large ones, four times that for maps. Noise below it, which cannot be packed,
is left out. The two axes are those along which the volume changes least: repeated slices take almost no space. All of
it is done slab by slab along the last axis: the page of a large scan takes little more memory than its volumes.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from interslice.files.compressed import gzip_of

LIMIT = 32767
NIFTI_HEADER = 352
"""Bytes before the voxels: the header, and four that say that nothing comes between."""
PAIRS = ((0, 1), (0, 2), (1, 2))
SLAB = 1_000_000
"""Voxels that are worked on at once, about."""
ZERO = np.int16(0)
"""In front of the first slice; of this type, so that differences are modulo 2^16."""


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
    q = (volume - offset) / step
    return np.clip(np.rint(q, out=q), -LIMIT, LIMIT, out=q).astype(np.int16)


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


def axes_of(volume: np.ndarray, step: float, offset: float) -> tuple[int, int]:
    """The two axes along which the differences of q (X, Y, Z) are smallest."""
    sums = [0.0] * len(PAIRS)
    for several in differences(volume, step, offset, *PAIRS):
        sums = [s + float(np.abs(d, dtype=np.float32).sum(dtype=np.float64)) for s, d in zip(sums, several)]
    return PAIRS[sums.index(min(sums))]


def packed(volume: np.ndarray, step: float, offset: float, axes: tuple[int, int]) -> Iterator[str]:
    """The volume (X, Y, Z) as the head of this file describes, as base64 in pieces to be written in turn."""
    return base64_of(gzip_of(folded_bytes(volume, step, offset, axes)))


def differences(
    volume: np.ndarray, step: float, offset: float, *pairs: tuple[int, int]
) -> Iterator[tuple[np.ndarray, ...]]:
    """d of every slab (X, Y, slices) in turn, for each of the pairs of axes."""
    thickness = max(1, SLAB // max(1, volume[:, :, 0].size))
    for first in range(0, volume.shape[2], thickness):
        before = min(first, 1)  # one slice more, from which the first of the slab differs
        q = quantised(volume[:, :, first - before : first + thickness], step, offset)
        yield tuple(
            np.diff(np.diff(q, axis=one, prepend=ZERO), axis=other, prepend=ZERO)[:, :, before:] for one, other in pairs
        )


def folded_bytes(volume: np.ndarray, step: float, offset: float, axes: tuple[int, int]) -> Iterator[bytes]:
    """All low bytes, the first axis fastest, then all high bytes."""
    for shift in (0, 8):
        for (d,) in differences(volume, step, offset, axes):
            folded = ((d << 1) ^ (d >> 15)).view(np.uint16) >> shift
            yield (folded & 255).astype(np.uint8).tobytes(order="F")


def base64_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """The base64 of all pieces together, in pieces."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) // 3 * 3
        yield base64.b64encode(rest[:whole]).decode("ascii")
        rest = rest[whole:]
    yield base64.b64encode(rest).decode("ascii")


def canonical(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The volume with its axes in the order and direction closest to RAS+, and their voxel sizes in mm."""
    orientation = io_orientation(affine)
    sizes = nib.affines.voxel_sizes(affine)
    spacing = [0.0, 0.0, 0.0]
    for axis, (to, _) in enumerate(orientation):
        spacing[int(to)] = float(sizes[axis])
    return apply_orientation(volume, orientation), tuple(spacing)
