"""What the other stacks say of one: a volume that is made of them, and what its slices would hold.

    x = the quick volume of the others (mean.py),      P x: what the stack would measure of it where it now lies

P x is compared with the stack's own y where all that a voxel of a slice averages was measured by some of the others
(KNOWN). A stack is never compared with a volume that it has a part in: it would fit as it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from interslice.physics.stacks.mean import mean_of_slices
from interslice.physics.stacks.stack import Stack
from interslice.physics.stacks.stacked import StackedSlices

KNOWN = 0.99
"""Share of what a voxel of a slice averages that must have been measured."""


@dataclass(frozen=True)
class Others:
    """A volume of some stacks.

    Attributes:
        x: (X, Y, Z).
        affine: (4, 4) of it.
        measured: (X, Y, Z), 1 where any of them measured and 0 elsewhere; None for 1 everywhere.
        background: value of nothing.
    """

    x: torch.Tensor
    affine: torch.Tensor
    measured: torch.Tensor | None = None
    background: float = StackedSlices.background

    @classmethod
    def of(cls, operator: StackedSlices, stacks: Sequence[Stack]) -> Others:
        """On the grid of an operator."""
        operator = operator.replaced(stacks)
        measured = operator.adjoint(operator.rows) > 0
        x = mean_of_slices(operator, operator.measurement())
        return cls(x, operator.affine, None if bool(measured.all()) else measured.float(), operator.background)

    def coarser(self, times: int) -> Others:
        """The same on voxels so many times as wide, each the mean of those in it; a rest at the end is left out."""
        times = min(times, min(self.x.shape) // 2)
        if times <= 1:
            return self
        affine = self.affine.clone()
        affine[:3, 3] += (times - 1) / 2 * self.affine[:3, :3].sum(1)
        affine[:3, :3] *= times
        x, measured = (v if v is None else F.avg_pool3d(v[None, None], times)[0, 0] for v in (self.x, self.measured))
        return replace(self, x=x, affine=affine, measured=measured)

    def predicted(self, stack: Stack, volumes: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """P x, and where it is known, (K, I, J) each; of other `volumes` (..., X, Y, Z) P of each, (..., K, I, J)."""
        stack = stack.moved(weights=torch.ones(stack.count), noise=0.0)
        operator = StackedSlices([stack], self.x.shape, self.affine)
        known = operator.rows > 0
        if self.measured is not None:
            known &= operator.forward(self.measured) > KNOWN
        predicted = operator.forward(self.x if volumes is None else volumes)
        return predicted.unflatten(-1, stack.slices.shape), known.reshape(stack.slices.shape)
