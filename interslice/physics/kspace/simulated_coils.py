"""Coils for simulations: smooth complex maps, and a smooth phase of the image. No scanner has exactly these."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from interslice.physics.kspace.coil_maps import normalised


def simulated_maps(shape: Sequence[int], spacing: Sequence[float], num_coils: int, seed: int) -> torch.Tensor:
    """Maps complex64 (C, Z, Y, X) of coils in a ring around the volume, of unit norm, and a smooth phase of the image.

    A coil is a loop that faces the axis: at distance d its field falls as (1 + d^2 / a^2)^(-3/2), a its radius, and
    turns with the direction. The phase is a random polynomial of second order, of about one radian.

    Args:
        shape, spacing: of the volume along X, Y, Z; mm.
        num_coils: C.
        seed: of the phase.
    """
    extent = [n * s for n, s in zip(shape, spacing)]
    axes = [(torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * s for n, s in zip(shape, spacing)]
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    ring, loop = 0.6 * math.hypot(*extent[:2]), 0.25 * math.hypot(*extent[:2])
    random = torch.Generator().manual_seed(seed)
    u = [v / (e / 2) for v, e in zip((x, y, z), extent)]
    terms = [*u, *(a * b for i, a in enumerate(u) for b in u[i:])]
    weights = 0.7 * torch.randn(len(terms), generator=random, dtype=torch.float64)
    phase = sum(w * t for w, t in zip(weights, terms))
    coils = []
    for c in range(num_coils):
        angle = 2 * math.pi * (c + 0.5) / num_coils
        dx, dy = x - ring * math.cos(angle), y - ring * math.sin(angle)
        dz = z - (0.2 if c % 2 else -0.2) * extent[2]
        strength = (1 + (dx.square() + dy.square() + dz.square()) / loop**2) ** -1.5
        forward = -dx * math.cos(angle) - dy * math.sin(angle)
        sideways = dx * math.sin(angle) - dy * math.cos(angle)
        coils.append(torch.polar(strength, torch.atan2(sideways, forward) + angle + phase))
    return normalised(torch.stack(coils)).to(torch.complex64)
