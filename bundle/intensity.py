"""Intensity scale: the scanner's numbers to the range that the prior knows, and back.

    scaled = b_min + (b_max - b_min) (v - lower) / (upper - lower)

`lower` is the 0.5th percentile of the volume, `upper` the 99.5th percentile of the voxels above the mean:
the share of air in the field of view does not move it. Nothing is clipped, so the inverse is exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

MAX_SAMPLES = 2_000_000
"""Percentiles are taken over at most this many evenly spaced voxels."""


def intensity_range(volume: torch.Tensor) -> tuple[float, float]:
    """The values (lower, upper) of `volume` that become b_min and b_max.

    Raises:
        ValueError: the volume is constant, so that no scale exists.
    """
    values = volume.flatten().float()
    values = values[:: max(1, values.numel() // MAX_SAMPLES)]
    lower = np.percentile(values.cpu().numpy(), 0.5)
    bright = values[values > values.mean()]
    upper = np.percentile(bright.cpu().numpy(), 99.5) if len(bright) else lower
    if not upper > lower:
        raise ValueError(f"the volume is constant (all voxels near {lower:g}): there is nothing to reconstruct")
    return float(lower), float(upper)


class ScalePercentilesd(MapTransform, InvertibleTransform):
    """Scales volumes so that `intensity_range` becomes (b_min, b_max), without clipping; invertible.

    Args:
        keys: volumes of any shape. The range of the first key serves all keys, so that a measurement and
            its ground truth share one scale.
        b_min, b_max: target of the range.
    """

    def __init__(self, keys, b_min: float = -1.0, b_max: float = 1.0, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.b_min, self.b_max = b_min, b_max

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        lower, upper = intensity_range(d[self.first_key(d)])
        for key in self.key_iterator(d):
            slope = (self.b_max - self.b_min) / (upper - lower)
            d[key] = (d[key] - lower) * slope + self.b_min
            if isinstance(d[key], MetaTensor):
                self.push_transform(d[key], extra_info={"lower": lower, "upper": upper})
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            info = self.pop_transform(d[key])["extra_info"]
            slope = (info["upper"] - info["lower"]) / (self.b_max - self.b_min)
            d[key] = (d[key] - self.b_min) * slope + info["lower"]
        return d
