"""Volumes at coarser voxels, so that a prior knows structures at the sizes that they have in other scans."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms.utils import scale_affine
from skimage.transform import resize

from interslice.files.values import rising_pair

SIZES = (1.0, 2.2)
"""mm. What head and body scans have."""
STEP = 1.15
"""A copy is coarser than its volume at least by this factor."""
FINE = 0.7
"""mm. Volumes of still finer voxels, as of 7 T, get a copy of these: between theirs and SIZES."""


def voxel_sizes(finest: float, name: str, seed: int, sizes: Sequence[float] = SIZES) -> list[float]:
    """The voxel sizes in mm of the coarser copies of a volume; none where it is too coarse itself.

    Args:
        finest: the volume's own voxels, mm.
        name: of the volume: with `seed`, the key of what is drawn, whatever other volumes there are.
        sizes: the least and the largest; one is drawn, evenly by its logarithm.
    """
    low, high = rising_pair("coarser_sizes", sizes)
    found = [FINE] if STEP * finest < FINE < low else []
    low = max(low, STEP * finest)
    if low < high:
        draw = np.random.default_rng((seed, zlib.crc32(name.encode())))
        found.append(float(np.exp(draw.uniform(np.log(low), np.log(high)))))
    return found


def at_voxel_size(volume: MetaTensor, size: float) -> MetaTensor:
    """`volume` (1, X, Y, Z) at voxels of about `size` mm; axes whose voxels are as large or larger stay as they are.

    Smoothed against aliasing (standard deviation half of the factor less 1, as in scikit-image), then linear.
    """
    spacing = [float(s) for s in volume.pixdim]
    factors = [max(1.0, size / s) for s in spacing]
    shape = [max(2, round(n / f)) for n, f in zip(volume.shape[1:], factors)]
    if tuple(shape) == tuple(volume.shape[1:]):
        return volume
    # MONAI's Resize smooths with air beyond the border, and would darken what the image cuts off there.
    voxels = resize(volume[0].numpy(), shape, order=1, mode="edge", anti_aliasing=True)
    affine = volume.affine @ torch.as_tensor(scale_affine(volume.shape[1:], shape), dtype=volume.affine.dtype)
    return MetaTensor(torch.from_numpy(voxels.astype(np.float32))[None], affine=affine)
