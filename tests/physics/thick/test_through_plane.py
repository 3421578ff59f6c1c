"""The laws of a measurement operator: its matrix, adjoint, norm, pseudo-inverse, proximal step and gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.linear_operator import LinearOperator
from interslice.physics.linear_solvers import conjugate_gradient
from interslice.physics.thick import ThroughPlaneSampling
from interslice.physics.thick.through_plane import slice_weights
from tests.support.helpers import dense, normal, repeatable

TINY = (2, 3, 2)


@st.composite
def operators(draw, profiles=("box", "gaussian")):
    """Any through-plane operator: axis, ratio, profile, gap or overlap, or a thickness of its own."""
    axis, ratio = draw(st.integers(0, 2)), draw(st.floats(1.5, 10))
    pitch = 0.8 * ratio
    shape = list(TINY)
    shape[axis] = draw(st.integers(24, 40))
    width = draw(st.one_of(st.fixed_dictionaries({"gap": st.floats(-0.4 * pitch, 0.5 * pitch)}),
                           st.fixed_dictionaries({"thickness": st.floats(0.5 * pitch, 1.4 * pitch)})))  # fmt: skip
    sampling = ThroughPlaneSampling(axis=axis, ratio=ratio, profile=draw(st.sampled_from(profiles)), **width)
    return sampling.for_grid(tuple(shape), (0.8, 0.8, 0.8))


def small(axis=2, ratio=2.5, profile="box", length=11):
    shape = list(TINY)
    shape[axis] = length
    return ThroughPlaneSampling(axis=axis, ratio=ratio, profile=profile).for_grid(shape, (1.0, 1.0, 1.0))


def pair(operator, dtype=torch.float64):
    return normal(*operator.domain_shape, seed=1, dtype=dtype), normal(*operator.range_shape, seed=2, dtype=dtype)


def test_box_weights_of_a_whole_ratio_by_hand():
    third = 1 / 3
    expected = [[third, third, third, 0, 0, 0, 0], [0, 0, 0, third, third, third, 0]]
    assert torch.allclose(slice_weights(7, 1.0, 2, 3.0, 3.0), torch.tensor(expected, dtype=torch.float64))


def test_box_weights_of_a_fractional_ratio_by_hand():
    expected = [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]  # 2.5 voxels of 2 mm
    assert torch.allclose(slice_weights(5, 2.0, 2, 5.0, 5.0), torch.tensor(expected, dtype=torch.float64))


def test_box_weights_with_a_gap_by_hand():
    expected = [[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.5, 0.5]]
    assert torch.allclose(slice_weights(5, 1.0, 2, 3.0, 2.0), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("profile", ["box", "gaussian"])
@pytest.mark.parametrize(("pitch", "thickness"), [(4.0, 4.0), (3.7, 3.7), (5.0, 3.0), (3.0, 4.5)])
def test_rows_are_means_about_the_centre_of_their_slice(profile, pitch, thickness):
    weights = slice_weights(200, 0.5, 20, pitch, thickness, profile)
    assert weights.dtype == torch.float64
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(20, dtype=torch.float64))
    positions = (torch.arange(200, dtype=torch.float64) + 0.5) * 0.5
    centres = thickness / 2 + torch.arange(20, dtype=torch.float64) * pitch
    inside = slice(4, -4)  # a Gaussian at the edge of the grid is cut
    cut_voxel = 0.5**2 / (8 * thickness)  # the part f of a voxel counts at its centre: f (1 - f) / 2 <= 1 / 8
    assert torch.allclose((weights @ positions)[inside], centres[inside], atol=cut_voxel + 1e-4, rtol=0)


def test_gaussian_has_its_full_width_at_half_maximum():
    weights = slice_weights(2001, 0.01, 1, 20.01, 20.01, "gaussian")[0] / 0.01
    assert torch.allclose(weights[[0, -1]] / weights[1000], torch.full((2,), 0.5, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ratio", [2.0, 2.5])
def test_operator_is_its_matrix_along_the_axis_and_the_adjoint_its_transpose(axis, ratio):
    operator = small(axis, ratio)
    eyes = [torch.eye(n, dtype=torch.float64) for n in TINY]
    eyes[axis] = operator.weights
    matrix = torch.kron(torch.kron(eyes[0], eyes[1]), eyes[2])
    assert torch.allclose(dense(operator.forward, operator.domain_shape), matrix)
    assert torch.allclose(dense(operator.adjoint, operator.range_shape), matrix.T)


@repeatable
@given(operator=operators(), positive=st.booleans())
def test_dot_test(operator, positive):
    x, y = (v.abs() if positive else v for v in pair(operator, torch.float32))
    ax, aty = operator.forward(x), operator.adjoint(y)
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= 1e-6 * float(ax.norm() * y.norm())


@repeatable
@given(operator=operators())
def test_normal_is_adjoint_of_forward_plus_weight(operator):
    x, _ = pair(operator)
    assert torch.allclose(operator.normal(x, 0.3), operator.adjoint(operator.forward(x)) + 0.3 * x)
    assert torch.allclose(operator.normal(x), operator.adjoint(operator.forward(x)))


def test_leading_dimensions_are_batches():
    operator = small(1, 2.5)
    x = normal(3, 1, *operator.domain_shape)
    assert torch.equal(operator.forward(x)[2, 0], operator.forward(x[2, 0]))
    y = normal(3, 1, *operator.range_shape)
    for method in (operator.adjoint, operator.pseudo_inverse, operator.linear_reconstruction):
        assert torch.allclose(method(y)[1, 0], method(y[1, 0]), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ratio", [2.0, 2.5, 3.3])
def test_pseudo_inverse_satisfies_moore_and_penrose(axis, ratio):
    operator = small(axis, ratio)
    a, p = dense(operator.forward, operator.domain_shape), dense(operator.pseudo_inverse, operator.range_shape)
    assert torch.allclose(a @ p @ a, a, atol=1e-10)
    assert torch.allclose(p @ a @ p, p, atol=1e-10)
    assert torch.allclose(a @ p, (a @ p).T, atol=1e-10)
    assert torch.allclose(p @ a, (p @ a).T, atol=1e-10)


@repeatable
@given(operator=operators(), rho=st.floats(1e-3, 10))
def test_prox_is_the_minimiser(operator, rho):
    x, y = pair(operator)
    z = operator.prox(x, y, rho)
    gradient = operator.adjoint(operator.forward(z) - y) + rho * (z - x)
    assert gradient.norm() < 1e-9 * (operator.adjoint(y).norm() + rho * x.norm())
    b = operator.adjoint(y) + rho * x
    iterated = conjugate_gradient(lambda v: operator.normal(v, rho), b, x, 500, 1e-12)
    assert torch.allclose(z, iterated, atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, -1.0])
def test_prox_without_weight_is_refused(rho):
    with pytest.raises(ValueError, match="rho must be positive"):
        small().prox(*pair(small()), rho)


@repeatable
@given(operator=operators())
def test_linear_reconstruction_agrees_with_the_data(operator):
    _, y = pair(operator, torch.float32)
    assert (operator.forward(operator.linear_reconstruction(y)) - y).norm() < 1e-4 * y.norm()


@repeatable
@given(operator=operators(), slope=st.floats(-3, 3))
def test_linear_reconstruction_reproduces_ramps(operator, slope):
    ramp = 1 + slope * torch.arange(operator.domain_shape[operator.axis], dtype=torch.float64) / 10
    x = ramp.reshape([-1 if a == operator.axis else 1 for a in range(3)]).expand(operator.domain_shape)
    if operator.range_shape[operator.axis] > 1:  # two slices make a slope
        assert torch.allclose(operator.linear_reconstruction(operator.forward(x)), x, atol=1e-4)


@pytest.mark.parametrize("profile", ["box", "gaussian"])
def test_linear_reconstruction_is_the_least_curved(profile):
    operator = small(2, 3.5, profile, length=28)
    truth, _ = pair(operator)

    def curvature(x):
        return float(x.diff(n=2, dim=2).square().sum())

    smooth = operator.linear_reconstruction(operator.forward(truth))
    unmeasured = truth - operator.pseudo_inverse(operator.forward(truth))
    for step in (-0.01, 0.01, 1.0):
        assert curvature(smooth) < curvature(smooth + step * unmeasured)


def test_gradient_of_the_operator_is_its_adjoint():
    operator = small(0, 2.5, "gaussian")
    x, y = pair(operator)
    x.requires_grad_()
    (operator(x) * y).sum().backward()
    assert torch.allclose(x.grad, operator.adjoint(y))
    assert torch.equal(operator(x), operator.forward(x))
    assert torch.autograd.gradcheck(operator, normal(*operator.domain_shape, dtype=torch.float64).requires_grad_())


@repeatable
@given(operator=operators())
def test_norm_is_the_largest_singular_value(operator):
    largest = float(torch.linalg.svdvals(dense(operator.forward, operator.domain_shape))[0])
    assert operator.norm == pytest.approx(largest, rel=1e-9)
    iterated = LinearOperator.norm.func(operator)
    assert 0.97 * largest < iterated <= largest * (1 + 1e-5)


class Doubling(LinearOperator):
    """The least a physics must say."""

    def forward(self, x):
        self._check(x, self.domain_shape, "volume")
        return 2 * x

    def adjoint(self, y):
        return 2 * y


def test_a_new_physics_is_two_methods():
    operator = Doubling((2, 3, 4), (2, 3, 4))
    assert operator.norm == pytest.approx(2)
    assert operator.norm is operator.norm  # cached
    x = normal(2, 3, 4)
    assert torch.allclose(operator.normal(x, 1.0), 5 * x)
    assert torch.allclose(operator.pseudo_inverse(x), x / 2) and torch.allclose(
        operator.linear_reconstruction(x), x / 2
    )
    assert torch.allclose(operator.prox(x, x, 1.0), 3 * x / 5)  # argmin |2 z - x|^2 + |z - x|^2


@pytest.mark.parametrize("method", ["forward", "adjoint", "pseudo_inverse", "linear_reconstruction", "__call__"])
def test_other_shapes_are_refused(method):
    with pytest.raises(ValueError, match=r"ThroughPlane expects a (volume|measurement) of shape \(\.\.\., "):
        getattr(small(), method)(torch.zeros(1, 2, 3, 7))


def test_units_and_slice_axes_are_stated():
    assert "mean" in small().units
    for axis, others in enumerate([(1, 2), (0, 2), (0, 1)]):
        assert small(axis).slice_axes == others
