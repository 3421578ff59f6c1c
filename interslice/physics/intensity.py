"""The two intensities of an image that its scale is taken from.

    lower     the 0.5th percentile of the subject and the air around it
    upper     the 99.5th percentile of the subject, without what is no tissue:
              values above lower + 1.5 (q98 - lower), q98 the subject's 98th percentile

The subject and the box around it are those of `interslice.physics.foreground`; borders that hold one value are cut off
before. So neither the field of view nor a thousandth of the voxels, whatever they hold, sets the scale.
"""

from __future__ import annotations

import numpy as np
import torch

from interslice.physics.foreground import foreground_box, foreground_threshold

MAX_SAMPLES = 2_000_000
"""At most this many evenly spaced voxels are looked at."""
LOWER, UPPER = 0.5, 99.5
"""Percentiles."""
TISSUE, TIMES = 98.0, 1.5
"""This many times as far above `lower` as this percentile of the subject there is no tissue."""
PLANE, MARGIN = 0.02, 0.1
"""Of the box around the subject: `share` and `margin` of `foreground_box`."""


def intensity_range(volume: torch.Tensor) -> tuple[float, float]:
    """The values (lower, upper) of `volume` (..., X, Y, Z) that a scale maps to the ends of its range.

    Raises:
        ValueError: the volume is constant, so that no scale exists.
    """
    values = _thinned(volume).float().cpu().numpy()
    for part in (_subject(values), values):
        lower, upper = _range(part)
        if upper > lower:
            return lower, upper
    lower, upper = float(values.min()), float(values.max())  # almost all voxels are alike
    if upper > lower:
        return lower, upper
    raise ValueError(f"the volume is constant (all voxels near {lower:g}): there is nothing to reconstruct")


def _range(values: np.ndarray) -> tuple[float, float]:
    lower = float(np.percentile(values, LOWER))
    subject = values[values > foreground_threshold(values)]
    if not len(subject):
        return lower, lower
    limit = lower + TIMES * (np.percentile(subject, TISSUE) - lower)
    tissue = subject[subject <= limit]
    return lower, float(np.percentile(tissue if len(tissue) else subject, UPPER))


def _subject(values: np.ndarray) -> np.ndarray:
    """The part of (..., X, Y, Z) around the subject; all where there are fewer axes, which no subject has."""
    if values.ndim < 3:
        return values
    values = values.reshape(-1, *values.shape[-3:])
    filled = (values != values.flat[0]).any(0)
    values = values[:, *foreground_box(torch.from_numpy(filled))]
    subject = (values > foreground_threshold(values)).any(0)
    return values[:, *foreground_box(torch.from_numpy(subject), PLANE, MARGIN)]


def _thinned(volume: torch.Tensor) -> torch.Tensor:
    """Every n-th voxel along the longest axes, at most MAX_SAMPLES."""
    volume = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
    while volume.numel() > MAX_SAMPLES:
        longest = max(range(volume.ndim), key=lambda axis: volume.shape[axis])
        volume = volume[(slice(None),) * longest + (slice(None, None, 2),)]
    return volume
