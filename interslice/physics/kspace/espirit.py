"""Coil sensitivities from the subspace that patches of k-space span (ESPIRiT).

Multiplying an image by smooth maps convolves its k-space with short kernels, which ties the coils together: all patches
of K x K points of all C coils lie in the span of a few vectors v_k, far fewer than C K^2. At a voxel r with signal, the
map s(r) is the pattern of coils that this span can hold:

    G(r) s(r) = s(r),     G(r) = sum_k g_k(r) g_k(r)^H / K^2,     g_k(r) the inverse Fourier transform of v_k at r

(Uecker et al., "ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI", Magn. Reson. Med. 2014.) Unlike the
quotient of low-resolution images this is not blurred by their resolution, which counts where few lines are complete.
The eigenvector's phase is free; it is that of the low-resolution image here, by power iterations that start from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

KERNEL = 6
"""Largest K."""
SMALLEST_SINGULAR_VALUE = 0.02
"""Of the patches, as a share of the largest: vectors below it are taken for noise."""
POINTS = 48
"""G is evaluated at about so many points of an axis of the field of view, 8 for each period of the finest wave in G."""
ITERATIONS = 12


def kernel_size(center_shape: Sequence[int]) -> int:
    """K for a complete block (2 h + 1, 2 w + 1) in the centre: small enough that there are many patches."""
    return min(KERNEL, *((n - 1) // 2 for n in center_shape))


def refined(center: torch.Tensor, images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Unit-norm maps (C, Z, Y, X) with the overall phase of `images`.

    Args:
        center: complex (C, Z, 2 h + 1, 2 w + 1), the centre of k-space; K must be 2 or more.
        images: low-resolution coil images (C, Z, Y, X), in the middle of the field of view.
        size: (KY, KX) of k-space.
    """
    kernel = kernel_size(center.shape[-2:])
    shape = images.shape[-2:]
    steps = [max(1, n // POINTS) for n in size]
    grids = [torch.arange(0, n + step - 1, step).clamp(max=n - 1) for n, step in zip(shape, steps)]
    k = torch.arange(kernel, dtype=torch.float64)
    waves = [
        torch.polar(torch.ones(1, dtype=torch.float64), 2 * math.pi * (g - n // 2)[:, None] * k / s).to(center.dtype)
        for g, n, s in zip(grids, shape, size)
    ]
    coarse = images[..., grids[0], :][..., grids[1]].clone()
    for z in range(center.shape[1]):
        v = subspace(center[:, z], kernel)
        g = torch.einsum("ya,cabk,xb->yxck", waves[0], v, waves[1]) / kernel
        s = coarse[:, z].permute(1, 2, 0)[..., None]
        for _ in range(ITERATIONS):
            s = g @ (g.mH @ s)
            s = s / s.norm(dim=-2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        coarse[:, z] = s[..., 0].permute(2, 0, 1)
    return interpolated(coarse, grids, shape)


def subspace(center: torch.Tensor, kernel: int) -> torch.Tensor:
    """Orthonormal vectors (C, K, K, number) that span the patches of (C, Y, X)."""
    patches = center.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4)
    patches = patches.reshape(-1, len(center) * kernel**2)
    squares, vectors = torch.linalg.eigh(patches.mT @ patches.conj())
    kept = squares > SMALLEST_SINGULAR_VALUE**2 * squares[-1]
    return vectors[:, kept].reshape(len(center), kernel, kernel, -1)


def interpolated(coarse: torch.Tensor, grids: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """Values at the grid points (C, Z, gy, gx), linearly at all (C, Z, Y, X)."""
    for dim, (grid, n) in enumerate(zip(grids, shape), 2):
        position = torch.arange(n)
        above = torch.searchsorted(grid, position).clamp(min=min(1, len(grid) - 1))
        below = (above - 1).clamp(min=0)
        span = (grid[above] - grid[below]).clamp(min=1)
        weight = ((position - grid[below]) / span).to(coarse.dtype).reshape(-1, *[1] * (3 - dim))
        low, high = coarse.index_select(dim, below), coarse.index_select(dim, above)
        coarse = low + weight * (high - low)
    return coarse
