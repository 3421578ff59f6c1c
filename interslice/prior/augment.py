"""Augmentation of patches on the device: each patch of a batch (N, 1, H, W) with draws of its own.

Patches hold the subject in [0, 1]; draws are those of torch's global generator of the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interslice.files.values import number, whole_number


class RandFlip:
    """Turns patches round along `axes` (0 for rows, 1 for columns), each with probability `prob`."""

    def __init__(self, axes: Sequence[int] = (0,), prob: float = 0.5) -> None:
        self.axes, self.prob = [whole_number("axes", a) for a in axes], number("prob", prob, 0, 1)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        for axis in self.axes:
            patches = torch.where(_chosen(patches, self.prob), patches.flip(axis + 2), patches)
        return patches


class RandGamma:
    """v -> v^g where v > 0, g = exp(u), u uniform within +- `log_gamma`: another contrast, black and white kept."""

    def __init__(self, prob: float = 0.3, log_gamma: float = 0.35) -> None:
        self.prob, self.log_gamma = number("prob", prob, 0, 1), number("log_gamma", log_gamma, 0)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        gamma = torch.exp(_uniform(patches, self.log_gamma))
        changed = _chosen(patches, self.prob) & (patches > 0)
        return torch.where(changed, patches.clamp_min(torch.finfo(patches.dtype).tiny) ** gamma, patches)


class RandGain:
    """v -> v (1 + u), u uniform within +- `factors`: scans that are scaled a little otherwise."""

    def __init__(self, prob: float = 0.7, factors: float = 0.3) -> None:
        self.prob, self.factors = number("prob", prob, 0, 1), number("factors", factors, 0)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        gain = 1 + _uniform(patches, self.factors)
        return patches * torch.where(_chosen(patches, self.prob), gain, torch.ones_like(gain))


class RandShift:
    """v -> v + u, u uniform within +- `offsets`."""

    def __init__(self, prob: float = 0.5, offsets: float = 0.01) -> None:
        self.prob, self.offsets = number("prob", prob, 0, 1), number("offsets", offsets, 0)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        return patches + _uniform(patches, self.offsets) * _chosen(patches, self.prob)


def _uniform(patches: torch.Tensor, limit: float) -> torch.Tensor:
    """One number for each patch, uniform within +- `limit`."""
    shape = (len(patches), *(1,) * (patches.ndim - 1))
    return (torch.rand(shape, device=patches.device) * 2 - 1) * limit


def _chosen(patches: torch.Tensor, prob: float) -> torch.Tensor:
    return torch.rand((len(patches), *(1,) * (patches.ndim - 1)), device=patches.device) < prob
