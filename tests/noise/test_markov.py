"""Ornstein-Uhlenbeck and Matern fields: closed forms against high precision, one field for all samplings of a line."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.noise import markov as markov_noise
from interslice.noise.counter import keyed_normals
from interslice.noise.markov import PARTS, SPAN, MaternNoise, OrnsteinUhlenbeckNoise
from tests.support.helpers import contributions, normal, repeatable

KINDS = {"ou": OrnsteinUhlenbeckNoise, "matern": MaternNoise}
both = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
steps = pytest.mark.parametrize("step", [1e-9, 1e-5, 1e-3, 0.1, 0.1443, 0.1444, 0.7, 3.0, 40.0, 1e4])
"""In lengths; between 0.1443 and 0.1444 the transition of Matern changes its formula."""
HALVINGS = 23
DEEPEST = 2 + HALVINGS  # draws on the way to a slice: the two ends of the line, and every middle
KEY = {"seed": 1, "step": 2}
SHAPE = (5, 6)
on_grid = st.integers(0, SPAN * PARTS).map(lambda place: place / PARTS)
lengths = st.floats(-1, 5).map(lambda exponent: 10**exponent)  # mm


def draw(kind, positions, length=20.0, **arguments):
    return kind(length).draw(positions, SHAPE, **(KEY | arguments))


def stationary_covariance(kind, distance):
    """Covariance of the state here and the state `distance` lengths on, from k and its derivatives, in mpmath."""
    d = mpmath.mpf(distance)
    if kind is OrnsteinUhlenbeckNoise:
        return mpmath.matrix([[mpmath.exp(-d)]])
    a = mpmath.sqrt(3) * d
    # For k(a) = (1 + a) exp(-a): k, -k', k' and -k'' in steps of 1 / lambda.
    return mpmath.exp(-a) * mpmath.matrix([[1 + a, a], [-a, 1 - a]])


def units(kind, step):
    """Sizes of the parts of the state for a small step: a derivative is seen through differences over the step."""
    return mpmath.diag([1, 1 / mpmath.mpf(min(step, 1.0))][: kind.state_size])


def precise(matrix):
    return mpmath.matrix(matrix.tolist())


def largest(matrix):
    return max(abs(x) for x in matrix)


# The closed forms.


@both
@steps
def test_transition_follows_from_the_correlation(kind, step):
    """Phi = cov(s(z + h), s(z)) and Q = I - Phi Phi^T, entry by entry to a relative precision."""
    phi, q = kind().transition(step)
    with mpmath.workdps(80):
        exact = stationary_covariance(kind, step)
        rest = mpmath.eye(kind.state_size) - exact * exact.T
        for ours, theirs in ((phi, exact), (q, rest)):
            for i in range(kind.state_size):
                for j in range(kind.state_size):
                    assert abs(ours[i, j].item() - theirs[i, j]) <= 1e-11 * abs(theirs[i, j]) + mpmath.mpf("1e-300")


def test_correlation_and_its_derivatives_are_those_of_the_state():
    a = torch.linspace(0.1, 4, 9, dtype=torch.float64, requires_grad=True)
    k = MaternNoise().correlation(a / math.sqrt(3))  # of a = lambda d
    (slope,) = torch.autograd.grad(k.sum(), a, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), a)
    k, slope = k.detach(), slope.detach()
    for i, distance in enumerate(a.detach().tolist()):
        phi, _ = MaternNoise().transition(distance / math.sqrt(3))
        expected = torch.tensor([[k[i], -slope[i]], [slope[i], -bend[i]]], dtype=torch.float64)
        assert torch.allclose(phi, expected, atol=1e-12)
    d = torch.linspace(0, 4, 9, dtype=torch.float64)
    assert all(OrnsteinUhlenbeckNoise().transition(float(x))[0] == OrnsteinUhlenbeckNoise().correlation(x) for x in d)


@both
@repeatable
@given(a=st.floats(-6, 2), b=st.floats(-6, 2))
def test_two_steps_are_one(kind, a, b):
    a, b = 10**a, 10**b
    phi_a, q_a = kind().transition(a)
    phi_b, q_b = kind().transition(b)
    phi, q = kind().transition(a + b)
    assert torch.allclose(phi_b @ phi_a, phi, rtol=1e-11, atol=1e-13)
    both_steps = phi_b @ q_a @ phi_b.T + q_b
    assert ((both_steps - q).abs() <= 1e-11 * torch.sqrt(q.diagonal()[:, None] * q.diagonal())).all()
    assert torch.allclose(phi @ phi.T + q, torch.eye(len(q), dtype=torch.float64), atol=1e-14)  # stationary


@both
@steps
def test_bridge_is_the_gaussian_conditional(kind, step):
    """Mean and covariance of the middle, given both ends, from the joint covariance of the three states."""
    left, right, root = kind()._bridge(step)
    with mpmath.workdps(120):
        n = kind.state_size
        near, far = stationary_covariance(kind, step), stationary_covariance(kind, 2 * mpmath.mpf(step))
        ends, across = mpmath.eye(2 * n), mpmath.matrix(n, 2 * n)
        ends[n:, :n], ends[:n, n:] = far, far.T
        across[:, :n], across[:, n:] = near, near.T
        weights = across * ends**-1
        remaining = mpmath.eye(n) - weights * across.T
        size = units(kind, step)
        for ours, theirs in ((left, weights[:, :n]), (right, weights[:, n:])):
            assert largest(size**-1 * (precise(ours) - theirs) * size) < 1e-11
        deviations = mpmath.diag([mpmath.sqrt(remaining[i, i]) for i in range(n)]) ** -1
        ours = precise(root) * precise(root).T
        assert largest(deviations * (ours - remaining) * deviations) < 1e-11


# The field is the one that is stated, wherever it is asked for.


@both
@repeatable
@given(positions=st.lists(on_grid, min_size=1, max_size=5), length=lengths)
def test_covariance_is_stated_exactly_at_any_place_and_length(kind, positions, length):
    """All that adds up to a slice has unit variance; from 0.1 mm to 100 m, from one end of the line to the other."""
    weights = contributions(kind(length), positions)
    covariance = weights @ weights.T
    assert torch.allclose(covariance.diagonal(), torch.ones(len(positions), dtype=torch.float64), atol=5e-7)
    assert torch.allclose(covariance, kind(length).covariance(positions), atol=5e-7)


@both
@pytest.mark.parametrize("spacing", [0.0625, 0.5, 10.0])
@pytest.mark.parametrize("length", [0.1, 20.0, 1e5])
def test_covariance_of_neighbours(kind, spacing, length):
    positions = [4090.0 + spacing * i for i in range(9)]  # around the middle of the line
    weights = contributions(kind(length), positions)
    assert torch.allclose(weights @ weights.T, kind(length).covariance(positions), atol=5e-7)
    differences = (weights[1:] - weights[:-1]).square().sum(1)
    stated = 2 * (1 - kind(length).correlation(torch.tensor(spacing / length, dtype=torch.float64)))
    assert torch.allclose(differences, stated.expand(8), atol=5e-7)


@both
@pytest.mark.parametrize("length", [0.1, 20.0, 1e5])
def test_single_precision_is_enough(kind, length, monkeypatch):
    positions = [0.05 * i for i in range(12)] + [0.7 * i for i in range(12)] + [8192.0]
    single = draw(kind, positions, length)
    monkeypatch.setattr(markov_noise, "keyed_normals", lambda *key: keyed_normals(*key).double())
    assert torch.allclose(single, draw(kind, positions, length).float(), atol=3e-6)


@both
def test_given_a_slice_the_two_sides_are_independent(kind):
    """OU has no memory beyond the neighbours: its inverse covariance is tridiagonal. Matern also knows the slope."""
    weights = contributions(kind(10.0), [0.0, 1.0, 2.5, 7.0, 8.0, 20.0])
    precision = torch.linalg.inv(weights @ weights.T)
    beyond = precision.triu(2).abs().max() / precision.abs().max()
    assert (beyond < 1e-5) == (kind is OrnsteinUhlenbeckNoise)


@both
def test_resampled_uneven_and_partial_stacks_see_one_field(kind):
    length = (40.0, 5.0)
    fine = [0.35 * i for i in range(100)]
    whole = draw(kind, fine, length, level=0.6)
    assert torch.equal(draw(kind, fine[40:60], length, level=0.6), whole[40:60])
    assert torch.equal(draw(kind, [14.0 + 0.35 * i for i in range(20)], length, level=0.6), whole[40:60])
    assert torch.equal(draw(kind, [0.7 * i for i in range(50)], length, level=0.6), whole[::2])
    order = [3, 99, 4, 4, 50, 0]
    assert torch.equal(draw(kind, [fine[i] for i in order], length, level=0.6), whole[order])
    assert torch.equal(draw(kind, fine, length, level=0.6, slices=range(40, 60)), whole[40:60])


@both
def test_whole_numbers_are_millimetres(kind):
    assert torch.equal(draw(kind, 7), draw(kind, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert torch.equal(draw(kind, 7)[6:], draw(kind, [6.0]))


@both
def test_positions_count_to_a_part_of_a_millimetre(kind):
    exact = draw(kind, [3.0, 3.0 + 1 / PARTS], length=1.0)
    assert torch.equal(exact, draw(kind, [3.0 + 0.49 / PARTS, 3.0 + 0.51 / PARTS], length=1.0))
    assert not torch.allclose(exact[0], exact[1], atol=1e-4)
    # What is stated is that of the positions as they are given: the rounding moves a slice by 1 / 2048 mm at most.
    positions = [0.0, 0.05, 0.1, 0.7, 2.8, 10.3]
    weights = contributions(kind(1.0), positions)
    error = (weights @ weights.T - kind(1.0).covariance(positions)).abs().max()
    assert error < 1 / PARTS


@both
def test_the_line_ends_at_its_span(kind):
    inside = draw(kind, [0.0, SPAN / 2, SPAN])
    assert torch.isfinite(inside).all()
    with pytest.raises(ValueError, match=r"positions must not exceed 8192 mm, got 8192\.1 mm"):
        draw(kind, [0.0, 8192.1])
    asked_for = draw(kind, [0.0, SPAN / 2, 9000.0], slices=range(2))
    assert torch.equal(asked_for, inside[:2])


@both
def test_every_place_has_a_key_of_its_own(kind, monkeypatch):
    """On a short line that is visited everywhere."""
    monkeypatch.setattr(markov_noise, "SPAN", 8)
    monkeypatch.setattr(markov_noise, "PARTS", 4)
    keys = record_keys(monkeypatch)
    field = draw(kind, [i / 4 for i in range(33)], length=3.0)
    assert sorted(keys) == list(range(33))
    assert torch.equal(field[12:13], draw(kind, [3.0], length=3.0))


# What it costs.


def record_keys(monkeypatch):
    """The index of every draw from now on."""
    keys = []

    def recorded(shape, key, indices, device):
        keys.extend(indices)
        return keyed_normals(shape, key, indices, device)

    monkeypatch.setattr(markov_noise, "keyed_normals", recorded)
    return keys


@both
@repeatable
@given(place=st.integers(0, SPAN * PARTS))
def test_a_slice_takes_at_most_25_draws(kind, place):
    with pytest.MonkeyPatch.context() as monkeypatch:
        keys = record_keys(monkeypatch)
        draw(kind, [place / PARTS])
    assert len(set(keys)) == len(keys) <= DEEPEST


@both
@pytest.mark.parametrize(("spacing", "most"), [(1.0, 1), (0.5, 1), (5.0, 3), (0.05, 7), (0.7, 11)])
def test_neighbours_share_their_way(kind, spacing, most, monkeypatch):
    keys = record_keys(monkeypatch)
    draw(kind, [spacing * i for i in range(60)], length=5.0)
    assert len(set(keys)) == len(keys)  # nothing is drawn twice
    assert len(keys) <= DEEPEST + most * 60


@both
@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_memory_does_not_grow_with_the_number_of_slices(kind, spacing, monkeypatch):
    combine, sizes = markov_noise.combine, []

    def counted(matrices, parts):
        state = combine(matrices, parts)
        sizes.append(len(state))
        return state

    positions = [4000 + spacing * i for i in range(150)]  # across the middle of the line
    at_once = draw(kind, positions, length=5.0)
    monkeypatch.setattr(markov_noise, "combine", counted)
    monkeypatch.setattr(markov_noise, "GROUP", 10 * math.prod(SHAPE))
    assert torch.equal(draw(kind, positions, length=5.0), at_once)
    assert sum(sizes) > 150
    assert max(sizes) <= 10  # middles at once: one for each slice of a group


# Its limits.


@both
def test_a_schedule_of_lengths_has_its_ends(kind):
    scheduled = (40.0, 5.0)
    assert torch.equal(draw(kind, 9, scheduled, level=1.0), draw(kind, 9, 40.0))
    assert torch.equal(draw(kind, 9, scheduled, level=0.0), draw(kind, 9, 5.0))
    assert torch.allclose(draw(kind, 9, scheduled, level=0.5), draw(kind, 9, math.sqrt(200)), atol=1e-6)
    assert torch.equal(draw(kind, 9, [40.0, 5.0], level=0.3), draw(kind, 9, scheduled, level=0.3))


@both
def test_a_long_length_is_one_draw_and_a_short_one_independent_draws(kind):
    positions = [0.0, 1.0, 100.0, 8000.0]
    long, short = draw(kind, positions, 1e15), contributions(kind(1e-3), positions)
    assert torch.allclose(long, long[:1].expand_as(long), atol=1e-5)
    assert torch.allclose(short @ short.T, torch.eye(4, dtype=torch.float64), atol=5e-7)


def test_matern_is_smoother_between_neighbours_and_as_short_beyond():
    distances = torch.tensor([0.01, 0.1, 5.0, 10.0], dtype=torch.float64)
    rough, smooth = (kind().correlation(distances) for kind in KINDS.values())
    assert ((1 - smooth)[:2] < 0.2 * (1 - rough)[:2]).all()
    assert (smooth[2:] < rough[2:]).all()
    positions = [0.5 * i for i in range(40)]
    bend = {name: draw(kind, positions, 10.0).diff(n=2, dim=0).std() for name, kind in KINDS.items()}
    assert bend["matern"] < 0.15 * bend["ou"]


@both
def test_far_slices_and_other_keys_are_independent(kind):
    z = [0.0, 500.0, 8192.0]
    x = torch.cat([kind(20.0).draw(z, (4000,), seed=s, step=t).double() for s, t in ((0, 0), (0, 1), (1, 0))])
    assert ((x @ x.T / 4000 - torch.eye(9)).abs() < 6 / math.sqrt(4000)).all()


def test_combined_states_are_the_matrix_products():
    matrices = (normal(2, 2, seed=1, dtype=torch.float64), torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    states = (normal(5, 2, 3, 4, seed=2), normal(5, 2, 3, 4, seed=3))
    expected = sum(torch.einsum("ij,njhw->nihw", m.float(), s) for m, s in zip(matrices, states))
    assert torch.allclose(markov_noise.combine(matrices, states), expected, atol=1e-6)
