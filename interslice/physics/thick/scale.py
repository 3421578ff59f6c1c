"""The scanner's intensities to the range that the prior knows, and back.

    scaled = b_min + (b_max - b_min) (v - lower) / (upper - lower)          lower, upper: interslice.physics.intensity

Nothing is clipped, so the inverse is exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from interslice.files.source import series_of
from interslice.physics.intensity import intensity_range


class ScalePercentilesd(MapTransform, InvertibleTransform):
    """Scales volumes so that `intensity_range` becomes (b_min, b_max), without clipping; invertible.

    Args:
        keys: volumes of any shape. The range of the first key serves all keys, so that a measurement and
            its ground truth share one scale; that of a series serves all its volumes (interslice.files.series).
        b_min, b_max: target of the range.
    """

    def __init__(self, keys, b_min: float = -1.0, b_max: float = 1.0, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.b_min, self.b_max = b_min, b_max

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        first = d[self.first_key(d)]
        point = series_of(first) if isinstance(first, MetaTensor) else None
        lower, upper = (point and point.series.intensities) or intensity_range(first)
        for key in self.key_iterator(d):
            slope = (self.b_max - self.b_min) / (upper - lower)
            d[key] = (d[key] - lower).mul_(slope).add_(self.b_min)
            if isinstance(d[key], MetaTensor):
                d[key].meta["intensities"] = (lower, upper)
                self.push_transform(d[key], extra_info={"lower": lower, "upper": upper})
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            info = self.pop_transform(d[key])["extra_info"]
            slope = (info["upper"] - info["lower"]) / (self.b_max - self.b_min)
            d[key] = (d[key] - self.b_min).mul_(slope).add_(info["lower"])
        return d
