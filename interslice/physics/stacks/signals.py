"""Voxels as signals: smoothed, set against each other, told from air."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def correlation(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float:
    """Of two vectors under weights; 0 where one does not vary."""
    a, b, share = a.double(), b.double(), weights.double() / weights.double().sum().clamp_min(1e-12)
    a, b = a - share @ a, b - share @ b
    return float((share * a) @ b / (((share * a) @ a) * ((share * b) @ b)).sqrt().clamp_min(1e-12))


def threshold_of(y: torch.Tensor) -> float:
    """Between air and the subject: 15 percent of the way from the lowest to the bright values."""
    low, high = (float(v) for v in torch.quantile(y[:: max(1, len(y) // 100_000)], torch.tensor([0.01, 0.98])))
    return low + 0.15 * (high - low)


def smoothed(volume: torch.Tensor, deviations: list[float]) -> torch.Tensor:
    """(X, Y, Z) under a Gaussian of these deviations (voxels) along its axes; its border is repeated."""
    for axis, deviation in enumerate(deviations):
        if deviation <= 0.1 or volume.shape[axis] == 1:
            continue
        reach = max(1, int(3 * deviation))
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2).to(volume)
        lines = volume.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        flat = F.conv1d(flat, (kernel / kernel.sum())[None, None])
        volume = flat.reshape(lines.shape).movedim(-1, axis)
    return volume
