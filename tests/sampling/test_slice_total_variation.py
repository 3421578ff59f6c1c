"""DiffusionMBIR: total variation between slices by ADMM, against scipy and closed forms; and what it keeps."""

import pytest
import torch
from scipy.optimize import lsq_linear

from interslice.physics.variation import differences
from interslice.sampling.posterior_steps import SliceTotalVariation
from interslice.sampling.step import Step
from tests.support.gaussian_models import AB_S, AB_T, SHAPE, DenseOperator, case, random_volume, some_matrix
from tests.support.helpers import dense, normal

every_axis = pytest.mark.parametrize("axis", [0, 1, 2])


def best_slices(matrix, y, weight, axis, shape=SHAPE):
    """argmin_z |A z - y|^2 / (2 |A|^2) + w |D z|_1 from its dual, a bounded least-squares problem, by scipy."""
    a = matrix / torch.linalg.matrix_norm(matrix, 2)
    b = matrix.T @ y / torch.linalg.matrix_norm(matrix, 2) ** 2
    rows = dense(lambda x: x.diff(dim=axis), shape)  # as many differences as there are pairs of neighbours
    factor = torch.linalg.cholesky(a.T @ a)
    left = torch.linalg.solve_triangular(factor, rows.T, upper=False)
    right = torch.linalg.solve_triangular(factor, b[:, None], upper=False)[:, 0]
    dual = lsq_linear(left.numpy(), right.numpy(), (-weight, weight), method="bvls", tol=1e-14).x
    return torch.cholesky_solve((b - rows.T @ torch.from_numpy(dual))[:, None], factor)[:, 0].reshape(shape)


@pytest.mark.parametrize(("axis", "penalty"), [(0, 0.1), (1, 0.1), (2, 0.1), (2, 0.3)])
def test_iterated_it_solves_the_convex_problem(axis, penalty):
    operator = DenseOperator(some_matrix(30, smallest=0.5))
    y = operator.forward(random_volume(2)) + 0.1 * normal(30, seed=3, dtype=torch.float64)
    weight = 0.02
    consistency = SliceTotalVariation(weight, penalty, iterations=100, cg_iterations=30, tolerance=1e-10)
    z = consistency(random_volume(1), y, operator, Step(AB_T, slice_axis=axis))
    expected = best_slices(operator.matrix, y, weight, axis)
    assert torch.allclose(z, expected, atol=1e-5)
    steps = expected.diff(dim=axis).abs()
    assert (steps < 1e-6).any() and (steps > 0.1).any()  # some neighbours are made equal, some are not


@every_axis
def test_the_first_and_the_last_slice_are_not_neighbours(axis):
    """A = I and a block of 3 slices at 0, then 5 at 1: each moves by w over its slices; in a ring by twice that."""
    shape = [2, 2, 2]
    shape[axis] = 8
    identity = torch.eye(32, dtype=torch.float64)
    operator = DenseOperator(identity, tuple(shape))
    x = torch.zeros(shape, dtype=torch.float64)
    x.narrow(axis, 3, 5).fill_(1.0)
    weight = 0.3
    consistency = SliceTotalVariation(weight, iterations=200, cg_iterations=30, tolerance=1e-10)
    z = consistency(x.clone(), x.flatten(), operator, Step(AB_T, slice_axis=axis))
    low, high = z.narrow(axis, 0, 3), z.narrow(axis, 3, 5)
    assert torch.allclose(low, torch.full_like(low, weight / 3), atol=1e-6)
    assert torch.allclose(high, torch.full_like(high, 1 - weight / 5), atol=1e-6)


def test_strong_total_variation_makes_all_slices_one_and_their_ends_stay_free_before_that():
    """A rise of slope 1 over n slices: the ends are flattened first, by what w pays for, and the middle stays."""
    shape, weight = (2, 2, 9), 1.0
    operator = DenseOperator(torch.eye(36, dtype=torch.float64), shape)
    x = torch.arange(9.0, dtype=torch.float64).expand(shape).clone()
    consistency = SliceTotalVariation(weight, iterations=400, cg_iterations=36, tolerance=1e-10)
    z = consistency(x.clone(), x.flatten(), operator, Step(AB_T, slice_axis=2))
    expected = x.clone()
    expected[..., 0], expected[..., 1], expected[..., -2], expected[..., -1] = 1.0, 1.0, 7.0, 7.0
    assert torch.allclose(z, expected, atol=1e-5)
    strong = SliceTotalVariation(100.0, penalty=10.0, iterations=300, cg_iterations=36, tolerance=1e-10)
    z = strong(x.clone(), x.flatten(), operator, Step(AB_T, slice_axis=2))
    assert torch.allclose(z, torch.full_like(z, 4.0), atol=1e-5)


def test_its_variables_go_on_from_step_to_step():
    operator, x0, y = case(rows=30)
    settings = {"cg_iterations": 4, "tolerance": 0.0}
    twice = SliceTotalVariation(0.1, iterations=2, **settings)(x0, y, operator, Step(AB_T))
    once, memory = SliceTotalVariation(0.1, iterations=1, **settings), {}
    z = once(x0, y, operator, Step(AB_T, memory=memory))
    assert torch.allclose(once(z, y, operator, Step(AB_S, memory=memory)), twice, atol=1e-12)
    assert not torch.allclose(once(z, y, operator, Step(AB_S)), twice, atol=1e-3)


def test_every_axis_has_its_own_variables():
    operator, x0, y = case(rows=30)
    consistency, memory = SliceTotalVariation(0.1), {}
    for axis in (0, 1, 0, 2):
        consistency(x0, y, operator, Step(AB_T, slice_axis=axis, memory=memory))
    assert len(memory) == 3
    alone = {}
    for _ in range(2):
        consistency(x0, y, operator, Step(AB_T, slice_axis=0, memory=alone))
    (kept,) = alone.values()
    assert any(all(torch.equal(a, b) for a, b in zip(kept, other)) for other in memory.values())


def test_differences_have_no_slope_at_the_far_border():
    x = random_volume(1)
    for axis in range(3):
        (slopes,) = differences(x, (axis - 3,))
        assert torch.equal(slopes.narrow(axis, 0, SHAPE[axis] - 1), x.diff(dim=axis))
        assert not slopes.select(axis, -1).any()
