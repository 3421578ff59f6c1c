"""How far the edges of two volumes of one grid run alike, whatever their contrasts: chance is 0, and all alike is 1.

    xi, eta     gradients of the two volumes, shortened as in variation.py: 0 where a volume is flat, length 1 at edges
    c           sum (xi . eta)^2 / sum |xi|^2 |eta|^2                    mean squared cosine, weighted
    c0          tr(M N) / (tr M tr N),    M = sum xi xi^T,  N = sum eta eta^T
    shared      (c - c0) / (1 - c0)

c is the measure of normalised gradient fields (Haber and Modersitzki, "Intensity gradient based registration and fusion
of multi-modal images", MICCAI 2006), and c0 what it is in the mean if every gradient of the one volume is paired with
those of the other at random: gradients of thick slices lie in the slices, so that chance is no third. Guided total
variation takes edges to be shared, and this says whether they are.
"""

from __future__ import annotations

import torch

from interslice.physics.variation import EDGE, Variation, differences

SLAB = 16
"""Planes that are looked at together, so that memory does not grow with the volume."""


def shared_edges(x: torch.Tensor, guide: torch.Tensor, edge: float = EDGE) -> float:
    """The share above, from about 0 to 1, of (X, Y, Z) volumes in a range of 2; where either is NaN nothing counts.

    0 where there is nothing to compare: no voxel where both have an edge.
    """
    if x.shape != guide.shape:
        raise ValueError(f"the volumes must share one grid, got {tuple(x.shape)} and {tuple(guide.shape)}")
    alike = both = 0.0
    first, second = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for start in range(0, x.shape[0] - 1, SLAB):
        a, b = (volume[start : start + SLAB + 1].double() for volume in (x, guide))
        known = torch.isfinite(differences(a) + differences(b)).all(0)
        known[-1] = known[:, -1] = known[:, :, -1] = False  # no difference there, or that of the next slab
        xi, eta = (Variation(guide=v, edge=edge).field(v)[:, known] for v in (a, b))
        alike += float((xi * eta).sum(0).square().sum())
        both += float((xi.square().sum(0) * eta.square().sum(0)).sum())
        first += xi @ xi.T
        second += eta @ eta.T
    if not both > 0:
        return 0.0
    chance = float((first * second).sum() / (first.trace() * second.trace()))
    return (alike / both - chance) / (1 - chance) if chance < 1 else 0.0
