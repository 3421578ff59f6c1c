"""What a measurement operator is: y = A x.

Volumes x are (..., X, Y, Z), usually (B, 1, X, Y, Z); `domain_shape` is (X, Y, Z) and `range_shape` the trailing
shape of a measurement. `adjoint` is exact: <A x, y> = <x, A^T y>. Operators are linear in both directions and
keep no state but their geometry; they live on any device and follow the dtype of their input.

A new physics is one subclass with `forward` and `adjoint`; closed forms, where there are any, override
`pseudo_inverse`, `prox` and `linear_reconstruction`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch

POWER_ITERATIONS = 30
POWER_TOLERANCE = 1e-3


class LinearOperator(ABC):
    """A linear map from volumes to measurements.

    Args:
        domain_shape: (X, Y, Z) of a volume.
        range_shape: trailing shape of a measurement.
    """

    units = "the volume's own"
    """Units of a measurement."""

    slice_axes: tuple[int, ...] = (0, 1, 2)
    """Axes across which a slice shows what the measurement lacks; alternating planes takes these in turn."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """How much a difference between neighbouring voxels counts along each axis: less for voxels that are longer."""

    closed_form = False
    """Whether `pseudo_inverse` and `prox` exist; otherwise conjugate gradients take their place."""

    background = -1.0
    """Value of nothing, which surrounds the volume: no signal, or air."""

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        self.domain_shape, self.range_shape = tuple(domain_shape), tuple(range_shape)

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A x for x of (..., *domain_shape); raises ValueError for another shape."""

    @abstractmethod
    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        """A^T y for y of (..., *range_shape); raises ValueError for another shape."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """A x, differentiable: the gradient is the adjoint."""
        return _Apply.apply(x, self)

    def normal(self, x: torch.Tensor, rho: float = 0.0) -> torch.Tensor:
        """(A^T A + rho I) x."""
        return torch.add(self.adjoint(self.forward(x)), x, alpha=rho)

    @cached_property
    def norm(self) -> float:
        """The largest singular value |A|, by power iteration on A^T A (a lower bound, close from below)."""
        # Most operators average or integrate: their first singular vector is positive, and so is this start.
        x = torch.rand(self.domain_shape, generator=torch.Generator().manual_seed(0))
        before = 0.0
        for _ in range(POWER_ITERATIONS):
            x = self.normal(x / x.norm())
            norm = float(x.norm().sqrt())
            if abs(norm - before) <= POWER_TOLERANCE * norm:
                break
            before = norm
        return norm

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        """A^+ y, the least-squares solution of smallest norm, where a closed form exists."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form pseudo-inverse: use ConjugateGradient")

    def prox(self, x: torch.Tensor, y: torch.Tensor, rho: float) -> torch.Tensor:
        """argmin_z |A z - y|^2 + rho |z - x|^2, where a closed form exists."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form proximal step: use ConjugateGradient")

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """A quick reconstruction to start from; the pseudo-inverse unless a subclass knows better."""
        return self.pseudo_inverse(y)

    def _check(self, tensor: torch.Tensor, shape: tuple[int, ...], space: str) -> None:
        if tuple(tensor.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"{type(self).__name__} expects a {space} of shape (..., {', '.join(map(str, shape))}), "
                f"got {tuple(tensor.shape)}: build the operator for this {space}"
            )


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        ctx.operator = operator
        return operator.forward(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return ctx.operator.adjoint(gradient), None
