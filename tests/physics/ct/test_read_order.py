"""The order in which views were measured or stored, and views that are there twice, change nothing."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from interslice.physics.baselines import LeastSquares, LinearReconstruction
from interslice.physics.ct.read import read_projections
from tests.physics.ct.test_read import ANGLES, GEOMETRY, GRID, PLAIN, VIEWS, two_boxes, write


@pytest.fixture(scope="module")
def values():
    return two_boxes()


def reconstruct(path, reconstruction=None):
    y = read_projections(path)
    operator = PLAIN.for_measurement(y)
    return (reconstruction or LinearReconstruction())(y.as_tensor()[0], operator).numpy()


def reordered(values, order, turns=None):
    angles = np.array(ANGLES)[order] + 0.0
    if turns is not None:
        angles = angles + 360.0 * np.resize(turns, len(angles))
    return values[order], replace(GEOMETRY, angles=tuple(angles))


@pytest.fixture(scope="module")
def sorted_volume(values, tmp_path_factory):
    return reconstruct(write(tmp_path_factory.mktemp("sorted"), values, grid=asdict(GRID)))


@pytest.mark.parametrize("turns", [None, [0, 1, -2]], ids=["", "whole turns added"])
def test_views_in_another_order_give_the_same_volume(tmp_path, values, sorted_volume, turns):
    order = np.random.default_rng(1).permutation(VIEWS)
    y, geometry = reordered(values, order, turns)
    assert list(geometry.angles) != sorted(geometry.angles)
    x = reconstruct(write(tmp_path, y, geometry, grid=asdict(GRID)))
    np.testing.assert_allclose(x, sorted_volume, atol=2e-6)
    assert sorted_volume.max() > 0.02


def test_the_angles_must_go_with_their_views(tmp_path, values, sorted_volume):
    """The other order alone is another scan: the test above would not pass by chance."""
    order = np.random.default_rng(1).permutation(VIEWS)
    x = reconstruct(write(tmp_path, values[order], GEOMETRY, grid=asdict(GRID)))
    assert np.abs(x - sorted_volume).max() > 0.01


@pytest.mark.parametrize(
    "order",
    [[*range(20), 3], [0, 0, *range(1, 20)], [*range(20), *range(20)], [4, 1, 1, 0, 2, 3, *range(19, 4, -1), 9, 1]],
    ids=["one twice", "the first twice", "all twice", "mixed"],
)  # fmt: skip
def test_views_measured_twice_do_not_count_twice(tmp_path, values, sorted_volume, order):
    """A view and its repetition share the angle that the one stands for."""
    y, geometry = reordered(values, order)
    x = reconstruct(write(tmp_path, y, geometry, grid=asdict(GRID)))
    np.testing.assert_allclose(x, sorted_volume, atol=2e-6)


def test_least_squares_does_not_depend_on_the_order_of_views(tmp_path, values):
    solve = LeastSquares(5)
    order = np.random.default_rng(1).permutation(VIEWS)
    y, geometry = reordered(values, order)
    x = reconstruct(write(tmp_path / "a", y, geometry, grid=asdict(GRID)), solve)
    expected = reconstruct(write(tmp_path / "b", values, grid=asdict(GRID)), solve)
    np.testing.assert_allclose(x, expected, atol=2e-5)  # rounding, which conjugate gradients magnify
