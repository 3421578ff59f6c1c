"""Paths of neighbouring slices: together, apart, and in a plane."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.noise.field import IdenticalNoise, IndependentNoise, SlerpNoise
from interslice.noise.markov import OrnsteinUhlenbeckNoise
from interslice.report.trajectory.paths import agreement, distance, in_plane, moves
from interslice.sampling.trajectory import Trajectory
from tests.support.helpers import GaussianDenoiser, alpha_bars, measured, repeatable, sampler

AB = alpha_bars()


def random_paths(seed=0, slices=5, steps=4, pixels=300):
    return np.random.default_rng(seed).normal(size=(slices, steps, pixels))


def sampled(field, kind="x_t"):
    """Paths of the slices of a volume in which every slice has the same law, and noise is all that differs."""
    trajectory = Trajectory({"sagittal": 0.5}, neighbours=8)
    inferer = sampler(field, ab=AB, observer=trajectory, slice_axis=0, num_steps=5, start_fraction=0.6)
    inferer.reconstruct(measured(torch.zeros(16, 24, 8)), GaussianDenoiser(AB, mean=0.0))
    return trajectory.records[0].slabs["sagittal"].paths(kind).numpy()


# -- the law ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["x_t", "x0_hat"])
def test_identical_noise_moves_all_slices_as_one_and_independent_noise_each_for_itself(kind):
    together, apart = sampled(IdenticalNoise(), kind), sampled(IndependentNoise(), kind)
    assert distance(together) == pytest.approx(0, abs=1e-6) and agreement(together) == pytest.approx(1)
    assert abs(agreement(apart)) < 0.05
    # Of independent moves, the squares of the differences are the sums of the squares.
    assert distance(apart) == pytest.approx(np.sqrt(2 * np.square(moves(apart)).mean((0, 2))).mean(), rel=0.03)


def test_correlated_noise_lies_between_and_agreement_is_its_correlation():
    correlated = sampled(OrnsteinUhlenbeckNoise(length=3.0))
    assert agreement(correlated) == pytest.approx(np.exp(-1 / 3), abs=0.05)
    assert distance(sampled(SlerpNoise())) < distance(correlated) < distance(sampled(IndependentNoise()))


# -- numbers ----------------------------------------------------------------------------------------------
def test_what_holds_slices_apart_all_the_time_does_not_count():
    paths, anatomy = random_paths(), 10 * random_paths(1, steps=1)
    assert agreement(paths + anatomy) == pytest.approx(agreement(paths))
    assert distance(paths + anatomy) == pytest.approx(distance(paths))
    np.testing.assert_allclose(np.abs(in_plane(paths + anatomy)[0]), np.abs(in_plane(paths)[0]), atol=1e-9)


def test_distance_is_in_units_of_the_values():
    paths = np.zeros((3, 2, 50))
    paths[1, 1] = 0.4  # moves by -0.2 and 0.2 about its mean
    assert distance(paths) == pytest.approx(0.2)


def test_opposite_moves_disagree():
    path = random_paths(slices=1)
    assert agreement(np.concatenate([path, -path])) == pytest.approx(-1)


STILL = {"still": np.ones((3, 4, 9)), "one slice": random_paths(slices=1), "one step": random_paths(steps=1)}


@pytest.mark.parametrize("paths", STILL.values(), ids=STILL)
def test_what_does_not_move_has_no_agreement(paths):
    assert np.isnan(agreement(paths))


# -- the plane --------------------------------------------------------------------------------------------
@repeatable
@given(seed=st.integers(0, 1000), slices=st.integers(1, 6), steps=st.integers(1, 5), pixels=st.integers(1, 20))
def test_the_plane_never_shows_more_than_there_is(seed, slices, steps, pixels):
    paths = random_paths(seed, slices, steps, pixels)
    points, share = in_plane(paths)
    assert points.shape == (slices, steps, 2)
    m = moves(paths)
    shown, full = (np.square(x[:, None] - x[None]).sum(-1) for x in (points, m / np.sqrt(pixels)))
    assert (shown <= full + 1e-9).all()
    total = np.square(m).sum() / pixels
    if total > 0:
        assert 0 < share <= 1 + 1e-9 and np.square(points).sum() == pytest.approx(share * total)


def test_moves_in_a_plane_keep_their_shape():
    flat = np.random.default_rng(0).normal(size=(3, 6, 2))
    frame = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 2)))[0]
    points, share = in_plane(flat @ frame.T * np.sqrt(40))
    assert share == pytest.approx(1)
    pairs = [x.reshape(-1, 2) for x in (points, moves(flat))]
    np.testing.assert_allclose(*(np.linalg.norm(x[:, None] - x[None], axis=-1) for x in pairs), atol=1e-9)


def test_paths_begin_to_the_left_and_above():
    for seed in range(8):
        start = in_plane(random_paths(seed))[0][:, 0].mean(0)
        assert start[0] <= 0 <= start[1]


def test_nothing_moves_in_the_middle_of_the_plane():
    points, share = in_plane(np.ones((2, 3, 5)))
    assert (points == 0).all() and np.isnan(share)
