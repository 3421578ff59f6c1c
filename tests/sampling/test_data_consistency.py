"""Data consistency: what each variant promises about the data, and how the variants meet."""

import math

import pytest
import torch

from interslice.physics.linear_operator import LinearOperator
from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling.data_consistency import ConjugateGradient, NullSpace, Proximal
from tests.support.helpers import at, normal

SHAPE = (4, 5, 24)


def through_plane(ratio=4.0, profile="box", axis=2):
    shape = [4, 5, 6]
    shape[axis] = 24
    return ThroughPlaneSampling(axis=axis, ratio=ratio, profile=profile).for_grid(shape, (1.0, 1.0, 1.0))


every_operator = pytest.mark.parametrize(
    "operator",
    [through_plane(), through_plane(2.5), through_plane(3.0, "gaussian"), through_plane(4.0, axis=0)],
    ids=["whole", "fractional", "gaussian", "axis0"],
)


def case(operator, dtype=torch.float64):
    truth, x0 = (normal(*operator.domain_shape, seed=seed, dtype=dtype) for seed in (1, 2))
    return x0, operator.forward(truth)


@every_operator
def test_null_space_takes_the_measured_part_from_the_data_and_the_rest_from_the_prior(operator):
    x0, y = case(operator)
    result = NullSpace()(x0.clone(), y, operator, at(1.0))
    assert torch.allclose(operator.forward(result), y, atol=1e-9)

    def unmeasured(x):
        return x - operator.pseudo_inverse(operator.forward(x))

    assert torch.allclose(unmeasured(result), unmeasured(x0), atol=1e-9)


@every_operator
def test_null_space_is_the_nearest_volume_with_the_data(operator):
    x0, y = case(operator)
    result = NullSpace()(x0.clone(), y, operator, at(1.0))
    other = normal(*operator.domain_shape, seed=5, dtype=torch.float64)
    along = other - operator.pseudo_inverse(operator.forward(other))  # changes the volume, not its data
    assert abs(float(((result - x0) * along).sum())) < 1e-9 * float(along.norm() * x0.norm())
    assert torch.allclose(NullSpace()(result.clone(), y, operator, at(1.0)), result, atol=1e-9)


@every_operator
def test_proximal_lies_between_null_space_and_prior(operator):
    x0, y = case(operator)
    exact = NullSpace()(x0.clone(), y, operator, at(1.0))
    assert torch.allclose(Proximal(1e-9)(x0.clone(), y, operator, at(1.0)), exact, atol=1e-6)
    assert torch.allclose(Proximal(1e9)(x0.clone(), y, operator, at(1.0)), x0, atol=1e-6)
    residuals = [
        float((operator.forward(Proximal(rho)(x0.clone(), y, operator, at(1.0))) - y).norm())
        for rho in (0.01, 0.1, 1, 10)
    ]
    assert residuals == sorted(residuals)


@every_operator
@pytest.mark.parametrize("scale_by_noise", [False, True])
@pytest.mark.parametrize("rho", [0.01, 0.5])
def test_conjugate_gradient_is_proximal(operator, rho, scale_by_noise):
    x0, y = case(operator)
    closed = Proximal(rho, scale_by_noise)(x0.clone(), y, operator, at(0.3))
    iterated = ConjugateGradient(rho, 100, 1e-12, scale_by_noise)(x0.clone(), y, operator, at(0.3))
    assert torch.allclose(closed, iterated, atol=1e-8)


def test_agreement_is_kept():
    operator = through_plane()
    x0, _ = case(operator)
    y = operator.forward(x0)
    for step in (NullSpace(), Proximal(0.1), ConjugateGradient(0.1)):
        assert torch.allclose(step(x0.clone(), y, operator, at(1.0)), x0, atol=1e-9)


@pytest.mark.parametrize("kind", [Proximal, ConjugateGradient])
@pytest.mark.parametrize("noise_ratio", [0.01, 1.0, 25.0])
def test_weight_is_in_units_of_the_operator_and_of_the_noise(kind, noise_ratio):
    operator = through_plane()
    assert kind(0.3).weight(operator, at(noise_ratio)) == pytest.approx(0.3 * operator.norm**2)
    assert kind(0.3, scale_by_noise=True).weight(operator, at(noise_ratio)) == pytest.approx(
        0.3 * operator.norm**2 / noise_ratio
    )


def test_scaled_weight_trusts_the_prior_as_its_noise_falls():
    operator = through_plane()
    x0, y = case(operator)
    step = Proximal(0.3, scale_by_noise=True)
    moves = [float((step(x0.clone(), y, operator, at(ratio)) - x0).norm()) for ratio in (10, 1, 0.1)]
    assert moves == sorted(moves, reverse=True)


class Matrix(LinearOperator):
    """A physics without closed forms."""

    def __init__(self, matrix):
        super().__init__(SHAPE, (matrix.shape[0],))
        self.matrix = matrix

    def forward(self, x):
        return self.matrix @ x.flatten()

    def adjoint(self, y):
        return (self.matrix.T @ y).reshape(self.domain_shape)


def test_conjugate_gradient_needs_no_closed_form():
    operator = Matrix(normal(30, math.prod(SHAPE)) / 20)
    x0, y = case(operator, torch.float32)
    step = ConjugateGradient(0.2, iterations=200, tolerance=1e-7)
    result = step(x0.clone(), y, operator, at(1.0))
    gradient = operator.adjoint(operator.forward(result) - y) + step.weight(operator, at(1.0)) * (result - x0)
    assert gradient.norm() < 1e-5 * operator.adjoint(y).norm()
    solved = Proximal(0.2)(x0, y, operator, at(1.0))  # as the operator solves it: by a few iterations more
    assert (solved - result).norm() < 0.01 * result.norm()
    nearest = NullSpace(iterations=200, tolerance=1e-7)(x0.clone(), y, operator, at(1.0))
    matrix = operator.matrix
    expected = x0.flatten() + torch.linalg.pinv(matrix) @ (y - matrix @ x0.flatten())
    assert torch.allclose(nearest.flatten(), expected, atol=1e-3)


@pytest.mark.parametrize("kind", [Proximal, ConjugateGradient])
@pytest.mark.parametrize("rho", [0, -1.0, math.nan])
def test_rho_must_be_positive(kind, rho):
    with pytest.raises(ValueError, match="rho must be a number above 0, got .*; for rho -> 0 use NullSpace"):
        kind(rho)
