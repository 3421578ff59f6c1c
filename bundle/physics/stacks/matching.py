"""Intensities of a stack as the others have them: one smooth field, its gain and its bias.

    g(p) = (G * (m u v) + e) / (G * (m v^2) + e / g_0)         u = y - background,  v = P x - background

where y is what the stack measured, P x what a volume of the others predicts for it, m the slice's weight where both are
within the subject and 0 elsewhere, G * a wide Gaussian (WIDTH) and g_0 the gain of the whole stack: the ratio that fits
best nearby, and g_0 where nothing is near. The stack becomes background + u / g.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bundle.physics.stacks.others import Others
from bundle.physics.stacks.register import smoothed, threshold_of
from bundle.physics.stacks.stack import Stack

WIDTH = 30.0
"""mm, the deviation of the Gaussian: coils vary over centimetres, anatomy over less."""
PRIOR = 0.02
"""e, as a share of the mean of m v^2."""
GAINS = (0.2, 5.0)
"""What a gain may be; beyond it another contrast or another thing was measured."""


@dataclass(frozen=True)
class Matched:
    """A stack on the others' scale.

    Attributes:
        stack: with its voxels divided by the field.
        gain: g_0.
        bias: the largest deviation of the field from g_0 within the subject, as a share of it.
    """

    stack: Stack
    gain: float
    bias: float


def matched(others: Others, stack: Stack, smooth: bool = True) -> Matched:
    """Bring a stack, which lies in its place, to the intensities of the others.

    Args:
        smooth: divide by the field; else by the gain alone.
    """
    predicted, known = (part.movedim(0, stack.axis) for part in others.predicted(stack))
    background, y = others.background, stack.voxels
    inside = known & (y > threshold_of(y.flatten()))
    if bool(known.any()):
        inside &= predicted > threshold_of(predicted[known])
    inside = inside * stack.weights.reshape([-1 if a == stack.axis else 1 for a in range(3)])
    u, v = (y - background) * inside.sqrt(), (predicted - background) * inside.sqrt()
    energy = v.square()
    total = float(energy.sum())
    gain = float((u * v).sum()) / total if total > 0 else 1.0
    gain = min(max(gain, GAINS[0]), GAINS[1])
    if not smooth or total == 0:
        return Matched(stack.moved(voxels=_divided(stack.voxels, gain, background)), gain, 0.0)
    widths = [WIDTH / size for size in stack.voxel_size]
    prior = PRIOR * total / inside.numel()
    field = (smoothed(u * v, widths) + prior * gain) / (smoothed(energy, widths) + prior)
    field = field.clamp(GAINS[0], GAINS[1])
    bias = float((field[inside > 0] / gain - 1).abs().max()) if bool(inside.any()) else 0.0
    return Matched(stack.moved(voxels=_divided(stack.voxels, field, background)), gain, bias)


def _divided(voxels: torch.Tensor, field: torch.Tensor | float, background: float) -> torch.Tensor:
    return (voxels - background) / field + background
