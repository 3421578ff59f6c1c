"""Models with exact answers in float64: a dense operator, denoisers of any Gaussian, noise that a test prescribes."""

import math
from functools import lru_cache, partial

import pytest
import torch

from interslice.noise.field import NoiseField
from interslice.physics.linear_operator import LinearOperator
from interslice.prior.diffusion import X0_FROM
from interslice.prior.slices import SlicePrior
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.sampling.step import Step
from tests.support.helpers import alpha_bars, dense, normal

AB = alpha_bars().double()
SHAPE = (2, 3, 4)
SIZE = math.prod(SHAPE)
T, S = 400, 250
"""A reverse step."""
AB_T, AB_S = float(AB[T]), float(AB[S])
EXACT = {"iterations": 300, "tolerance": 1e-13}
"""Conjugate gradients that end with the solution."""
closed_or_not = pytest.mark.parametrize("closed_form", [True, False], ids=["closed form", "conjugate gradients"])
EVERY_RULE = [("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("fixed_share", 0.5), ("fixed_share", 1.0)]


class DenseOperator(LinearOperator):
    """A matrix (M, N) as the physics of a volume, solved by conjugate gradients."""

    def __init__(self, matrix, shape=SHAPE):
        super().__init__(shape, (matrix.shape[0],))
        self.matrix, self.norm = matrix, float(torch.linalg.matrix_norm(matrix, 2))

    def forward(self, x):
        return self.matrix @ x.flatten()

    def adjoint(self, y):
        return (self.matrix.T @ y).reshape(self.domain_shape)


class SolvedOperator(DenseOperator):
    """A matrix (M, N) as the physics of a volume, solved in closed form."""

    def __init__(self, matrix, shape=SHAPE):
        super().__init__(matrix, shape)
        self.filter = lru_cache(partial(regular_inverse, matrix))

    def pseudo_inverse(self, y, x=None, iterations=0, tolerance=0.0):
        x = torch.zeros(self.domain_shape, dtype=y.dtype) if x is None else x
        return x + (torch.linalg.pinv(self.matrix) @ (y - self.forward(x))).reshape(self.domain_shape)

    def prox(self, x, y, rho, iterations=0, tolerance=0.0):
        return x + (self.filter(rho) @ (y - self.forward(x))).reshape(x.shape)


def regular_inverse(matrix, rho):
    """(A^T A + rho)^-1 A^T = A^T (A A^T + rho)^-1."""
    if matrix.shape[0] < matrix.shape[1]:
        return regular_inverse(matrix.T, rho).T
    return torch.linalg.solve(matrix.T @ matrix + rho * torch.eye(matrix.shape[1], dtype=matrix.dtype), matrix.T)


def some_matrix(rows, columns=SIZE, smallest=0.1, seed=0):
    """A matrix with singular values from 2 down to `smallest`."""
    u, _, v = torch.linalg.svd(normal(rows, columns, seed=seed, dtype=torch.float64), full_matrices=False)
    return u @ torch.diag(torch.logspace(math.log10(2.0), math.log10(smallest), len(v), dtype=torch.float64)) @ v


class Gaussian:
    """A prior for slices of any size: N(mean, covariance), and the clean estimate that is its posterior mean.

    Args:
        std: of a pixel.
        reach: of the correlation exp(-distance / reach) between pixels; 0 for none.
        level: the mean is a ramp around it.
    """

    def __init__(self, std=0.3, reach=1.5, level=0.4):
        self.std, self.reach, self.level = std, reach, level

    def mean(self, shape):
        return self.level + 0.2 * torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64)

    def covariance(self, shape):
        size = math.prod(shape)
        if not self.reach:
            return self.std**2 * torch.eye(size, dtype=torch.float64)
        where = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in shape])
        return self.std**2 * torch.exp(-torch.cdist(where, where) / self.reach)

    def x0(self, shape, ab):
        """(B, c) with x0 = B x_t + c for flattened slices: the mean of the clean slice given the noisy one."""
        covariance, mean = self.covariance(shape), self.mean(shape)
        noisy = ab * covariance + (1 - ab) * torch.eye(len(mean), dtype=torch.float64)
        gain = math.sqrt(ab) * torch.linalg.solve(noisy, covariance).T
        return gain, mean - math.sqrt(ab) * gain @ mean

    def spread(self, ab):
        """Variance of a clean pixel given its noisy one, where pixels are independent."""
        return self.std**2 * (1 - ab) / (ab * self.std**2 + 1 - ab)


class Crooked(Gaussian):
    """A denoiser of no Gaussian: its Jacobian is not symmetric, so that it differs from its transpose."""

    def x0(self, shape, ab):
        gain, offset = super().x0(shape, ab)
        return gain + 0.3 * torch.triu(torch.ones_like(gain), 1) / len(gain), offset


class AffineNetwork:
    """The network whose output stands for the clean estimate of a `Gaussian`; notes the size and mode of its calls."""

    def __init__(self, prior, prediction="epsilon", ab=AB):
        self.prior, self.prediction, self.ab, self.calls = prior, prediction, ab, []

    def __call__(self, x, t):
        self.calls.append((len(x), torch.is_grad_enabled()))
        ab = float(self.ab[t[0]])
        gain, offset = (a.to(x.dtype) for a in self.prior.x0(tuple(x.shape[-2:]), ab))
        x0 = (x.flatten(1) @ gain.T + offset).reshape(x.shape)
        eps = (x - math.sqrt(ab) * x0) / math.sqrt(1 - ab)
        return {"epsilon": eps, "v_prediction": math.sqrt(ab) * eps - math.sqrt(1 - ab) * x0, "sample": x0}[
            self.prediction
        ]


assert set(X0_FROM) == {"epsilon", "v_prediction", "sample"}


def volume_matrix(prior, ab, axis, shape=SHAPE):
    """(D, d) of the clean estimate D x + d of a flattened volume whose slices lie across `axis`."""
    image = tuple(n for a, n in enumerate(shape) if a != axis)
    gain, offset = prior.x0(image, ab)

    def slices(x, add):
        stack = x.movedim(axis, 0).flatten(1) @ gain.T + add
        return stack.reshape(shape[axis], *image).movedim(0, axis)

    constant = slices(torch.zeros(shape, dtype=torch.float64), offset).flatten()
    return dense(lambda x: slices(x, 0.0), shape), constant


class PrescribedNoise(NoiseField):
    """Noise that the test gives: step of the key, or (step, purpose) -> volume (X, Y, Z); else zero.

    SHAPE tells the axis of the slices.
    """

    correlated = False

    def __init__(self, volumes):
        self.volumes = volumes

    def _draw(self, z, slice_shape, key, level, slices, device):
        axis = next(a for a in range(3) if slice_shape == SHAPE[:a] + SHAPE[a + 1 :])
        name = (key.step, key.purpose) if key.purpose else key.step
        if name not in self.volumes:
            return torch.zeros(len(slices), *slice_shape, dtype=torch.float64)
        return self.volumes[name].movedim(axis, 0)[slices.start : slices.stop]

    def covariance(self, positions, level=1.0):
        raise NotImplementedError


def exact_sampler(data_step, noises=None, *, prediction="epsilon", ab=AB, **arguments):
    """A sampler in float64 with prescribed noise (key -> volume); by default four steps from pure noise."""
    plain = {"num_steps": 4, "start_fraction": 1.0, "slice_axis": 2, "num_draws": 1, "progress": False}
    prior = SlicePrior(ab, slice_batch_size=3, multiple=1, prediction=prediction, precision="float32")
    return DiffusionInverseInferer(prior, data_step, PrescribedNoise(noises or {}), **(plain | arguments))


def random_volume(seed, shape=SHAPE):
    return normal(*shape, seed=seed, dtype=torch.float64)


def case(rows=7, closed_form=True, **of_matrix):
    """(operator, x0, y): a dense physics, a clean estimate and data of another volume."""
    operator = (SolvedOperator if closed_form else DenseOperator)(some_matrix(rows, **of_matrix))
    return operator, random_volume(1), operator.forward(random_volume(2))


def through_network(network, x_t, axis=2):
    """(x0, the step) of a network that sees slices across `axis`."""
    prior = SlicePrior(AB, 2, 1)
    return prior(network, x_t, T, axis), Step(AB_T, AB_S, pull_back=partial(prior.pull_back, network, x_t, T, axis))


def volume_mean(prior, axis, shape=SHAPE):
    """Mean (N,) of a flattened volume of slices across `axis`."""
    image = tuple(n for a, n in enumerate(shape) if a != axis)
    return prior.mean(image).reshape(image).unsqueeze(axis).expand(shape).flatten()


def volume_covariance(prior, axis, shape=SHAPE):
    """Covariance (N, N) of a flattened volume of independent slices across `axis`."""
    image = tuple(n for a, n in enumerate(shape) if a != axis)
    root = torch.linalg.cholesky(prior.covariance(image))

    def half(x):
        return (x.movedim(axis, 0).flatten(1) @ root.T).reshape(shape[axis], *image).movedim(0, axis)

    matrix = dense(half, shape)
    return matrix @ matrix.T
