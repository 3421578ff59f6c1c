"""The null-space step for scans that may be noisy: exact where there is little noise, and weighted by it else.

    x0 + A^T (A A^T + rho)^-1 (y - A x0),    rho = (s / r)^2

s is the standard deviation of the noise in y and r that of the error of x0, so this is Wiener's filter, the posterior
mean of a Gaussian x0. rho -> 0 is the null-space step. r is the same in all steps: what the denoised volume lacks is
detail, at low noise levels too. r = 0.3 was chosen by scripts/studies/tune_noise.py (docs/explanation/presets.md); with
a guide, x0 is nearer, and r = 0.05.
"""

from __future__ import annotations

import torch

from interslice.files.values import number
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.noise_level import FULL_SCALE, MATTERS
from interslice.sampling.data_consistency import NullSpace
from interslice.sampling.step import Step
from interslice.usage import UsageError


class NoiseAware(NullSpace):
    """`NullSpace` that follows noisy data only as far as their noise allows.

    Args:
        noise_level: "auto": estimated from each measurement, and 0 where it is below MATTERS; or the standard deviation
            of the noise as a share of the intensity range (2 in the prior's units); 0 takes the data to be exact.
        error: r, in the prior's units.
        iterations, tolerance: of conjugate gradients, where they are needed.
        matters: share of the intensity range from which noise that was estimated is followed.
    """

    def __init__(self, noise_level: float | str = "auto", error: float = 0.3, iterations: int = 10,
                 tolerance: float = 1e-5, matters: float = MATTERS) -> None:  # fmt: skip
        super().__init__(iterations, tolerance)
        self.noise_level, self.error = noise_level, number("error", error, above=0)
        self.matters = number("matters", matters, 0, below=1)
        if noise_level != "auto":
            try:
                number("noise_level", noise_level, 0, below=1)
            except UsageError:
                raise UsageError(
                    'noise_level must be "auto" or a number from 0, below 1 (a share of the intensity range), got '
                    f"{noise_level!r}"
                ) from None

    def fit(self, y: torch.Tensor, operator: LinearOperator) -> NoiseAware:
        """The same step with the level of the measurement y (*range_shape)."""
        if self.noise_level != "auto":
            return self
        found = operator.noise_deviation(y) / FULL_SCALE
        level = round(found, 5) if found > self.matters else 0.0
        return NoiseAware(level, self.error, self.iterations, self.tolerance)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        level = self.noise_level if self.noise_level != "auto" else self.fit(y, operator).noise_level
        if not level:
            return super().__call__(x0, y, operator, step)
        rho = (FULL_SCALE * level / self.error) ** 2
        return operator.prox(x0, y, rho, self.iterations, self.tolerance)
