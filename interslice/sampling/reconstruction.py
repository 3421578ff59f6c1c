"""What all draws of one reconstruction share, and what is done to its volumes wherever they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from interslice.physics.linear_operator import LinearOperator
from interslice.sampling.state import State
from interslice.sampling.step import Step
from interslice.sampling.subject import Boxes
from interslice.sampling.volume_noise import VolumeNoise
from interslice.sampling.volumes import Volumes


@dataclass
class Reconstruction:
    """What all draws of one reconstruction share.

    Attributes:
        y: the measurement, (*range_shape).
        operator: A.
        network: the prior's.
        noise: the draws, along any axis of the volume.
        data_consistency: step 2, as it fits y.
        volumes: where they lie.
        start: what a warm start begins from, (X, Y, Z); None for the operator's linear reconstruction, which is remade
            for every draw: that saves memory.
        boxes: parts of the volume that the network sees; None for all of it.
        state: how far it has come.
        advance: called after each step, with `state` as the next one will find it.
    """

    y: torch.Tensor
    operator: LinearOperator
    network: Callable
    noise: VolumeNoise
    data_consistency: Callable
    volumes: Volumes
    start: torch.Tensor | None = None
    boxes: Boxes | None = None
    state: State = field(default_factory=State)
    advance: Callable[[], object] = lambda: None

    def room(self) -> tuple[torch.Tensor, ...]:
        """What takes a volume that is made, as the last argument: nothing, unless memory has no room for it."""
        return (self.volumes.empty(self.operator.domain_shape),) if self.volumes.place == "disk" else ()

    def agreeing(self, x0: torch.Tensor, step: Step) -> torch.Tensor:
        """x0 in agreement with the measurement."""

        def agreeing(y: torch.Tensor, operator: LinearOperator, x0: torch.Tensor) -> torch.Tensor:
            return self.data_consistency(x0, y, operator, step)

        alone = getattr(self.data_consistency, "by_parts", False)
        return self.volumes.work(agreeing, self.operator, self.y, x0, alone=alone, out=x0)


def linear_reconstruction(y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
    """The operator's own; across separable axes that of a part is the part of the whole."""
    return operator.linear_reconstruction(y)


linear_reconstruction.by_parts = True
