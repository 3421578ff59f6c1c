"""Conjugate gradients against direct solutions."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bundle.physics.linear_solvers import conjugate_gradient
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
