"""Where the subject is, and how bright: told so that a few wrong voxels have no say.

    threshold      Otsu's, between air and subject, of values clipped to the 0.5th to 99.5th percentile
    box            the planes across each axis in which more than a part of the largest number of voxels is subject

A voxel of 1e9, metal or a row of hot pixels is no plane's largest share, and beyond the clipping; where there is much
air or little, the planes that hold the subject are the same ones. Otsu, "A threshold selection method from gray-level
histograms", IEEE Transactions on Systems, Man, and Cybernetics 9 (1979).
"""

from __future__ import annotations

import numpy as np
import torch
from skimage.filters import threshold_otsu

CLIPPED = (0.5, 99.5)
"""Percentiles between which values count towards the threshold."""
PLANE = 0.005
"""Part of the fullest plane's voxels of subject that a plane of a box has: fewer are noise, or wrong."""


def foreground_threshold(values: np.ndarray) -> float:
    """The value between air and subject; where hardly any voxel differs from the rest, all of them count."""
    values = values.ravel()  # to skimage, some shapes look like colours
    low, high = np.percentile(values, CLIPPED)
    return float(threshold_otsu(np.clip(values, low, high) if high > low else values))


def foreground_box(mask: torch.Tensor, share: float = 0.0, margin: int | float = 0) -> tuple[slice, ...]:
    """Slices along each axis that hold the subject, all of it where no voxel is marked.

    Args:
        mask: (X, Y, Z), True where the subject is.
        share: planes across an axis belong to the box if they have more than this part of the voxels that its fullest
            plane has.
        margin: kept around the box: voxels, or as a float a part of the box's length.
    """
    if not bool(mask.any()):
        return (slice(None),) * mask.ndim
    box = []
    for axis, length in enumerate(mask.shape):
        marked = mask.sum([other for other in range(mask.ndim) if other != axis]).float()
        planes = torch.nonzero(marked > share * marked.max())
        first, last = int(planes[0]), int(planes[-1]) + 1
        around = margin if isinstance(margin, int) else int(np.ceil(margin * (last - first)))
        box.append(slice(max(0, first - around), min(length, last + around)))
    return tuple(box)
