"""Step 2 of the loop: bring the denoised volume x0 into agreement with the measurement y.

    null space     x0 + A^+ (y - A x0)                       DDNM (Wang et al., 2023), the limit rho -> 0
    proximal       argmin_z |A z - y|^2 + rho |z - x0|^2     DiffPIR (Zhu et al., 2023); by a few conjugate gradients
                                                             from x0: DDS (Chung et al., 2024)
    total          argmin_z 1/2 |A z - y|^2 / |A|^2 + rho/2 |z - x0|^2 + w TV(z), by a primal-dual
    variation      method from x0

Each is a callable (x0, y, operator, step) -> x0_hat on volumes (..., X, Y, Z); see step.py. It may reuse x0's memory,
states with `working_bytes(operator)` how many bytes it takes at most, besides x0 and y, and with `by_parts` whether it
takes parts of a volume, across separable axes of the operator, each for itself (volumes.py).
Data steps that need more of the step than its noise level are in posterior_steps.py.
"""

from __future__ import annotations

import copy

import torch

from interslice.files.memory import array_bytes
from interslice.files.switch import is_on
from interslice.files.values import number, whole_number
from interslice.physics.baselines import weight_by_noise
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.total_variation import minimise_total_variation, total_variation_bytes
from interslice.sampling.step import Step


class Unconditional:
    """x0 as it is: samples the prior, whatever was measured."""

    by_parts = True

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        return x0

    def working_bytes(self, operator: LinearOperator) -> float:
        return 0.0


class NullSpace:
    """x0 + A^+ (y - A x0): takes the measured part from y and the rest from the prior. For little noise.

    DDNM (Wang et al., "Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model", ICLR 2023, eq. 13).
    Without a closed form of A^+, conjugate gradients from x0 find the volume nearest to x0 that agrees with the data;
    stopped early, they leave the weakly measured directions to the prior. (The authors' code has closed forms only.)

    Args:
        iterations, tolerance: of the conjugate gradients, where they are needed.
    """

    by_parts = True

    def __init__(self, iterations: int = 10, tolerance: float = 1e-5) -> None:
        self.iterations, self.tolerance = whole_number("iterations", iterations, 1), number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        return operator.pseudo_inverse(y, x0, self.iterations, self.tolerance)

    def working_bytes(self, operator: LinearOperator) -> float:
        return operator.solving_bytes()


class _Weighted:
    """The weight rho of the proximal problem, in units of |A|^2.

    Args:
        rho: weight of the denoised volume against the data; constant, or divided by the noise ratio. "auto": (s / (r
            |A|))^2, with s the standard deviation of the measurement, where the operator knows it, else `unknown`.
        error: r, of the denoised volume, in the prior's units, for "auto".
        scale_by_noise: divide rho by (1 - ab_t) / ab_t, so that the prior's word counts more as its noise falls
            (DiffPIR's rho_t = lambda sigma_n^2 / sigma_t^2, with rho = lambda sigma_n^2).
    """

    unknown = 0.01
    """rho where the noise of a measurement is not known."""

    def __init__(self, rho: float | str, scale_by_noise: bool = False, error: float = 0.1) -> None:
        self.rho = rho if rho == "auto" else number("rho", rho, above=0, fix="for rho -> 0 use NullSpace")
        self.scale_by_noise, self.error = is_on(scale_by_noise, "scale_by_noise"), number("error", error, above=0)

    def weight(self, operator: LinearOperator, step: Step) -> float:
        return self.rho * operator.norm**2 / (step.noise_ratio if self.scale_by_noise else 1.0)

    def fit(self, y: torch.Tensor, operator: LinearOperator) -> _Weighted:
        """The same step with the rho of the measurement y (*range_shape)."""
        if self.rho != "auto":
            return self
        fitted, noise = copy.copy(self), operator.noise_deviation(y) / (self.error * operator.norm)
        fitted.rho = noise**2 or self.unknown
        return fitted


class Proximal(_Weighted):
    """The proximal step: as the operator solves it, or by a given number of conjugate gradients from x0.

    A few conjugate gradients are no approximation of the solution but a step of their own (DDS): stopped early, they
    leave the directions that are weakly measured to the prior.

    Args:
        rho, scale_by_noise, error: the weight of the prior.
        iterations: of conjugate gradients; None leaves the solution to the operator, whose closed form has none.
        tolerance: see `interslice.physics.linear_solvers.conjugate_gradient`.
    """

    by_parts = True

    def __init__(self, rho: float | str, scale_by_noise: bool = False, iterations: int | None = None,
                 tolerance: float = 1e-5, error: float = 0.1) -> None:  # fmt: skip
        super().__init__(rho, scale_by_noise, error)
        self.iterations = iterations if iterations is None else whole_number("iterations", iterations, 1)
        self.tolerance = number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        rho = self.fit(y, operator).weight(operator, step)
        if self.iterations is None:
            return operator.prox(x0, y, rho)
        return operator.conjugate_gradient(x0, y, rho, self.iterations, self.tolerance)

    def working_bytes(self, operator: LinearOperator) -> float:
        return operator.solving_bytes() if self.iterations is None else operator.descent_bytes()


def ConjugateGradient(
    rho: float, iterations: int = 5, tolerance: float = 1e-5, scale_by_noise: bool = False
) -> Proximal:
    """The proximal step by a few conjugate gradients, by the name that DDS gives it."""
    return Proximal(rho, scale_by_noise, iterations, tolerance)


class TotalVariationProximal(_Weighted):
    """The proximal step with total variation beside the prior: for noisy data, or for the mean of the draws.

    With the operator's guide, where it has one.

    Args:
        weight: of total variation, in the prior's units; the data term counts relative to |A|^2. "auto": as
            `interslice.physics.baselines.TotalVariation`.
        iterations, tolerance: see `interslice.physics.total_variation.minimise_total_variation`.
    """

    unknown = 0.03

    def __init__(self, rho: float | str, weight: float | str, iterations: int = 60, tolerance: float = 1e-5,
                 scale_by_noise: bool = False, error: float = 0.05) -> None:  # fmt: skip
        super().__init__(rho, scale_by_noise, error)
        fix = "without total variation use Proximal"
        self.tv_weight = weight if weight == "auto" else number("weight", weight, above=0, fix=fix)
        self.iterations, self.tolerance = whole_number("iterations", iterations, 1), number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        rho = self.fit(y, operator).rho / (step.noise_ratio if self.scale_by_noise else 1.0)
        weight = weight_by_noise(y, operator) if self.tv_weight == "auto" else self.tv_weight
        variation = operator.variation
        operator, y, weights = operator.unweighted(y)
        return minimise_total_variation(
            operator.forward, operator.adjoint, operator.norm, y, x0, weight, self.iterations, self.tolerance,
            rho, variation, weights=weights,
        )  # fmt: skip

    def working_bytes(self, operator: LinearOperator) -> float:
        volume, measurement = array_bytes(operator.domain_shape), array_bytes(operator.range_shape)
        return total_variation_bytes(volume, measurement, operator.guided) + operator.unweighted_bytes()
