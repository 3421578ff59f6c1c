"""Iterative solvers for linear systems, on callables alone: they know no operator class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

CHECK_EVERY = 8
"""Iterations between looks at what is left to do, where each holds up the device. On CPUs it is every one."""
FOLDS = 4
"""Times that an inner product is halved before it is summed in double precision, which takes long."""


def descent_bytes(size: float) -> float:
    """Bytes that `conjugate_gradient` holds at once for arrays of `size` bytes: x, r, p, N p, b and a product."""
    return 6 * size


def conjugate_gradient(
    normal: Callable[[torch.Tensor], torch.Tensor],
    b: torch.Tensor,
    x: torch.Tensor,
    iterations: int,
    tolerance: float = 1e-6,
    separate: Sequence[int] = (),
) -> torch.Tensor:
    """Solve N x = b for a symmetric positive (semi-)definite N (Hestenes and Stiefel, 1952).

    Where N acts on each index of some dimensions alone, these are systems of their own: each has its steps and its end,
    after which it stays as it is, so its solution does not depend on those that are solved beside it.

    Args:
        normal: applies N to a tensor of b's shape.
        b: right-hand side.
        x: start; not changed.
        iterations: at most this many.
        tolerance: stop when |b - N x| <= tolerance |b|.
        separate: dimensions of b along which N is diagonal; none by default, all of b is then one system.

    Returns:
        The solution, of b's shape.
    """
    alone = {d % b.ndim for d in separate}
    together = [d for d in range(b.ndim) if d not in alone]

    def dot(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return total(u * v, together)

    x = x.clone()
    r = b - normal(x)
    p = r.clone()
    rr = dot(r, r)
    # Below the rounding there is nothing to gain, and a singular N lets it grow; b may be zero.
    rounding = torch.finfo(b.dtype).eps
    stop = torch.maximum(max(tolerance, 8 * rounding) ** 2 * dot(b, b), rounding**2 * rr)
    going = rr > stop
    for i in range(iterations):
        if (b.device.type == "cpu" or i % CHECK_EVERY == CHECK_EVERY - 1) and not going.any():
            break
        np_ = normal(p)
        curvature = dot(p, np_)
        going &= curvature > 0  # else underflow, or a direction that N does not see
        alpha = (rr / curvature).masked_fill_(~going, 0.0).to(x.dtype)
        x.addcmul_(p, alpha)
        r.addcmul_(np_, alpha, value=-1)
        rr, previous = dot(r, r), rr
        p.mul_((rr / previous).masked_fill_(~going, 0.0).to(p.dtype)).add_(r)
        going &= rr > stop
    return x


def total(values: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """The sum over some dimensions, which are kept, in float64; `values` is overwritten.

    Its bits do not depend on the size of the other dimensions, as those of torch's sums do: conjugate gradients amplify
    rounding, a thousandfold within ten iterations.
    """
    if dims:
        longest = max(dims, key=lambda d: values.shape[d])
        for _ in range(FOLDS):
            n = values.shape[longest]
            half = (n + 1) // 2
            values.narrow(longest, 0, n - half).add_(values.narrow(longest, half, n - half))
            values = values.narrow(longest, 0, half)
        return values.sum(dims, keepdim=True, dtype=widest(values.device))
    return values.to(widest(values.device))


def widest(device: torch.device) -> torch.dtype:
    """The type in which sums are exact enough: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64
