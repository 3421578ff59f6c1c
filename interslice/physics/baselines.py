"""Reconstructions without a network: what the diffusion has to beat, and what it may start from.

The classes are callables (y, operator) -> x; y is (..., *range_shape) and x (..., *domain_shape), without batch or
channel axes. A `label`, where there is one, is the title in pictures and pages; those with `by_parts` make each part of
a volume, across separable axes of the operator, from what was measured of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from scipy.ndimage import affine_transform

from interslice.files.memory import array_bytes
from interslice.files.values import number, whole_number
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.noise_level import FULL_SCALE, MATTERS
from interslice.physics.thick import ThroughPlane
from interslice.physics.total_variation import (
    minimise_total_variation,
    minimise_with_proximal_step,
    proximal_step_bytes,
    total_variation_bytes,
)
from interslice.usage import UsageError

PER_NOISE = 0.3
"""Weight of total variation over the noise's standard deviation, a share of the volume's maximum: the best in the mean
of several heads and levels of noise (scripts.studies.tune_total_variation, docs/tuning_total_variation.json)."""

PER_VARIANCE = 3.0
"""Weight of total variation over (s / |A|)^2, s the standard deviation of rays that are weighted by their noise, in the
prior's units: within 0.4 dB of the best for 1e3 to 1e6 photons (scripts.studies.ct_noise, docs/ct_noise.json). It goes
with the square, as that of a fixed prior against a likelihood does."""

UNKNOWN_NOISE = 3e-4
"""Weight of total variation where the noise of rays is not known."""

LEAST_WEIGHT = 5e-4
"""Of total variation in the prior's units, where no noise is found: it then only decides what nothing has measured."""


@dataclass
class Interpolation:
    """B-spline interpolation of thick slices.

    Args:
        order: 0 nearest, 1 linear, 3 cubic.
        consistent: make it agree with the measurement: x + A^+ (y - A x).
    """

    order: int
    consistent: bool = False
    label: str = ""
    by_parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if whole_number("order", self.order) > 5:
            raise UsageError(f"order must be a whole number from 0 to 5, got {self.order}")

    def __call__(self, y: torch.Tensor, operator: ThroughPlane) -> torch.Tensor:
        return (interpolate_consistently if self.consistent else interpolate)(y, operator, self.order)


@dataclass
class LinearReconstruction:
    """The operator's own quick reconstruction: least curved for thick slices, FBP or FDK for CT."""

    label: str = ""
    by_parts: ClassVar[bool] = True

    def __call__(self, y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        return operator.linear_reconstruction(y)


@dataclass
class LeastSquares:
    """argmin |A x - y|^2 by conjugate gradients from the linear reconstruction, stopped early.

    Args:
        iterations: at most this many: the fewer, the smoother.
        tolerance: stop when |A^T (A x - y)| <= tolerance |A^T y|.
    """

    iterations: int = 10
    tolerance: float = 1e-3
    label: str = ""

    def __post_init__(self) -> None:
        whole_number("iterations", self.iterations, 1)
        number("tolerance", self.tolerance, 0)

    def __call__(self, y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        return operator.conjugate_gradient(operator.linear_reconstruction(y), y, 0.0, self.iterations, self.tolerance)


@dataclass
class TotalVariation:
    """Least squares with 3-D total variation (interslice.physics.total_variation), from the linear reconstruction.

    With the operator's guide, where it has one.

    Args:
        weight: of total variation, in the prior's units; the data term counts relative to |A|^2. "auto":
            `weight_by_noise`.
        iterations: at most this many.
        tolerance: stop when an iteration changes x by less than this share.

    The last result is kept: a comparison asks for it as a baseline and as the start of every sampler.
    """

    weight: float | str
    iterations: int = 300
    tolerance: float = 1e-5
    label: str = ""
    _last: tuple | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.weight != "auto":
            number("weight", self.weight, above=0, fix="--total_variation_weight sets it")
        whole_number("iterations", self.iterations, 1)
        number("tolerance", self.tolerance, 0)

    def working_bytes(self, operator: LinearOperator) -> float:
        """Bytes at once, with the result that is kept."""
        volume, measurement = array_bytes(operator.domain_shape), array_bytes(operator.range_shape)
        return max(
            operator.starting_bytes(),
            volume + operator.unweighted_bytes() + total_variation_bytes(volume, measurement, operator.guided),
        )

    def kept_bytes(self, operator: LinearOperator) -> float:
        """Of the last result, and what it was made of."""
        return array_bytes(operator.domain_shape) + array_bytes(operator.range_shape)

    def __call__(self, y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        key = (self.weight, self.iterations, self.tolerance, operator)
        if self._last is None or self._last[0] != key or not same(self._last[1], y):
            self._last = (key, y.clone(), self._minimise(y, operator))
        return self._last[2].clone()

    def _minimise(self, y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        start, weight, variation = operator.linear_reconstruction(y), self._weight(y, operator), operator.variation
        operator, y, weights = operator.unweighted(y)
        return minimise_total_variation(
            operator.forward, operator.adjoint, operator.norm, y, start, weight, self.iterations, self.tolerance,
            variation=variation, weights=weights,
        )  # fmt: skip

    def _weight(self, y: torch.Tensor, operator: LinearOperator) -> float:
        return weight_by_noise(y, operator) if self.weight == "auto" else self.weight


def weight_by_noise(y: torch.Tensor, operator: LinearOperator) -> float:
    """Of total variation, for the noise of the measurement y (*range_shape), where the operator knows it."""
    noise = operator.noise_deviation(y) / operator.norm
    return PER_VARIANCE * noise**2 or UNKNOWN_NOISE


@dataclass
class TotalVariationByNoise(TotalVariation):
    """`TotalVariation` that weighs itself by the noise that the operator finds in each measurement.

        w = max(per_noise * standard deviation, LEAST_WEIGHT)

    Args:
        weight: w, in the prior's units; nothing for the rule above.
        per_noise: found for stacks by scripts.studies.tune_stacks.
        iterations, tolerance: of `TotalVariation`.
    """

    weight: float | None = None
    iterations: int = 150
    per_noise: float = 0.35

    def __post_init__(self) -> None:
        number("per_noise", self.per_noise, above=0)
        if self.weight is not None:
            super().__post_init__()
        whole_number("iterations", self.iterations, 1)
        number("tolerance", self.tolerance, 0)

    def _weight(self, y: torch.Tensor, operator: LinearOperator) -> float:
        return self.weight or max(self.per_noise * operator.noise_deviation(y), LEAST_WEIGHT)


@dataclass
class ConsistentTotalVariation(TotalVariation):
    """The volume of least 3-D total variation that has the measurement, or nearly so where it is noisy.

        w = 0      argmin TV(x)  subject to  A x = y
        w > 0      argmin 1/2 |A x - y|^2 + w TV(x)

    for operators whose projection and proximal step are closed form, such as that of thick slices; from the linear
    reconstruction, and with the operator's guide, where it has one. With a Gaussian profile, directions that A hardly
    passes are free, as for the pseudo-inverse.

    Args:
        weight: w, in the prior's units; nothing for PER_NOISE times the noise: 0, exact data, where there is none.
        noise: standard deviation of the measurement's noise, as a share of the volume's maximum; "auto": estimated from
            each measurement, and 0 below MATTERS.
        iterations: at most this many, each consistent.
        tolerance: stop when an iteration changes x by less than this share.
    """

    weight: float | None = None
    noise: float | str = 0.0
    iterations: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.noise != "auto":
            number("measurement_noise", self.noise, 0, below=1, kind="a share of the volume's maximum")
        if self.weight is None and self.noise != "auto":
            self.weight = PER_NOISE * self.noise
        if self.weight is not None:
            number("weight", self.weight, 0, fix="--total_variation_weight sets it, 0 for exact data consistency")
        whole_number("iterations", self.iterations, 1)
        number("tolerance", self.tolerance, 0)

    def working_bytes(self, operator: LinearOperator) -> float:
        """Bytes at once, with the result that is kept."""
        volume = array_bytes(operator.domain_shape)
        iterating = proximal_step_bytes(volume, operator.guided)
        return max(operator.starting_bytes(), 2 * volume + operator.solving_bytes() + iterating)

    def _minimise(self, y: torch.Tensor, operator: LinearOperator) -> torch.Tensor:
        weight = self.weight
        if weight is None:
            noise = operator.noise_deviation(y) / FULL_SCALE
            weight = PER_NOISE * noise if noise > MATTERS else 0.0

        def step(z: torch.Tensor, t: float) -> torch.Tensor:
            return operator.prox(z, y, weight / t) if weight else operator.pseudo_inverse(y, z)

        start = operator.linear_reconstruction(y)
        return minimise_with_proximal_step(step, start, self.iterations, self.tolerance, operator.variation)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, element by element, and in the same place."""
    return a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)


def interpolate(y: torch.Tensor, operator: ThroughPlane, order: int) -> torch.Tensor:
    """B-spline interpolation (order 0 nearest, 1 linear, 3 cubic) of y (..., *range_shape) onto the fine grid.

    Along an axis it is one small matrix, and the two grids differ along the thick axis alone: scipy's own would look at
    64 voxels for each.
    """
    mapping = operator.domain_affine(torch.eye(4, dtype=torch.float64))  # fine voxel -> thick voxel
    x = y
    for axis, (count, length) in enumerate(zip(operator.range_shape, operator.domain_shape)):
        scale, first = float(mapping[axis, axis]), float(mapping[axis, 3])
        if (scale, first, length) != (1, 0, count):
            dim = y.ndim - 3 + axis
            matrix = interpolation_matrix(count, length, scale, first, order).to(y)
            x = torch.matmul(x.movedim(dim, -1), matrix.T).movedim(-1, dim).contiguous()
    return y.clone() if x is y else x


def interpolation_matrix(count: int, length: int, scale: float, first: float, order: int) -> torch.Tensor:
    """(length, count), float64: values at first + scale i of the spline through a 1 among zeros, each in turn."""
    ones = np.eye(count)
    columns = [affine_transform(one, [scale], first, (length,), order=order, mode="nearest") for one in ones]
    return torch.from_numpy(np.stack(columns, axis=1))


def interpolate_consistently(y: torch.Tensor, operator: ThroughPlane, order: int = 3) -> torch.Tensor:
    """Interpolation made to agree with the measurement: x + A^+ (y - A x)."""
    return operator.pseudo_inverse(y, interpolate(y, operator, order))


def smooth(x: torch.Tensor, weight: float) -> torch.Tensor:
    """3-D total-variation denoising of a finished volume (Chambolle, 2004)."""
    from skimage.restoration import denoise_tv_chambolle  # asked for by evaluations that compare noise alone

    return torch.from_numpy(denoise_tv_chambolle(np.asarray(x.cpu()), weight=weight)).to(x)
