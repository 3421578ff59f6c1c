"""Smooth random shapes: what the synthetic training volumes of heads and bodies share.

    x'(r) = x(R Z r + u(r)),   u = sum over scales of  amplitude * smooth unit noise

R is a small rotation, Z an anisotropic zoom, r in voxels from the centre of the grid, u in voxels.
Everything is a function of the generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number, uniform in [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def smooth_noise(generator: torch.Generator, shape: Sequence[int], scale: float, channels: int = 1) -> torch.Tensor:
    """Smooth noise (channels, X, Y, Z) of unit variance whose features are about `scale` voxels wide."""
    coarse = [max(2, math.ceil(n / scale) + 1) for n in shape]
    noise = torch.randn(1, channels, *coarse, generator=generator)
    field = F.interpolate(noise, size=tuple(shape), mode="trilinear", align_corners=True)[0]
    return field / field.std()


def displacement(generator: torch.Generator, shape: Sequence[int], angle: float, zoom: tuple[float, float],
                 waves: Sequence[tuple[float, float]]) -> torch.Tensor:  # fmt: skip
    """A displacement field (3, X, Y, Z) in voxels, for `monai.networks.blocks.Warp`.

    Args:
        angle: largest rotation about each axis, in radians.
        zoom: range of the magnification along each axis.
        waves: (scale, amplitude) of each smooth field, in voxels.
    """
    angles = [uniform(generator, -angle, angle) for _ in range(3)]
    scaling = torch.diag(torch.tensor([1 / uniform(generator, *zoom) for _ in range(3)]))
    (cx, sx), (cy, sy), (cz, sz) = [(math.cos(a), math.sin(a)) for a in angles]
    rotation = (
        torch.tensor([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ torch.tensor([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij"))
    centred = grid - ((torch.tensor(shape, dtype=torch.float32) - 1) / 2)[:, None, None, None]
    ddf = torch.einsum("ij,jxyz->ixyz", rotation @ scaling - torch.eye(3), centred)
    for scale, amplitude in waves:
        ddf += amplitude * uniform(generator, 0.5, 1.2) * smooth_noise(generator, shape, scale, 3)
    return ddf
