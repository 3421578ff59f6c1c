"""Coil sensitivities: estimated from the centre of k-space, or made up for simulations.

    c_c = F^H W y_c                      low-resolution coil images, from the fully sampled centre with a window W
    s_c = c_c / sqrt(sum_c |c_c|^2)      maps of unit root-sum-of-squares

The image's own phase is in c_c and so in s_c; its magnitude cancels where the coils vary slowly against it. (McKenzie
et al., "Self-calibrating parallel imaging with automatic coil sensitivity extraction", Magn. Reson. Med. 2002.) Where
there is no signal the quotient is noise: there, maps of a coarser resolution take over, blended in by

    s = normalised( c + FLOOR max|c| g ),      g the maps of the next coarser level.

The maps have unit norm at every voxel, so that A^T A leaves none unseen. Arrays are (C, Z, Y, X), complex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

FLOOR = 0.02
"""Share of the strongest signal below which the next coarser maps take over."""
COARSE = 2
"""The coarser level sees this many points of k-space on either side of the centre."""
MIN_HALF_WIDTH, MAX_HALF_WIDTH = 1, 16
"""Points of k-space on either side of the centre that maps are estimated from."""


def estimate_maps(center: torch.Tensor, size: Sequence[int], shape: Sequence[int] | None = None) -> torch.Tensor:
    """Maps complex64 (C, Z, Y, X) of unit norm.

    Args:
        center: complex (C, Z, 2 h + 1, 2 w + 1), the centre of k-space, not all zero.
        size: (KY, KX) of k-space, the field of view in voxels.
        shape: (Y, X) of the maps in its middle; all of it by default.
    """
    shape = size if shape is None else shape
    center = center.to(torch.complex64)
    middle = tuple(n // 2 for n in center.shape[-2:])
    mean = center[..., middle[0], middle[1]].sum(1)[:, None, None, None]
    fallback = (normalised(mean) if bool(mean.any()) else torch.ones_like(mean)).expand(*center.shape[:2], *shape)
    if min(middle) > COARSE:
        inner = centre_of(center, (COARSE, COARSE))
        fallback = blended(low_resolution(inner, size, shape), fallback)
    return blended(low_resolution(center, size, shape), fallback)


def blended(images: torch.Tensor, fallback: torch.Tensor) -> torch.Tensor:
    """Maps of coil images, where they have signal, and of `fallback` elsewhere."""
    strongest = images.abs().square().sum(0).max().sqrt()
    mixed = images + FLOOR * strongest * fallback
    # Signal and fallback can cancel; no voxel may be left without a map.
    lost = mixed.abs().square().sum(0) < (1e-3 * FLOOR * strongest) ** 2
    return normalised(torch.where(lost, fallback, mixed))


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Coil images over their root-sum-of-squares."""
    return images / images.abs().square().sum(0).sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def low_resolution(center: torch.Tensor, size: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Coil images (C, Z, *shape) of the centre of a k-space of `size`, under a Hann window."""
    image = center
    for dim in (-2, -1):
        half = center.shape[dim] // 2
        k = torch.arange(-half, half + 1, dtype=torch.float64)
        window = torch.cos(math.pi * k / (2 * (half + 1))).square() / math.sqrt(size[dim])
        position = torch.arange(shape[dim], dtype=torch.float64) - shape[dim] // 2
        waves = torch.polar(window.expand(len(position), -1), 2 * math.pi * position[:, None] * k / size[dim])
        image = torch.tensordot(image, waves.to(image.dtype), ([dim], [1])).movedim(-1, dim)
    return image


def central_block(mask: torch.Tensor) -> tuple[int, int]:
    """(h, w): k-space is complete within h rows and w columns on either side of its centre; (-1, -1) if nowhere.

    Args:
        mask: bool (Y, X).
    """
    middle = [n // 2 for n in mask.shape]
    half = [-1, -1]
    if not mask[middle[0], middle[1]]:
        return (-1, -1)
    half, growing = [0, 0], [True, True]
    while any(growing):
        for a in (0, 1):
            if growing[a]:
                wider = list(half)
                wider[a] += 1
                growing[a] = wider[a] <= min(MAX_HALF_WIDTH, (mask.shape[a] - 1) // 2) and bool(
                    centre_of(mask, wider).all()
                )
                half = wider if growing[a] else half
    return tuple(half)


def centre_of(array: torch.Tensor, half: Sequence[int]) -> torch.Tensor:
    """The block (..., 2 h + 1, 2 w + 1) around the centre of (..., Y, X)."""
    (y, h), (x, w) = zip((n // 2 for n in array.shape[-2:]), half)
    return array[..., y - h : y + h + 1, x - w : x + w + 1]


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
