"""Intensities of a stack as the others have them: one smooth field, its gain and its bias.

    min over c of  sum_p m(p) (u - g v)^2 + PRIOR sum(m v^2) |c|^2,      g(p) = g_0 (1 + sum_b c_b B_b(p))
    u = y - background,  v = P x - background

where y is what the stack measured, P x what a volume of the others predicts for it, m the slice's weight where both are
within the subject and 0 elsewhere, g_0 = sum(m u v) / sum(m v^2) the gain of the whole stack, and B_b the products of
Legendre polynomials along the stack's axes, of degree 1 to DEGREE in all. The stack becomes background + u / g.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial.legendre import legvander

from interslice.physics.stacks.others import Others
from interslice.physics.stacks.signals import threshold_of
from interslice.physics.stacks.stack import Stack

DEGREE = 3
"""Coils vary over centimetres, anatomy over less."""
PRIOR = 1e-3
"""Keeps the field from going anywhere where nothing is measured."""
BIAS = (0.5, 2.0)
"""What a field may be of its gain."""
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
    total = float(v.square().sum())
    gain = float((u * v).sum()) / total if total > 0 else 1.0
    gain = min(max(gain, GAINS[0]), GAINS[1])
    if not smooth or total == 0:
        return Matched(
            stack.moved(voxels=_divided(stack.voxels, gain, background), noise=stack.noise / gain), gain, 0.0
        )
    field = _field(u, gain * v).clamp(*BIAS)
    bias = float((field[inside > 0] - 1).abs().max())
    voxels = _divided(stack.voxels, gain * field, background)
    return Matched(stack.moved(voxels=voxels, noise=stack.noise / gain), gain, bias)


def _field(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z) the smooth ratio of u to v, both 0 where they do not count."""
    degrees = [d for d in itertools.product(range(DEGREE + 1), repeat=3) if 0 < sum(d) <= DEGREE]
    along = [
        torch.from_numpy(legvander(np.linspace(-1, 1, n) if n > 1 else np.zeros(1), DEGREE)).float() for n in u.shape
    ]
    energy, pull = v.square(), u * v - v.square()
    # Sums over the volume, one axis after the other: products of two polynomials of an axis first.
    pairs = [line[:, :, None] * line[:, None] for line in along]
    normal = torch.einsum("xyz,xad,ybe,zcf->abcdef", energy, *pairs).double()
    right = torch.einsum("xyz,xa,yb,zc->abc", pull, *along).double()
    index = torch.tensor(degrees).mT
    matrix = normal[index[0][:, None], index[1][:, None], index[2][:, None], index[0], index[1], index[2]]
    matrix += PRIOR * float(energy.sum()) * torch.eye(len(degrees))
    found = torch.zeros(*right.shape)
    found[tuple(index)] = torch.linalg.solve(matrix, right[tuple(index)]).float()
    return 1 + torch.einsum("abc,xa,yb,zc->xyz", found, *along)


def _divided(voxels: torch.Tensor, field: torch.Tensor | float, background: float) -> torch.Tensor:
    return (voxels - background) / field + background
