"""Coil sensitivities, estimated from the centre of k-space.

    c_c = F^H W y_c                      low-resolution coil images: the complete centre under a cosine window W
    s_c = c_c / sqrt(sum_c |c_c|^2)      maps of unit root-sum-of-squares, with the phase of the image in them

(McKenzie et al., "Self-calibrating parallel imaging with automatic coil sensitivity extraction", Magn. Reson. Med.
2002.) The quotient is blurred by the resolution of the centre; with several coils and enough lines c_c is therefore
replaced by a vector of the same norm and phase that fits the patches of k-space (see espirit.py). Where there
is no signal the quotient is noise: there, maps of a coarser resolution take over, blended in by

    s = normalised( c + FLOOR max|c| g ),      g the maps of the next coarser level.

The maps have unit norm at every voxel, so that A^T A leaves none unseen. Arrays are (C, Z, Y, X), complex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from interslice.physics.kspace.espirit import kernel_size, refined

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
    images = low_resolution(center, size, shape)
    if len(images) > 1 and kernel_size(center.shape[-2:]) > 1:
        images = refined(center, images, size) * images.abs().square().sum(0).sqrt()
    return blended(images, fallback)


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
    """Coil images (C, Z, *shape) of the centre of a k-space of `size`, under a cosine window."""
    image = center
    for dim in (-2, -1):
        half = center.shape[dim] // 2
        k = torch.arange(-half, half + 1, dtype=torch.float64)
        window = torch.cos(math.pi * k / (2 * (half + 1))) / math.sqrt(size[dim])
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
