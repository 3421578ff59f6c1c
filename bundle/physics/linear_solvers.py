"""Iterative solvers for linear systems, on callables alone: they know no operator class."""

from __future__ import annotations

from collections.abc import Callable

import torch


def descent_bytes(size: float) -> float:
    """Bytes that `conjugate_gradient` holds at once for arrays of `size` bytes: x, r, p, N p, b and a product."""
    return 6 * size


def conjugate_gradient(
    normal: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    x: torch.Tensor,
    iterations: int,
    tolerance: float = 1e-6,
) -> torch.Tensor:
    """Solve N x = b for a symmetric positive (semi-)definite N (Hestenes and Stiefel, 1952).

    Args:
        normal: applies N to a tensor of b's shape.
        b: right-hand side.
        x: start; not changed.
        iterations: at most this many.
        tolerance: stop when |b - N x| <= tolerance |b|.

    Returns:
        The solution, of b's shape.
    """
    x = x.clone()
    r = b - normal(x)
    p = r.clone()
    rr = r.square().sum()
    # Below the rounding there is nothing to gain, and a singular N lets it grow; b may be zero.
    rounding = torch.finfo(b.dtype).eps
    stop = torch.maximum(max(tolerance, 8 * rounding) ** 2 * b.square().sum(), rounding**2 * rr)
    for _ in range(iterations):
        if rr <= stop:
            break
        np_ = normal(p)
        curvature = (p * np_).sum()
        if curvature <= 0:  # underflow, or a direction that N does not see
            break
        alpha = rr / curvature
        x.add_(alpha * p)
        r.sub_(alpha * np_)
        rr, previous = r.square().sum(), rr
        p.mul_(rr / previous).add_(r)
    return x
