"""Whether a stack is of the head that the others are of: what anatomy of a few millimetres has in common.

    b(u) = G_f * (m u) / G_f * m  -  G_c * (m u) / G_c * m          within the slices; FINE and COARSE mm: f and c
    similarity = corr over m of  b(y) and b(P x)

m is 1 where the subject is measured and predicted (others.py). All heads are bright inside and dark around, and have
their ventricles in the middle: placed upon each other, two heads correlate well. Of their gyri and vessels nothing
agrees. Neither do gain and bias matter, and what is finer than FINE is noise.
"""

from __future__ import annotations

import torch

from interslice.physics.stacks.others import Others
from interslice.physics.stacks.signals import correlation, smoothed, threshold_of
from interslice.physics.stacks.stack import Stack

FINE, COARSE = 1.5, 6.0
FEWEST = 200
"""Voxels of the subject that both must hold."""


def likeness(others: Others, stack: Stack) -> tuple[float, float]:
    """Similarity, -1 where too little is known, and overlap: the share of the stack's subject that is known."""
    predicted, known = others.predicted(stack)
    subject = stack.slices > threshold_of(stack.voxels.flatten())
    inside = known & subject
    overlap = float(inside.sum()) / max(1, int(subject.sum()))
    if int(inside.sum()) < FEWEST:
        return -1.0, overlap
    sizes = [stack.voxel_size[a] for a in stack.in_plane]
    bands = [_band(part, inside.to(part), sizes) for part in (stack.slices, predicted)]
    return correlation(*(b.flatten() for b in bands), (inside * stack.weights[:, None, None]).flatten()), overlap


def _band(slices: torch.Tensor, inside: torch.Tensor, sizes: list[float]) -> torch.Tensor:
    """b of slices (K, I, J)."""
    parts = []
    for width in (FINE, COARSE):
        widths = [0.0, *(width / size for size in sizes)]
        parts.append(smoothed(slices * inside, widths) / smoothed(inside, widths).clamp_min(1e-6))
    return parts[0] - parts[1]
