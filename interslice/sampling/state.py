"""How far a reconstruction has come, and who keeps it: what makes a long run go on where it stopped.

Between two steps the sampler is its State: every draw of noise is a function of its key, the data steps are
deterministic but for keyed draws, and nothing else is carried from step to step. The start and the fit of the noise
field are functions of the measurement, and are computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass
class State:
    """The sampler between two steps.

    Attributes:
        done: steps that are done, of all draws together.
        draw: the draw under way, from 0; all before it are in `mean` and `squares`.
        step: how many of its steps are done.
        x: x_t of its next step, (X, Y, Z); None before its first.
        memory: what its data steps keep (Step.memory).
        mean, squares: of the draws before, (X, Y, Z): mean, and sum of squared deviations from it, as `welford` gives.
        batch_sizes: those that the memory has decided (interslice.prior.batches), because they change the rounding.
    """

    done: int = 0
    draw: int = 0
    step: int = 0
    x: torch.Tensor | None = None
    memory: dict = field(default_factory=dict)
    mean: torch.Tensor | None = None
    squares: torch.Tensor | None = None
    batch_sizes: dict = field(default_factory=dict)

    def add(self, sample: torch.Tensor) -> None:
        """A draw has ended with `sample` (X, Y, Z), which is not to be used any more; the next one begins."""
        self.mean, self.squares = welford(self.draw, sample, self.mean, self.squares)
        self.draw += 1

    def take(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`mean` and `squares` of all draws, which the state lets go."""
        taken = self.mean, self.squares
        self.mean = self.squares = None
        return taken


class Keeper(Protocol):
    """Keeps the states of reconstructions. The one that writes files is interslice.files.unfinished.Unfinished.

    Attributes:
        resume: whether it gives states back.
    """

    resume: bool

    def begin(self, measurement: object, others: object, total: int, device: torch.device) -> dict | None:
        """A reconstruction in `total` steps begins.

        Args:
            measurement: y, its operator, and whatever else comes from the scan.
            others: everything else that its result is a function of.
            device: where the tensors of a state belong.

        Returns:
            The attributes of the State to go on from; None to begin anew.
        """

    def offer(self, state: dict) -> None:
        """Called after every step with the attributes of the State, which the next step will change."""


def welford(count: int, sample: torch.Tensor, mean: torch.Tensor | None, squares: torch.Tensor | None):
    """Mean, and sum of squared deviations from it, of `count` + 1 samples (Welford, 1962); (sample, None) of one.

    All three may be changed.
    """
    if mean is None:
        return sample, None
    # With d = sample - mean: the mean grows by d / (n + 1), the sum by d (d - d / (n + 1)). All in place.
    difference = sample.sub_(mean)
    mean.add_(difference, alpha=1 / (count + 1))
    product = difference.square_().mul_(count / (count + 1))
    return mean, product if squares is None else squares.add_(product)
