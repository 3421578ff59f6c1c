"""Total variation, with least squares or as a constraint, by a primal-dual method, on callables alone.

    argmin_x  1/2 |A x - y|^2 / |A|^2  +  (rho / 2) |x - x0|^2  +  w TV(x)
    TV(x) = sum over voxels of |D x|                       D, the differences of a `Variation` (variation.py)

    p <- (p + s (A xbar - y) / |A|) / (1 + s)              dual of the data term; 1 + s / W with weights
    q <- project(q + s D xbar) onto |q| <= w               dual of TV
    x <- (x - t (A^T p / |A| + D^T q) + t rho x0) / (1 + t rho),       xbar = 2 x - x_old

With weights W of the measurement's values, |A x - y|^2 is sum W (A x - y)^2. They do not change the steps of x and p as
rows of A would, times W^(1/2): rows that count little would be followed slowly.

Where the proximal step of the data term f is closed form, it needs no dual (`minimise_with_proximal_step`):

    argmin_x  f(x) + TV(x)              f: any convex function; of a constraint A x = y, 0 where it holds, else infinite
    q <- project(q + s D xbar) onto |q| <= 1
    x <- prox_tf(x - t D^T q),          prox_tf(z) = argmin_x  f(x) + |x - z|^2 / (2 t);  of a constraint, a projection

(Chambolle and Pock, "A first-order primal-dual algorithm for convex problems", J. Math. Imaging Vis. 2011; for CT:
Sidky, Jorgensen, Pan, Phys. Med. Biol. 2012.) Volumes are (..., X, Y, Z).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from interslice.physics.variation import Variation

BALANCE = 0.03
"""Step sizes t / s = (BALANCE / w)^2: the smaller w, the longer the steps of x. Found by trial, for a range of 2."""

STEP = 0.03
"""t of a constraint with cubic voxels, found by trial on a head, for a range of 2."""

Map = Callable[[torch.Tensor], torch.Tensor]
ProximalStep = Callable[[torch.Tensor, float], torch.Tensor]
"""(z, t) -> argmin_x f(x) + |x - z|^2 / (2 t)."""


def total_variation_bytes(volume: float, measurement: float, guided: bool = False) -> float:
    """Bytes that `minimise_total_variation` holds at once, for a volume and a measurement of so many; x0 not counted.

    x, its average, three of q, three of gain times q, and what makes the next x; p, A of the average, and their sum.
    With a guide, what it takes (`Variation.BYTES`).
    """
    return (12 + Variation.BYTES * guided) * volume + 3 * measurement


def minimise_total_variation(
    forward: Map,
    adjoint: Map,
    norm: float,
    y: torch.Tensor,
    x: torch.Tensor,
    weight: float,
    iterations: int,
    tolerance: float = 1e-4,
    rho: float = 0.0,
    variation: Variation = Variation(),  # noqa: B008  a value
    scale: float = 1.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Solve the problem above.

    Args:
        forward, adjoint, norm: A, A^T and |A|.
        y: the measurement.
        x: start, and x0 of the quadratic term; not changed.
        weight: w, in units of the volume's values.
        iterations: at most this many.
        tolerance: stop when a step changes x by less than this share of |x|.
        rho: weight of the quadratic term, in units of |A|^2.
        variation: whose sum is TV.
        scale: half the range of the values, for which the step sizes are balanced.
        weights: W, positive, of the measurement's shape; all 1 without.
    """
    if not (weight > 0 and norm > 0):
        raise ValueError(f"weight and norm must be positive, got {weight} and {norm}")
    variation = variation.on(x)
    # |K|^2 <= 1 + |D|^2 for K = [A / |A|; D].
    bound = (1 + variation.bound) ** 0.5
    s, t = weight / (bound * BALANCE * scale), BALANCE * scale / (bound * weight)
    x0, x = x, x.clone()
    average = x.clone()
    p, shrink = torch.zeros_like(y), 1 + s if weights is None else 1 + s / weights
    q = x.new_zeros(3, *x.shape)
    for _ in range(iterations):
        p = p.add_(forward(average) - y, alpha=s / norm).div_(shrink)
        q.add_(variation.of(average), alpha=s)
        q.div_((q.square().sum(0).sqrt_() / weight).clamp_min_(1))
        old = x
        x = old - t * (adjoint(p) / norm + variation.adjoint(q))
        if rho:
            x = x.add_(x0, alpha=t * rho).div_(1 + t * rho)
        change = x - old
        average = x + change
        if change.norm() <= tolerance * x.norm():
            break
    return x


def proximal_step_bytes(volume: float, guided: bool = False) -> float:
    """Bytes that `minimise_with_proximal_step` holds at once beside what the step takes, for a volume of so many.

    x, the one before, its average, three of q, and three of gain times q with their sum; or of the differences. With a
    guide, what it takes (`Variation.BYTES`).
    """
    return (11 + Variation.BYTES * guided) * volume


def minimise_with_proximal_step(
    step: ProximalStep,
    x: torch.Tensor,
    iterations: int,
    tolerance: float = 1e-4,
    variation: Variation = Variation(),  # noqa: B008  a value
    scale: float = 1.0,
) -> torch.Tensor:
    """argmin_x f(x) + TV(x); every iterate, and so the result, comes out of the proximal step of f.

    Args:
        step: the proximal step of f; one that ignores t is the projection onto a constraint.
        x: start; not changed.
        iterations: at most this many, from 1.
        tolerance: stop when an iteration changes x by less than this share of |x|.
        variation: whose sum is TV.
        scale: half the range of the values, for which the step size is balanced.
    """
    variation = variation.on(x)
    t = STEP * scale
    s = 1 / (variation.bound * t)
    average = x
    q = x.new_zeros(3, *x.shape)
    for _ in range(iterations):
        q.add_(variation.of(average), alpha=s)
        q.div_(q.square().sum(0).sqrt_().clamp_min_(1))
        old, average = x, None
        x = step(torch.sub(old, variation.adjoint(q), alpha=t), t)
        change = x - old
        if change.norm() <= tolerance * x.norm():
            break
        average = change.add_(x)
    return x
