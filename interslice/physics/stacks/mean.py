"""A quick volume of several stacks: the mean of what their slices say of each voxel, and a few conjugate gradients.

    x_0 = A^T y / A^T 1,        then argmin |A x - y|^2 from x_0, stopped early

A^T 1 is how often, and how much, a voxel was measured. Where it was not, x is background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from interslice.physics.stacks.stacked import StackedSlices

ITERATIONS = 5
"""Of conjugate gradients: more of them bring noise up before they bring detail."""
MEASURED = 1e-3
"""A voxel is measured if it counts more than this share of the mean one."""


def mean_of_slices(operator: StackedSlices, y: torch.Tensor, iterations: int = ITERATIONS) -> torch.Tensor:
    """(..., X, Y, Z) of y (..., M)."""
    rows = operator.rows.to(y)
    total = operator.adjoint(y)
    times = operator.adjoint(rows)  # rows are in y as well: both sums are weighted by r^2
    measured = times > MEASURED * times.mean()
    x = torch.where(measured, total / times.clamp_min(1e-12), torch.full_like(total, operator.background))
    return operator.conjugate_gradient(x, y, 0.0, iterations, 1e-4) if iterations else x
