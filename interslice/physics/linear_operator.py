"""What a measurement operator is: y = A x.

Volumes x are (..., X, Y, Z), usually (B, 1, X, Y, Z); `domain_shape` is (X, Y, Z) and `range_shape` the trailing
shape of a measurement. `adjoint` is exact: <A x, y> = <x, A^T y>. Operators are linear in both directions and
keep no state but their geometry; they live on any device and follow the dtype of their input. They are values: metadata
that are copied share them.

    pseudo-inverse   x + A^+ (y - A x)                            the volume with A z = y that is nearest to x
    proximal step    argmin_z |A z - y|^2 + rho |z - x|^2

Both are solved by conjugate gradients from x. A new physics is one subclass with `forward` and `adjoint`; closed forms,
where there are any, override `pseudo_inverse` and `prox`.

**Parts.** Along its `separable_axes` an operator measures each part of the volume alone. With box a part across them,

    A_box x[box] = (A x)[range_box],      A_box^T y[range_box] = (A^T y)[box]

and whatever is solved is solved for each index of these axes by itself: a part has the solution of the whole, cut out.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch

from interslice.files.carried import carried
from interslice.files.memory import array_bytes
from interslice.physics.linear_solvers import conjugate_gradient, descent_bytes
from interslice.physics.variation import Variation

POWER_ITERATIONS = 30
POWER_TOLERANCE = 1e-3


@carried
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

    separable_axes: tuple[int, ...] = ()
    """Axes along which what is measured of a part of the volume depends on that part alone."""

    missing_directions: float = 0.0
    """Share of the directions of a plane, half a turn, of which the scan has nothing: the missing wedge."""

    averaged_axis: int | None = None
    """The axis of the volume along which the scan averages; None for none."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """How much a difference between neighbouring voxels counts along each axis: less for voxels that are longer."""

    block_limits: tuple[float, float, float] = (math.inf, math.inf, math.inf)
    """How many voxels a block of `coarser` may hold along each axis, at most."""

    guide: torch.Tensor | None = None
    """Another volume of the subject on the grid of the operator's volumes, whose edges these share, in a range of 2;
    NaN where it shows nothing (interslice.physics.variation)."""

    background = -1.0
    """Value of nothing, which surrounds the volume: no signal, or air."""

    smaller = "a smaller part of the volume"
    """What makes the volume smaller, in words for who starts a run."""

    misfit_limit = 0.02
    """|A x - y| / |y| of a right result x, without noise, at most (interslice.physics.judge)."""

    misfit_causes = "an operator that is not that of the measurement"
    """What makes it larger, in words."""

    _whole: LinearOperator | None = None
    """Of what an operator is a part."""

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        self.domain_shape, self.range_shape = tuple(domain_shape), tuple(range_shape)

    # -- the map ----------------------------------------------------------------------------------
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
        """The largest singular value |A|. A part has that of its whole: it is what weights are counted in."""
        return self._norm() if self._whole is None else self._whole.norm

    def _norm(self) -> float:
        """By power iteration on A^T A: a lower bound, close from below."""
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

    # -- and back ---------------------------------------------------------------------------------
    def conjugate_gradient(
        self, x: torch.Tensor, y: torch.Tensor, rho: float, iterations: int, tolerance: float
    ) -> torch.Tensor:
        """Steps from x (..., *domain_shape), which is not changed, towards argmin_z |A z - y|^2 + rho |z - x|^2.

        Stopped early, they leave the directions that A hardly sees as they are in x. Every volume of a batch, and in it
        every index of the separable axes, takes its own steps.
        """
        b = self.adjoint(y)
        if rho:
            b = torch.add(b, x, alpha=rho)
        alone = (*range(x.ndim - 3), *(x.ndim - 3 + axis for axis in self.separable_axes))
        return conjugate_gradient(lambda z: self.normal(z, rho), b, x, iterations, tolerance, alone)

    def pseudo_inverse(
        self, y: torch.Tensor, x: torch.Tensor | None = None, iterations: int = 10, tolerance: float = 1e-5
    ) -> torch.Tensor:
        """x + A^+ (y - A x), the least-squares solution nearest to x; A^+ y, that of smallest norm, without x.

        Args:
            y: (..., *range_shape).
            x: (..., *domain_shape), not changed.
            iterations, tolerance: of the conjugate gradients, where there is no closed form.
        """
        if x is None:
            x = y.new_zeros(*y.shape[: y.ndim - len(self.range_shape)], *self.domain_shape)
        return self.conjugate_gradient(x, y, 0.0, iterations, tolerance)

    def prox(
        self, x: torch.Tensor, y: torch.Tensor, rho: float, iterations: int = 10, tolerance: float = 1e-5
    ) -> torch.Tensor:
        """argmin_z |A z - y|^2 + rho |z - x|^2; iterations and tolerance as in `pseudo_inverse`.

        Raises:
            ValueError: rho is not positive.
        """
        check_rho(rho)
        return self.conjugate_gradient(x, y, rho, iterations, tolerance)

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """A quick reconstruction to start from; the pseudo-inverse unless a subclass knows better."""
        return self.pseudo_inverse(y)

    def unweighted(self, y: torch.Tensor) -> tuple[LinearOperator, torch.Tensor, torch.Tensor | None]:
        """(A, y, W) with |self x - y|^2 / |self|^2 = sum W (A x - y)^2 / |A|^2; W None where all values count alike."""
        return self, y, None

    def noise_norm(self, y: torch.Tensor) -> float:
        """|n| of the noise n in y (*range_shape), estimated from y alone; 0 where it is not known how."""
        return 0.0

    def noise_deviation(self, y: torch.Tensor) -> float:
        """Standard deviation of white noise in y (*range_shape), estimated from y alone; 0 where not known how."""
        return 0.0

    # -- what is known of its volumes -------------------------------------------------------------
    def with_guide(self, guide: torch.Tensor | None) -> LinearOperator:
        """The same operator with another guide (*domain_shape), or none; it shares all else.

        Raises:
            ValueError: the guide is of another grid.
        """
        if guide is not None:
            self._check(guide, self.domain_shape, "guide")
        guided = copy.copy(self)
        guided.guide = guide
        return guided

    @property
    def guided(self) -> bool:
        """Whether there is a guide."""
        return self.guide is not None

    @property
    def variation(self) -> Variation:
        """The variation of its volumes, by the size of their voxels and the guide."""
        return Variation(self.gains, self.guide)

    # -- what it takes: bytes beside x and y ------------------------------------------------------
    def working_bytes(self) -> float:
        """Of A and A^T at work: a copy in another order."""
        return array_bytes(self.domain_shape) + array_bytes(self.range_shape)

    def unweighted_bytes(self) -> float:
        """Of A of `unweighted` at work, with y and W, and with what total variation makes of W."""
        return self.working_bytes()

    def kept_bytes(self) -> float:
        """Of the tables that are kept on the device."""
        return 0.0

    def descent_bytes(self) -> float:
        """Of conjugate gradients."""
        return descent_bytes(array_bytes(self.domain_shape)) + array_bytes(self.range_shape) + self.working_bytes()

    def solving_bytes(self) -> float:
        """Of `pseudo_inverse` and `prox`."""
        return self.descent_bytes()

    def starting_bytes(self) -> float:
        """Of `linear_reconstruction`, its result included."""
        return array_bytes(self.domain_shape) + self.solving_bytes()

    # -- where it lies ----------------------------------------------------------------------------
    def domain_affine(self, range_affine: torch.Tensor) -> torch.Tensor:
        """Affine (4, 4) of the volume, float64, given that of the measurement; the same unless a subclass says else."""
        return range_affine.double()

    def voxel_sizes(self, range_affine: torch.Tensor) -> list[float]:
        """Of the volume, mm along each of its axes, given the affine of the measurement."""
        return self.domain_affine(range_affine)[:3, :3].norm(dim=0).tolist()

    def range_affine(self, domain_affine: torch.Tensor) -> torch.Tensor:
        """Affine (4, 4) of the measurement, float64, given that of the volume."""
        return domain_affine.double()

    def on(self, box: tuple[slice, ...]) -> LinearOperator:
        """The same measurement of a part of the volume, cut across `separable_axes`; it shares all that is large.

        Args:
            box: a slice for each axis of the volume.

        Raises:
            ValueError: what is measured of the part depends on the rest of the volume, or the part is empty.
        """
        box = self._part(box)
        part = copy.copy(self)
        part._whole = self._whole or self
        part.domain_shape = tuple(s.stop - s.start for s in box)
        part.guide = None if self.guide is None else self.guide[box]
        part._cut(box)
        return part

    def range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """What belongs in a measurement to a part of the volume: a slice for each of its axes.

        Raises:
            ValueError: as `on`.
        """
        return self._range_box(self._part(box))

    def _part(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """The box with begin and end of each slice. Raises ValueError, see `on`."""
        name = type(self).__name__
        if not self.separable_axes:
            raise ValueError(
                f'{name} cannot be restricted to a part of the volume: set "inferer" to "@sampler", which '
                "takes the whole of it"
            )
        if len(box) != len(self.domain_shape) or any(s.step not in (None, 1) for s in box):
            raise ValueError(f"a part of a volume is one slice without steps for each of its axes, got {box}")
        bounds = [s.indices(n)[:2] for s, n in zip(box, self.domain_shape)]
        for axis, ((begin, end), n) in enumerate(zip(bounds, self.domain_shape)):
            if end <= begin:
                raise ValueError(f"nothing lies in {begin}:{end} of the {n} voxels along axis {axis}")
            if axis not in self.separable_axes and end - begin < n:
                raise ValueError(
                    f"{name} measures the {n} voxels along axis {axis} together, and a part with {begin}:{end} of them "
                    f"cannot be told from the rest: cut it across the axes {self.separable_axes}"
                )
        return tuple(slice(*pair) for pair in bounds)

    def _range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """`range_box` of a box that is checked; for subclasses with separable axes."""
        raise NotImplementedError(f"{type(self).__name__} states separable_axes {self.separable_axes} and no range_box")

    def _cut(self, box: tuple[slice, ...]) -> None:
        """Make a shallow copy with the part's domain_shape the operator of the part; for those subclasses."""
        self.range_shape = tuple(len(range(*s.indices(n))) for s, n in zip(self._range_box(box), self.range_shape))

    def coarser(self, factors: Sequence[int]) -> LinearOperator:
        """The measurement of a volume made of blocks of `factors` (3) voxels, averaged in-plane over these blocks.

        Its guide is averaged alike.

        Raises:
            ValueError: an average of the measurement is none of an averaged volume.
        """
        raise ValueError(
            f'{type(self).__name__} cannot be averaged: set "inferer" to "@sampler", which samples them all'
        )

    def _check(self, tensor: torch.Tensor, shape: tuple[int, ...], space: str) -> None:
        if tuple(tensor.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"{type(self).__name__} expects a {space} of shape (..., {', '.join(map(str, shape))}), "
                f"got {tuple(tensor.shape)}: build the operator for this {space}"
            )


def check_rho(rho: float) -> None:
    """Raise ValueError unless the weight of a proximal step is positive."""
    if not rho > 0:
        raise ValueError(f"rho must be positive, got {rho}; for rho -> 0 use the pseudo-inverse")


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        ctx.operator = operator
        return operator.forward(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return ctx.operator.adjoint(gradient), None
