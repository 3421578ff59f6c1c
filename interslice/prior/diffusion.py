"""Variance-preserving diffusion as pure functions of alpha-bar; no draw is hidden in here.

    x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) eps                                  forward process
    x_s = sqrt(ab_s) x0_hat + sqrt(1 - ab_s - sigma^2) eps_hat + sigma noise    one reverse step t -> s, s < t
    sigma_DDIM        = eta sqrt((1 - ab_s) / (1 - ab_t)) sqrt(1 - ab_t / ab_s)  (Song et al., 2021, eq. 16)
    sigma_fixed_share = eta sqrt(1 - ab_s)                    the share of the noise that is drawn anew

`ab` (alpha-bar) are floats; ab = 1 is the clean image. Tensors have any shape. The target step s is always given
explicitly: never "t minus a constant".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from operator import index

import torch

from interslice.usage import UsageError

SigmaRule = Callable[[float, float, float], float]


def sigma_ddim(ab_t: float, ab_s: float, eta: float) -> float:
    """Standard deviation of the fresh noise of DDIM; eta = 1 is ancestral (DDPM) sampling."""
    return eta * math.sqrt((1 - ab_s) / (1 - ab_t)) * math.sqrt(1 - ab_t / ab_s)


def sigma_fixed_share(ab_t: float, ab_s: float, eta: float) -> float:
    """Standard deviation of the fresh noise as a fixed share of x_s's noise; eta = 1 replaces all of it."""
    return eta * math.sqrt(1 - ab_s)


SIGMA_RULES: dict[str, SigmaRule] = {"ddim": sigma_ddim, "fixed_share": sigma_fixed_share}


def predict_x0(x_t: torch.Tensor, eps: torch.Tensor, ab_t: float) -> torch.Tensor:
    """The clean image that a noise prediction implies."""
    return (x_t - math.sqrt(1 - ab_t) * eps) / math.sqrt(ab_t)


def x0_from_v(x_t: torch.Tensor, v: torch.Tensor, ab_t: float) -> torch.Tensor:
    """The clean image that a prediction of v = sqrt(ab_t) eps - sqrt(1 - ab_t) x0 implies."""
    return math.sqrt(ab_t) * x_t - math.sqrt(1 - ab_t) * v


X0_FROM: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "epsilon": predict_x0,
    "v_prediction": x0_from_v,
    "sample": lambda x_t, x0, ab_t: x0,
}
"""What a network may predict, and the clean image that follows from it."""


def predict_eps(x_t: torch.Tensor, x0: torch.Tensor, ab_t: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """The noise that a clean image implies; `out` may be x_t."""
    return torch.sub(x_t, x0, alpha=math.sqrt(ab_t), out=out).div_(math.sqrt(1 - ab_t))


def renoise(
    x0: torch.Tensor, eps: torch.Tensor | None, noise: torch.Tensor, ab_s: float, sigma: float, let_in: float = 0.0
) -> torch.Tensor:
    """x_s from the clean estimate, the noise kept from x_t, and fresh noise of standard deviation `sigma`.

    `eps` may be None where none of it is kept (sigma^2 = 1 - ab_s). Noise of standard deviation `let_in` that x0
    brings with it takes the place of as much fresh noise.
    """
    kept = max(0.0, 1 - ab_s - sigma**2)
    fresh = math.sqrt(max(0.0, sigma**2 - ab_s * let_in**2))
    x_s = torch.add(math.sqrt(ab_s) * x0, noise, alpha=fresh)
    return x_s if eps is None else x_s.add_(eps, alpha=math.sqrt(kept))


def time_steps(num_train_timesteps: int, num_steps: int, start_fraction: float = 1.0) -> list[int]:
    """`num_steps` evenly spaced timesteps from start_fraction * T - 1 downwards; the step after the last is clean.

    For T = 1000, 4 steps and start_fraction 0.4: 399, 299, 199, 99.

    Raises:
        ValueError: start_fraction is outside (0, 1], num_steps is no whole number, or there are more steps than
            timesteps.
    """
    if not isinstance(num_steps, Integral) or not isinstance(start_fraction, Real):
        raise UsageError(
            f"num_steps must be a whole number and start_fraction a number, got {num_steps!r}, {start_fraction!r}"
        )
    if not 0 < start_fraction <= 1:
        raise UsageError(f"start_fraction must lie in (0, 1], got {start_fraction}; 1 starts from pure noise")
    first = round(start_fraction * num_train_timesteps) - 1
    if not 1 <= num_steps <= first + 1:
        raise UsageError(
            f"num_steps must lie between 1 and {first + 1} (start_fraction {start_fraction} of "
            f"{num_train_timesteps} timesteps), got {num_steps}"
        )
    return [round((first + 1) * (num_steps - i) / num_steps) - 1 for i in range(num_steps)]


def check_time_steps(timesteps: Sequence[int], num_train_timesteps: int) -> list[int]:
    """An explicit grid of timesteps: raises ValueError unless it descends strictly within [0, T)."""
    try:
        steps = [index(t) for t in timesteps]
    except TypeError:  # no list, or not of whole numbers
        steps = []
    if not steps or any(a <= b for a, b in zip(steps, steps[1:])) or steps[0] >= num_train_timesteps or steps[-1] < 0:
        raise UsageError(f"timesteps must descend strictly within [0, {num_train_timesteps}), got {timesteps!r}")
    return steps
