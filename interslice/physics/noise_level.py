"""How much noise is in a measurement, from the measurement alone.

    |n|^2  =  sum over blocks of  median(d^2) / 0.4549  times their values,     d = D_k y / sqrt(binomial(2 k, k))

D_k are differences of order k of neighbours. White noise of variance s^2 has d^2 = s^2 on average, and a median of
0.4549 s^2 (of the chi-squared law of one degree); what is smooth has d near 0, and the edges between are few. Medians
are taken block by block, as noise that grows with attenuation is not the same everywhere.

Where images have two axes of pixels and noise that is the same everywhere, its standard deviation is

    s  =  median |D_k D_k' y| / (0.6745 binomial(2 k, k)),     differences along both axes, over the subject

as for wavelet shrinkage (Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81, 1994),
with narrower filters. Most of the power of anatomy lies along the axes of frequency, where nothing passes. Within the
subject the noise of magnitude images, Rician, is near Gaussian; air, where it is Rayleigh's and lower by a third, or
was set to zero, has no say.
"""

from __future__ import annotations

import math

import torch

from interslice.physics.foreground import foreground_threshold

MATTERS = 0.02
"""Noise above this share of the intensity range is followed, if it was estimated."""
FULL_SCALE = 2.0
"""Of the prior's range, -1 to 1, of which noise is a share."""
ORDER = 4
"""k. With 2 the structure of a noiseless chest counts as noise of 0.013 |y|, with 4 as 0.008, with 6 no less."""
MEDIAN = 0.4549
BLOCK = 8
"""Neighbours in a block."""
DEVIATION = 0.6745
"""Median of |n| of the normal law."""
SMALLEST = 24
"""Pixels of a side: on fewer, anatomy is as fine as noise."""


def noise_norm(y: torch.Tensor, dim: int) -> float:
    """|n| of the noise in y (A, B, C), from differences along axis `dim`; 0 of fewer than 2 ORDER values there."""
    size = y.shape[dim]
    if size < 2 * ORDER:
        return 0.0
    squares = y.float().movedim(dim, 0).diff(n=ORDER, dim=0).square() / math.comb(2 * ORDER, ORDER)
    # Blocks of some neighbours, in all positions of the last axis, for each position of the other one.
    energy = 0.0
    for block in squares.split(BLOCK):
        values = block.movedim(1, 0).flatten(1)
        energy += float(values.median(1).values.sum()) * values.shape[1]
    return math.sqrt(energy / MEDIAN * size / (size - ORDER))


def noise_deviation(y: torch.Tensor, dims: tuple[int, int]) -> float:
    """Standard deviation of white noise in the images of y (A, B, C) along two axes; 0 where they are below SMALLEST.

    What is left of anatomy, and of what noise has blurred, is in it: of scans without added noise 0.01 to 0.04 of a
    range of 2.
    """
    if any(y.shape[dim] < SMALLEST for dim in dims):
        return 0.0
    y = y.float()
    inside, detail = y > foreground_threshold(y.cpu().numpy()), y
    for dim in dims:
        detail = detail.diff(n=ORDER, dim=dim) / math.sqrt(math.comb(2 * ORDER, ORDER))
        inside = inside.narrow(dim, ORDER // 2, detail.shape[dim])
    values = detail[inside]
    return float(values.abs().median()) / DEVIATION if values.numel() else 0.0
