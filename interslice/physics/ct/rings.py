"""Rings: elements of a detector that read too much or too little in all views.

    r(a) = median over ranks of  ( sorted p(., a) - its running median over columns )         p less r

Sorted by value over the views, the readings of neighbouring columns are alike, whatever stands where, and a wrong gain,
an offset of the line integral, stays as a stripe (Vo, Atwood, Drakopoulos, "Superior techniques for eliminating ring
artifacts in X-ray micro-tomography", Optics Express 2018, algorithm 3). They put the smoothed values back rank by rank,
which needs many views; here the constant part of the stripe is taken off alone, and only as far as it stands out of its
own error, so that with few views detail stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import median_filter

from interslice.files.doubts import add_doubts
from interslice.files.switch import is_on

WINDOW = 11
"""Columns of the running median: wider than a few bad ones beside each other, narrower than what bends."""
FEWEST = 8
"""Views: fewer cannot tell a stripe from what is there."""
WORTH = 0.002
"""Offsets of the line integral above it are told of."""


def stripes(p: np.ndarray) -> np.ndarray:
    """(columns, rows), r of projections (views, columns, rows)."""
    ranked = np.sort(p, axis=0)
    apart = ranked - median_filter(ranked, (1, WINDOW, 1), mode="nearest")
    offset = np.median(apart, axis=0)
    error = 1.2533 * apart.std(0) / np.sqrt(len(p))  # of a median
    share = 1 - np.square(error / np.where(offset == 0, np.inf, offset))
    return (offset * np.where(offset == 0, 0.0, share.clip(0.0))).astype(np.float32)


class RemoveRingsd(MapTransform):
    """Takes from each element of a detector what it reads too much in all views.

    Args:
        keys: projections (1, views, columns, rows), line integrals.
        enabled: a switch.

    Raises:
        ValueError: too few views.
    """

    def __init__(self, keys, enabled: bool | str = True) -> None:
        super().__init__(keys)
        self.enabled = is_on(enabled, "remove_rings")

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled else ():
            p = d[key].as_tensor()[0].numpy()
            if len(p) < FEWEST:
                raise ValueError(
                    f"{d[key].meta.get('filename_or_obj', 'the projections')}: rings cannot be told from what is there "
                    f"in {len(p)} views, and {FEWEST} are needed: leave out remove_rings"
                )
            found = stripes(p)
            d[key] = MetaTensor(torch.from_numpy(p - found)[None], meta=d[key].meta)
            if (count := int((np.abs(found) > WORTH).sum())) > 0:
                largest = float(np.abs(found).max())
                add_doubts(d[key], f"{count} of {found.size} detector elements were off by up to {largest:.2g} in all "
                                   "views, as makes rings, and are evened")  # fmt: skip
        return d
