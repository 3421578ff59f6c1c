"""What a data step may know of the reverse step t -> s that it is part of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from interslice.noise.counter import Key, Purpose


@dataclass
class Step:
    """One reverse step t -> s of one draw. Most data steps need its `noise_ratio` alone.

    Attributes:
        ab_t, ab_s: alpha-bar before and after the step; ab_s = 1 after the last.
        sigma: standard deviation of the fresh noise in x_s.
        slice_axis: axis across which this step's network sees its slices.
        key: of a data step's own draws (`interslice.noise.keyed_normal`); no other step or draw has it.
        x_t: the noisy volume (X, Y, Z); not to be changed.
        pull_back: v -> J^T v with J = d x0 / d x_t, the gradient through the network.
        noise: draws a volume of N(0, I) noise from the noise field, always the same in one step.
        memory: what a data step keeps for the steps to come; empty at the first step of each draw.
        let_in: to be set by a data step: standard deviation of the measurement noise that it let into x0_hat. The fresh
            noise of x_s is lowered by it, so that x_s has the noise level that the network expects.
    """

    ab_t: float
    ab_s: float = 1.0
    sigma: float = 0.0
    slice_axis: int = 2
    key: Key = Key(0, 0, Purpose.MEASUREMENT)
    x_t: torch.Tensor | None = None
    pull_back: Callable[[torch.Tensor], torch.Tensor] | None = None
    noise: Callable[[], torch.Tensor] | None = None
    memory: dict = field(default_factory=dict)
    let_in: float = 0.0

    @property
    def noise_ratio(self) -> float:
        """(1 - ab_t) / ab_t: the variance of the noise that x0 was estimated from, in x0's units."""
        return (1 - self.ab_t) / self.ab_t
