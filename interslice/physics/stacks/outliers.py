"""Slices that do not fit the others: the patient moved in them, or signal was lost.

    e_k = rms over the subject of (y - a P x - b) in slice k         x: a volume of the others
    limit = median(e) + FAR * 1.4826 * median |e - median(e)|,       at least TIMES median(e)
    weight = min(1, limit / e_k)^4

so that the worse a slice is, the less it says in all. Slices that hold little of the subject, or little that the
volume covers, are not judged.
"""

from __future__ import annotations

import torch

from interslice.physics.stacks.others import Others
from interslice.physics.stacks.signals import threshold_of
from interslice.physics.stacks.stack import Stack

FAR, TIMES = 5.0, 1.6
LEAST = 0.25
"""Share of the typical slice's subject that a slice has to hold to be judged."""
NAMED = 0.7
"""A slice that counts less is named."""


def slice_weights_of(others: Others, stack: Stack) -> torch.Tensor:
    """(K,) float32 weights of the slices of a stack."""
    predicted, known = (part.flatten(1) for part in others.predicted(stack))
    y = stack.slices.flatten(1)
    inside = known & (y > threshold_of(y.flatten()))
    if bool(known.any()):
        inside |= known & (predicted > threshold_of(predicted[known]))
    if int(inside.sum()) < 2:
        return torch.ones(stack.count)
    p, z = predicted[inside].double(), y[inside].double()
    slope = float((p - p.mean()) @ (z - z.mean()) / (p - p.mean()).square().sum().clamp_min(1e-12))
    residual = (y - slope * predicted - float(z.mean() - slope * p.mean())).square() * inside
    counts = inside.sum(1)
    judged = counts >= LEAST * counts[counts > 0].double().quantile(0.75)
    errors = (residual.sum(1) / counts.clamp_min(1)).sqrt()
    if int(judged.sum()) < 3:
        return torch.ones(stack.count)
    typical = errors[judged].median()
    spread = 1.4826 * (errors[judged] - typical).abs().median()
    limit = torch.maximum(typical + FAR * spread, TIMES * typical)
    weights = (limit / errors.clamp_min(1e-12)).clamp(max=1).pow(4)
    return torch.where(judged, weights, torch.ones_like(weights)).float()


def named_slices(stack: Stack) -> str:
    """Which slices count less than NAMED, in words: "slice 4 (0.12), slice 9 (0.5)"; slices are counted from 1."""
    low = [(k, float(w)) for k, w in enumerate(stack.weights, 1) if w < NAMED]
    return ", ".join(f"slice {k} ({w:.2f})" for k, w in low)
