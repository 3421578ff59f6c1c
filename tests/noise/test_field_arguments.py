"""What no noise field takes: keys, places, lengths and shares without sense, refused in words."""

import math

import pytest
import torch

from interslice.noise.counter import Key, keyed_normal
from interslice.noise.field import (
    IndependentNoise,
    MixedNoise,
    PiecewiseSlerpNoise,
    SlerpNoise,
)
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from tests.noise.test_field import every_field


@pytest.mark.parametrize(("key", "index"), [(Key(-1, 0), 0), (Key(0, -1), 0), (Key(0, 0), -1)])
def test_negative_keys_are_refused(key, index):
    with pytest.raises(ValueError, match="negative"):
        keyed_normal((2, 2), key, index)


def test_unknown_angle_is_refused():
    with pytest.raises(ValueError, match="orthogonal"):
        SlerpNoise("None")


@every_field
@pytest.mark.parametrize("positions", [[0.0, math.nan], [0.0, math.inf], [0.0, -1.0], [[0.0, 1.0]], 3.5], ids=str)
def test_impossible_positions_are_refused(field, positions):
    for use in (lambda: field.draw(positions, (2, 2), seed=0, step=0), lambda: field.covariance(positions)):
        with pytest.raises(ValueError, match=r"positions must be a list of finite numbers of mm, not negative, got .*"):
            use()


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, [0.2, 1.3], [0.1, 0.2, 0.3], [], "0.5"], ids=str)
def test_impossible_shares_are_refused(share):
    with pytest.raises(ValueError, match=r"share must be a number from 0 to 1, or two"):
        MixedNoise(share)


@pytest.mark.parametrize("anchors", [1, 0, -3, 2.5, "4", True], ids=str)
def test_impossible_numbers_of_anchors_are_refused(anchors):
    with pytest.raises(ValueError, match="anchors must be a whole number from 2, got"):
        PiecewiseSlerpNoise(anchors)


def test_anchors_come_by_number_or_by_distance():
    for arguments in ((), (3, 10.0)):
        with pytest.raises(ValueError, match="give either anchors or spacing"):
            PiecewiseSlerpNoise(*arguments)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, [5.0, 0.0], [1.0, 2.0, 3.0], [], "20"], ids=str)
@pytest.mark.parametrize(
    ("make", "name"),
    [(OrnsteinUhlenbeckNoise, "length"), (MaternNoise, "length"), (lambda v: PiecewiseSlerpNoise(None, v), "spacing")],
    ids=["ou", "matern", "piecewise"],
)
def test_impossible_lengths_are_refused(make, name, value):
    with pytest.raises(
        ValueError, match=rf"{name} must be a number from 0.001 to 1e\+15 mm, or two \(at pure noise, at the clean"
    ):
        make(value)


@every_field
@pytest.mark.parametrize("slices", [range(2, 8), range(-2, 2), range(0, 4, 2)])
def test_slices_that_the_stack_lacks_are_refused(field, slices):
    with pytest.raises(ValueError, match="a range within the 5"):
        field.draw(5, (2, 2), seed=0, step=0, slices=slices)


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_levels_outside_zero_and_one_are_refused(level):
    with pytest.raises(ValueError, match="level must lie"):
        MixedNoise((0.2, 0.9)).draw(5, (2, 2), seed=0, step=0, level=level)


@pytest.mark.parametrize("positions", [-3, None, ["a", "b"], "3"])
def test_what_is_no_list_of_positions_is_refused(positions):
    with pytest.raises(ValueError, match="positions must be a list"):
        IndependentNoise().draw(positions, (2, 2), seed=0, step=0)


def test_anchors_do_not_ask_for_an_order():
    z = torch.tensor([7.0, 0.0, 3.0])
    field = PiecewiseSlerpNoise(anchors=3)
    ordered = field.draw(z.sort().values, (4, 4), seed=0, step=0)
    assert torch.equal(field.draw(z, (4, 4), seed=0, step=0), ordered[[2, 0, 1]])


@pytest.mark.parametrize("key", [(1.5, 0, 0), ("x", 0, 0), (0, -1, 0), (0, 0, None)])
def test_a_key_is_made_of_whole_numbers(key):
    with pytest.raises(ValueError, match="must be a whole number, not negative"):
        keyed_normal((2, 2), Key(*key[:2]), key[2])
