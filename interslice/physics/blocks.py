"""Volumes averaged over blocks of voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def block_means(volume: torch.Tensor, factors: Sequence[int]) -> torch.Tensor:
    """(..., X, Y, Z) averaged over blocks of `factors` voxels; the border is repeated where the last block is short."""
    for axis, k in enumerate(factors, volume.ndim - 3):
        if k == 1:
            continue
        if short := -volume.shape[axis] % k:
            border = volume.narrow(axis, volume.shape[axis] - 1, 1)
            volume = torch.cat([volume, border.repeat_interleave(short, axis)], axis)
        volume = volume.unflatten(axis, (-1, k)).mean(axis + 1)
    return volume
