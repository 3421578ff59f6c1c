"""The noise field that fits a measurement, chosen from it alone.

Where the network's slices are stacked along an axis along which the scan averaged, noise that all of them share leaves
nothing behind, as the scan takes it out, and slerp did best there; along other axes it leaves a pattern in all slices,
and a field with a length does not (docs/explanation/evidence.md). The rest is about that length.

What the prior draws is detail that the measurement lacks, and detail of the anatomy reaches across some millimetres.
The noise is to be alike over several times that length, or it tears detail apart; how many was found on tuning volumes,
where gains level off (scripts.studies.tune_length). The length is that over which measured detail stays alike:

    h = x - (its mean over 5 x 5 voxels of the slice),      x the linear reconstruction of y
    c(d) = mean h_i h_{i+d} / mean h_i^2,                   slices i and i + d, across the slice axes
    c(d) ~ s exp(-d / l)                                    s < 1 takes up noise, which slices do not share

-1 / l is the slope of a straight line through log c(d), over lags where c is above a tenth of c(1). No truth is used.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from interslice.noise.field import NoiseByAxis, NoiseField, SlerpNoise
from interslice.noise.markov import MarkovNoise, MaternNoise
from interslice.usage import UsageError

MAX_LAG = 12
"""Slices."""
WINDOW = 5
"""Voxels over which the mean of a slice is taken."""


class AutoLength:
    """Gives each measurement a field of its own: none itself, but what `fit` returns is one.

    It has a length (mm) that is fitted, and is slerp noise across the axis along which the scan averages.

    Args:
        field: the field whose length is set; Matern-3/2 by default.
        factor: length of the noise over the length of the detail.
    """

    def __init__(self, field: MarkovNoise | None = None, factor: float = 10.0) -> None:
        if not 0 < factor < math.inf:
            raise UsageError(f"factor must be positive, got {factor}")
        self.field = MaternNoise() if field is None else field
        self.factor = factor

    correlated = True

    def __repr__(self) -> str:
        return f"AutoLength(field={self.field!r}, factor={self.factor!r})"

    def fit(self, y: torch.Tensor, operator, spacing: Sequence[float]) -> NoiseField:
        """The field for a measurement y; `spacing` is the volume's, in mm."""
        x = operator.linear_reconstruction(y)
        lengths = sorted(detail_length(x, a, spacing[a]) for a in operator.slice_axes)
        fitted = copy.copy(self.field)
        fitted.length = self.factor * lengths[len(lengths) // 2]
        axis = operator.averaged_axis
        return fitted if axis is None else NoiseByAxis(fitted, {axis: SlerpNoise()})


def detail_length(x: torch.Tensor, axis: int, spacing: float) -> float:
    """Length in mm over which the detail of slices across `axis` stays alike; between one slice and all of them."""
    slices = x.movedim(axis, 0)[:, None].float()
    count, edge = len(slices), WINDOW // 2
    if min(slices.shape[2:]) < WINDOW:
        return spacing
    inner = slices[:, 0, edge:-edge, edge:-edge]
    detail = inner - F.avg_pool2d(slices, WINDOW, stride=1)[:, 0]
    power = detail.square().mean()
    alike = [float((detail[:-d] * detail[d:]).mean() / power) for d in range(1, min(MAX_LAG, count - 1) + 1)]
    usable = 0
    while usable < len(alike) and alike[usable] > 0.1 * max(alike[0], 0.0) and alike[usable] > 0:
        usable += 1
    if usable < 2:
        return spacing
    lags = torch.arange(usable, dtype=torch.float64)
    logs = torch.tensor(alike[:usable], dtype=torch.float64).log()
    slope = float(((lags - lags.mean()) * (logs - logs.mean())).sum() / (lags - lags.mean()).square().sum())
    length = count * spacing if slope >= 0 else -spacing / slope
    return min(max(length, spacing), count * spacing)
