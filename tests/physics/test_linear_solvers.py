"""Conjugate gradients against direct solutions."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.linear_solvers import conjugate_gradient, total
from tests.support.helpers import normal, repeatable


class Counted:
    """A matrix as a callable on tensors of any shape that counts its calls."""

    def __init__(self, matrix):
        self.matrix, self.calls = matrix, 0

    def __call__(self, x):
        self.calls += 1
        return (self.matrix @ x.flatten()).reshape(x.shape)


def positive_definite(size, seed=0, dtype=torch.float64):
    m = normal(size, size, seed=seed, dtype=dtype)
    return m @ m.T / size + 0.1 * torch.eye(size, dtype=dtype)


@repeatable
@given(size=st.integers(1, 30), seed=st.integers(0, 1000))
def test_solves_within_as_many_iterations_as_unknowns(size, seed):
    matrix, b = positive_definite(size, seed), normal(size, seed=seed + 1, dtype=torch.float64)
    x = conjugate_gradient(Counted(matrix), b, torch.zeros_like(b), iterations=2 * size + 2, tolerance=1e-8)
    assert (matrix @ x - b).norm() <= 2e-8 * b.norm()
    exact = conjugate_gradient(Counted(matrix), b, torch.zeros_like(b), iterations=size, tolerance=0)
    assert torch.allclose(exact, torch.linalg.solve(matrix, b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_stops_at_the_tolerance_and_not_before(tolerance):
    matrix, b = Counted(positive_definite(40)), normal(40, seed=1, dtype=torch.float64)
    x = conjugate_gradient(matrix, b, torch.zeros_like(b), 1000, tolerance)
    iterations = matrix.calls - 1
    assert (matrix.matrix @ x - b).norm() <= 1.001 * tolerance * b.norm()
    shorter = conjugate_gradient(matrix, b, torch.zeros_like(b), iterations - 1, tolerance)
    assert (matrix.matrix @ shorter - b).norm() > tolerance * b.norm()


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_applies_the_system_once_an_iteration(iterations):
    matrix, b = Counted(positive_definite(40)), normal(40, seed=1, dtype=torch.float64)
    conjugate_gradient(matrix, b, torch.zeros_like(b), iterations, tolerance=0)
    assert matrix.calls == 1 + iterations


def test_a_solution_stays_and_costs_one_application():
    matrix = Counted(positive_definite(20))
    x = normal(20, seed=1, dtype=torch.float64)
    assert torch.equal(conjugate_gradient(matrix, matrix.matrix @ x, x, 50), x)
    assert matrix.calls == 1


def test_error_in_the_norm_of_the_system_falls_monotonically():
    matrix, b = positive_definite(30), normal(30, seed=1, dtype=torch.float64)
    solution = torch.linalg.solve(matrix, b)
    errors = [conjugate_gradient(Counted(matrix), b, torch.zeros_like(b), n, 0) - solution for n in range(15)]
    energies = [float(e @ matrix @ e) for e in errors]
    assert all(after < before for before, after in pairwise(energies))


def test_volumes_are_one_system_and_the_start_is_kept():
    matrix, b = Counted(positive_definite(24, dtype=torch.float32)), normal(2, 3, 4, seed=1)
    start = normal(2, 3, 4, seed=2)
    before = start.clone()
    x = conjugate_gradient(matrix, b, start, 60)
    assert x.shape == b.shape
    assert torch.allclose(matrix(x), b, atol=1e-5)
    assert torch.equal(start, before)


def test_semi_definite_system_keeps_the_start_outside_of_its_range():
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64))
    start = torch.tensor([0.0, 0.0, 3.0, -4.0], dtype=torch.float64)
    x = conjugate_gradient(Counted(matrix), torch.tensor([2.0, 5.0, 0.0, 0.0], dtype=torch.float64), start, 10)
    assert torch.allclose(x, torch.tensor([1.0, 5.0, 3.0, -4.0], dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_zero_right_hand_side_has_the_solution_zero(scale):
    matrix = Counted(scale * positive_definite(6, dtype=torch.float32))
    x = conjugate_gradient(matrix, torch.zeros(6), torch.ones(6), iterations=200)
    assert torch.allclose(x, torch.zeros(6), atol=1e-5)


# -- systems beside each other ------------------------------------------------------------------------
def beside(sizes, size=8):
    """Matrices of different condition along the last dimension, as one callable, and right-hand sides."""
    matrices = [positive_definite(size, seed) + 3 * seed * torch.eye(size).double() for seed in range(sizes)]
    b = normal(size, sizes, seed=9, dtype=torch.float64) * 10.0 ** torch.arange(sizes)
    return matrices, Counted(torch.block_diag(*matrices)), b


def apply_beside(counted, x):
    return counted(x.T.reshape(-1)).reshape(x.shape[1], -1).T


@pytest.mark.parametrize("tolerance", [0.0, 1e-2, 1e-6])
@pytest.mark.parametrize("iterations", [1, 3, 30])
def test_systems_beside_each_other_are_solved_as_each_alone(tolerance, iterations):
    matrices, counted, b = beside(4)
    b[:, 2] = 0  # and one has nothing to do
    x = conjugate_gradient(
        lambda z: apply_beside(counted, z), b, torch.zeros_like(b), iterations, tolerance, separate=(-1,)
    )
    alone = [Counted(m) for m in matrices]
    for i, matrix in enumerate(alone):
        expected = conjugate_gradient(matrix, b[:, i], torch.zeros_like(b[:, i]), iterations, tolerance)
        torch.testing.assert_close(x[:, i], expected, rtol=1e-10, atol=1e-10)
    assert counted.calls == max(matrix.calls for matrix in alone)  # it ends with the last


def test_who_does_not_look_what_is_left_to_do_finds_the_same(monkeypatch):
    """As on a GPU: what has converged stays as it is, however many iterations follow."""
    _, counted, b = beside(3)
    start = torch.zeros_like(b)

    def solve(separate):
        return conjugate_gradient(lambda z: apply_beside(counted, z), b, start, 60, 1e-4, separate)

    looked = {separate: solve(separate) for separate in ((), (1,))}
    monkeypatch.setattr(torch.Tensor, "any", lambda self: True)
    for separate, expected in looked.items():
        before = counted.calls
        assert torch.equal(solve(separate), expected)
        assert counted.calls - before == 61


def test_a_direction_that_is_not_seen_ends_its_own_system_alone():
    diagonal = torch.tensor([[2.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    b = torch.ones(2, 2, dtype=torch.float64)
    x = conjugate_gradient(lambda z: diagonal * z, b, torch.zeros_like(b), 10, 1e-9, separate=(1,))
    torch.testing.assert_close(x, torch.tensor([[1 / 2, 0.0], [1 / 3, 0.0]], dtype=torch.float64))


@repeatable
@given(shape=st.tuples(*[st.integers(1, 40)] * 3), seed=st.integers(0, 100), data=st.data())
def test_a_sum_does_not_depend_on_what_is_summed_beside_it(shape, seed, data):
    values = normal(*shape, seed=seed).square()
    dims = data.draw(st.sets(st.integers(0, 2)))
    found = total(values.clone(), sorted(dims))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, values.double().sum(sorted(dims), keepdim=True) if dims else values.double(),
                               rtol=1e-6, atol=0)  # fmt: skip
    part = tuple(
        slice(None) if d in dims else slice(data.draw(st.integers(0, n - 1)), None) for d, n in enumerate(shape)
    )
    torch.testing.assert_close(total(values[part].clone(), sorted(dims)), found[part], rtol=1e-14, atol=0)


def test_volumes_in_double_precision_lose_nothing():
    values = normal(33, 7, dtype=torch.float64)
    torch.testing.assert_close(total(values.clone(), [0, 1])[0, 0], values.sum(), rtol=1e-13, atol=1e-13)
