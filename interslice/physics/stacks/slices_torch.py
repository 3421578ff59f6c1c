"""Slices of a volume in torch, on any device and in any type. See stacked.py.

Trilinear interpolation is torch's `grid_sample`, and its transpose torch's own gradient of it, so both are exact
transposes; places beyond the middle of a border voxel read that voxel. Slices are taken some at a time: the places of
all at once would take three times their memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

PLACES = 1 << 22
"""Places that are read at once."""


def sliced(x: torch.Tensor, ways: torch.Tensor, offsets: torch.Tensor, shares: torch.Tensor, size: tuple[int, int]
           ) -> torch.Tensor:  # fmt: skip
    """(B, K, I, J): weighted means across slices of the volumes x (B, X, Y, Z).

    Args:
        ways: (K, 4, 3), of `Stack.ways`.
        offsets, shares: (T,) places across a slice, mm, and their weights.
        size: (I, J).
    """
    out = x.new_zeros(len(x), len(ways), *size)
    for part, share, places in _parts(x, ways, offsets, shares, size):
        read = F.grid_sample(x[None], places[None], mode="bilinear", padding_mode="border", align_corners=True)[0]
        out[:, part].add_(read, alpha=share)
    return out


def spread(y: torch.Tensor, ways: torch.Tensor, offsets: torch.Tensor, shares: torch.Tensor, shape: tuple[int, ...]
           ) -> torch.Tensor:  # fmt: skip
    """(B, X, Y, Z): the transpose, of slices y (B, K, I, J) and for volumes of `shape` (X, Y, Z)."""
    x = y.new_zeros(len(y), *shape)
    for part, share, places in _parts(x, ways, offsets, shares, tuple(y.shape[2:])):
        gradient, _ = torch.ops.aten.grid_sampler_3d_backward(
            y[None, :, part] * share, x[None], places[None], 0, 1, True, [True, False]
        )
        x += gradient[0]
    return x


def _parts(x: torch.Tensor, ways: torch.Tensor, offsets: torch.Tensor, shares: torch.Tensor, size: tuple[int, int]
           ) -> Iterator[tuple[slice, float, torch.Tensor]]:  # fmt: skip
    """Slices, the share of an offset, and the places (k, I, J, 3) that it reads, as `grid_sample` counts them."""
    last = torch.tensor(x.shape[1:], dtype=torch.float64) - 1
    i, j = (torch.arange(n, dtype=x.dtype, device=x.device) for n in size)
    step = max(1, PLACES // (size[0] * size[1]))
    for begin in range(0, len(ways), step):
        part = slice(begin, min(begin + step, len(ways)))
        for offset, share in zip(offsets.tolist(), shares.tolist()):
            origin, along_i, along_j, across = ways[part].unbind(1)
            # Worked out in float64, for few: -1 and 1 are the middles of the first and the last voxel, z comes first.
            scale = 2 / last.clamp_min(1)
            start = ((origin + offset * across) * scale - 1).flip(-1).to(x)
            on_i, on_j = ((way * scale).flip(-1).to(x) for way in (along_i, along_j))
            places = i[:, None, None] * on_i[:, None, None] + j[:, None] * on_j[:, None, None]
            yield part, share, places.add_(start[:, None, None])
