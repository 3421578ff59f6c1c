"""How much noise is in a measurement, from the measurement alone.

    |n|^2  =  sum over blocks of  median(d^2) / 0.4549  times their values,     d = D_k y / sqrt(binomial(2 k, k))

D_k are differences of order k of neighbours. White noise of variance s^2 has d^2 = s^2 on average, and a median of
0.4549 s^2 (of the chi-squared law of one degree); what is smooth has d near 0, and the edges between are few. Medians
are taken block by block, as noise that grows with attenuation is not the same everywhere.
"""

from __future__ import annotations

import math

import torch

ORDER = 4
"""k. With 2 the structure of a noiseless chest counts as noise of 0.013 |y|, with 4 as 0.008, with 6 no less."""
MEDIAN = 0.4549
BLOCK = 8
"""Neighbours in a block."""


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
