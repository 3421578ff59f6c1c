"""The two intensities of an image that its scale is taken from.

`lower` is the 0.5th percentile of the volume, `upper` the 99.5th percentile of the voxels above the mean: the share of
air in the field of view does not move it.
"""

from __future__ import annotations

import numpy as np
import torch

MAX_SAMPLES = 2_000_000
"""Percentiles are taken over at most this many evenly spaced voxels."""


def intensity_range(volume: torch.Tensor) -> tuple[float, float]:
    """The values (lower, upper) of `volume` that a scale maps to the ends of its range.

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
