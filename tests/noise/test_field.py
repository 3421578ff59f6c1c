"""Noise fields as distributions: every slice N(0, I), the stated covariance along the slice axis, keyed draws."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from interslice.noise.counter import Key, Purpose, keyed_normal
from interslice.noise.field import (
    IdenticalNoise,
    IndependentNoise,
    MixedNoise,
    NoiseField,
    PiecewiseSlerpNoise,
    SlerpNoise,
)
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from tests.support.helpers import contributions, repeatable


@dataclass
class At:
    """A field as the sampler meets it at a level of the schedule."""

    field: NoiseField
    level: float = 1.0

    def draw(self, positions, slice_shape, **key):
        return self.field.draw(positions, slice_shape, level=self.level, **key)

    def covariance(self, positions):
        return self.field.covariance(positions, self.level)


CONSTANT = {
    "independent": IndependentNoise(),
    "identical": IdenticalNoise(),
    "slerp": SlerpNoise(),
    "slerp_empirical": SlerpNoise("empirical"),
    "mixed": MixedNoise(0.6),
    "piecewise_anchors": PiecewiseSlerpNoise(anchors=4),
    "piecewise_spacing": PiecewiseSlerpNoise(spacing=2.5),
    "ou": OrnsteinUhlenbeckNoise(3.0),
    "matern": MaternNoise(3.0),
}
SCHEDULED = {
    "mixed": MixedNoise((0.9, 0.2)),
    "piecewise": PiecewiseSlerpNoise(spacing=(8.0, 1.5)),
    "ou": OrnsteinUhlenbeckNoise((8.0, 1.0)),
    "matern": MaternNoise((8.0, 1.0)),
}
FIELDS = {name: At(field) for name, field in CONSTANT.items()} | {
    f"{name}_scheduled": At(field, 0.4) for name, field in SCHEDULED.items()
}
ENDS = {f"{name}_at_{level}": At(field, level) for name, field in SCHEDULED.items() for level in (1.0, 0.9, 0.1, 0.0)}
every_field = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
at_every_level = pytest.mark.parametrize("field", (FIELDS | ENDS).values(), ids=(FIELDS | ENDS).keys())
UNEVEN = [0.0, 0.25, 0.375, 2.0, 9.5, 40.0, 41.25]
"""Places in mm that a field knows exactly; they count to 1/1024 mm."""
AWAY = [1000.5 + z for z in UNEVEN]
stacks = pytest.mark.parametrize("positions", [1, 2, 7, UNEVEN, AWAY], ids=["1", "2", "7", "uneven", "away"])
SHAPE = (64, 60)
PIXELS = SHAPE[0] * SHAPE[1]
few = settings(repeatable, max_examples=10)
DEVIATIONS = 5  # standard errors that an estimate may be off; the seeds are fixed


@at_every_level
@stacks
def test_covariance_is_exactly_as_stated(field, positions):
    """No statistics: the weights of the independent draws, whose number bounds the rank."""
    weights = contributions(field.field, positions, field.level)
    assert torch.allclose(weights @ weights.T, field.covariance(positions), atol=3e-7)
    assert torch.allclose(weights.square().sum(1), torch.ones(len(weights), dtype=torch.float64), atol=3e-7)


@every_field
@pytest.mark.parametrize("positions", [1, 9, AWAY], ids=["1", "9", "away"])
def test_every_slice_is_standard_normal(field, positions):
    for image in field.draw(positions, SHAPE, seed=3, step=5):
        values = image.flatten().double().numpy()
        assert kstest(values, "norm").pvalue > 1e-4
        assert abs(values.mean()) < DEVIATIONS / math.sqrt(PIXELS)
        assert abs(values.var() - 1) < DEVIATIONS * math.sqrt(2 / PIXELS)


@every_field
@pytest.mark.parametrize("positions", [7, AWAY], ids=["7", "away"])
def test_slices_covary_as_stated(field, positions):
    draws = 6
    x = torch.cat([field.draw(positions, SHAPE, seed=1, step=s).flatten(1) for s in range(draws)], 1).double()
    stated = field.covariance(positions)
    standard_error = torch.sqrt((1 + stated**2) / x.shape[1])  # of the product of two unit normals
    assert ((x @ x.T / x.shape[1] - stated).abs() < DEVIATIONS * standard_error).all()


@every_field
@pytest.mark.parametrize("lag", [(0, 1), (1, 0), (1, 1), (2, -3), (0, 7), (9, 0)])
def test_slices_are_white_within_and_across(field, lag):
    x = field.draw(UNEVEN, SHAPE, seed=2, step=0).double()
    shifted = x.roll(lag, dims=(1, 2)).flatten(1)
    correlation = x.flatten(1) @ shifted.T / PIXELS
    assert (correlation.abs() < DEVIATIONS / math.sqrt(PIXELS)).all()


@at_every_level
@stacks
def test_stated_covariance_is_one(field, positions):
    k = field.covariance(positions)
    assert k.dtype == torch.float64
    assert torch.equal(k, k.T)
    assert torch.allclose(k.diagonal(), torch.ones(len(k), dtype=torch.float64))
    assert torch.linalg.eigvalsh(k).min() > -1e-12


@every_field
def test_pixels_do_not_depend_on_the_shape_of_a_slice(field):
    flat = field.draw(UNEVEN, (60,), seed=1, step=2)
    assert torch.equal(field.draw(UNEVEN, (3, 4, 5), seed=1, step=2).flatten(1), flat)  # with channels
    assert torch.equal(field.draw(torch.tensor(UNEVEN), (60,), seed=1, step=2), flat)
    assert torch.equal(field.draw(tuple(UNEVEN), [60], seed=1, step=2), flat)


@every_field
@few
@given(positions=st.integers(1, 12) | st.lists(st.floats(0, 50), min_size=1, max_size=6).map(sorted), data=st.data())
def test_part_of_the_field_is_the_field_of_the_part(field, positions, data):
    count = positions if isinstance(positions, int) else len(positions)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    whole = field.draw(positions, (5, 6), seed=1, step=2)
    part = field.draw(positions, (5, 6), seed=1, step=2, slices=range(start, stop))
    assert part.shape == (stop - start, 5, 6)
    assert torch.equal(part, whole[start:stop])


@every_field
def test_an_empty_part_is_empty(field):
    assert field.draw(4, (5, 6), seed=1, step=2, slices=range(2, 2)).shape == (0, 5, 6)


@every_field
@pytest.mark.parametrize("positions", [0, []])
def test_a_stack_without_slices_is_empty(field, positions):
    assert field.draw(positions, (5, 6), seed=1, step=2).shape == (0, 5, 6)
    assert field.covariance(positions).shape == (0, 0)


@every_field
@few
@given(count=st.integers(1, 12), chunk=st.integers(1, 13))
def test_chunks_do_not_change_the_field(field, count, chunk):
    key = {"seed": 9, "step": 4}
    positions = [0.75 * i for i in range(count)]
    parts = [range(i, min(i + chunk, count)) for i in range(0, count, chunk)]
    joined = torch.cat([field.draw(positions, (3, 7), slices=part, **key) for part in parts])
    assert torch.equal(joined, field.draw(positions, (3, 7), **key))


@every_field
def test_other_keys_give_uncorrelated_fields(field):
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (1, 2), (2**63 - 1, 2**55 - 1), (2**32, 0), (0, 2**32)]
    draws = [field.draw(4, SHAPE, seed=seed, step=step).double() for seed, step in keys]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            correlation = one.flatten(1) @ other.flatten(1).T / PIXELS
            assert (correlation.abs() < DEVIATIONS / math.sqrt(PIXELS)).all()


@every_field
def test_the_key_alone_decides(field):
    once = field.draw(4, (6, 5), seed=11, step=3).clone()
    torch.manual_seed(0)
    np.random.seed(0)
    assert torch.equal(once, field.draw(4, (6, 5), seed=11, step=3))
    assert (once.dtype, once.device.type) == (torch.float32, "cpu")


@every_field
def test_fields_refuse_negative_keys(field):
    with pytest.raises(ValueError, match="negative"):
        field.draw(3, (2, 2), seed=-1, step=0)


# What the covariances are, by hand.


def test_covariances_of_an_even_stack():
    a = np.arange(6) / 5
    cosine = np.cos(np.pi / 2 * (a[:, None] - a[None, :]))
    assert np.allclose(CONSTANT["slerp"].covariance(6), cosine)
    assert np.linalg.matrix_rank(cosine, tol=1e-9) == 2
    assert torch.equal(CONSTANT["independent"].covariance(6), torch.eye(6, dtype=torch.float64))
    assert torch.equal(CONSTANT["identical"].covariance(6), torch.ones(6, 6, dtype=torch.float64))


def test_covariances_in_millimetres():
    z = [0.0, 1.0, 5.0]
    first = {name: field.covariance(z)[0].tolist() for name, field in CONSTANT.items()}
    assert first["mixed"] == pytest.approx([1, 0.6, 0.6])
    assert first["slerp"] == pytest.approx([1, math.cos(math.pi / 10), 0])  # a fifth of the way, the whole of it
    assert first["piecewise_anchors"] == pytest.approx([1, math.cos(0.3 * math.pi), 0])  # 0.6 of the way to anchor 1
    assert first["piecewise_spacing"] == pytest.approx([1, math.cos(0.2 * math.pi), 0])
    assert first["ou"] == pytest.approx([1, math.exp(-1 / 3), math.exp(-5 / 3)])
    a, b = math.sqrt(3) / 3, 5 * math.sqrt(3) / 3
    assert first["matern"] == pytest.approx([1, (1 + a) * math.exp(-a), (1 + b) * math.exp(-b)])


@pytest.mark.parametrize(("level", "length", "share"), [(1.0, 8.0, 0.9), (0.5, math.sqrt(8), 0.55), (0.0, 1.0, 0.2)])
def test_scheduled_parameters_go_from_pure_noise_to_the_clean_image(level, length, share):
    z, key = [0.0, 0.5, 3.0], {"seed": 1, "step": 2}
    for name, constant in (
        ("ou", OrnsteinUhlenbeckNoise(length)),
        ("matern", MaternNoise(length)),
        ("mixed", MixedNoise(share)),
        ("piecewise", PiecewiseSlerpNoise(spacing=8.0**level * 1.5 ** (1 - level))),
    ):
        field = SCHEDULED[name]
        assert torch.allclose(field.covariance(z, level), constant.covariance(z), rtol=1e-12)
        drawn, other_level = field.draw(z, (4, 5), level=level, **key), field.draw(z, (4, 5), level=0.7, **key)
        assert torch.allclose(drawn, constant.draw(z, (4, 5), **key), atol=1e-6)
        assert not torch.allclose(drawn, other_level, atol=1e-3)
        assert torch.equal(constant.draw(z, (4, 5), **key), constant.draw(z, (4, 5), level=0.3, **key))


@pytest.mark.parametrize(
    "make", [OrnsteinUhlenbeckNoise, MaternNoise, MixedNoise, lambda v: PiecewiseSlerpNoise(None, v)]
)
def test_one_number_in_a_list_is_a_number(make):
    """As a command line may give it."""
    assert torch.equal(make([0.5]).covariance(5), make(0.5).covariance(5))


def test_a_field_says_its_settings():
    assert str(SCHEDULED["ou"]) == "OrnsteinUhlenbeckNoise(length=(8.0, 1.0))"
    assert str(CONSTANT["independent"]) == "IndependentNoise()"


# What is particular to each.


def test_slerp_of_three_and_five_slices_by_hand():
    first, last = (keyed_normal((4, 5), Key(7, 2), anchor) for anchor in (0, 1))
    three = SlerpNoise().draw(3, (4, 5), seed=7, step=2)
    assert torch.allclose(three[1], (first + last) / math.sqrt(2), atol=1e-6)
    five = SlerpNoise().draw(5, (4, 5), seed=7, step=2)
    assert torch.allclose(five[1], 0.92387953 * first + 0.38268343 * last, atol=1e-6)  # cos, sin of 22.5 degrees
    assert torch.equal(five, SlerpNoise().draw([3.0 + 0.5 * i for i in range(5)], (4, 5), seed=7, step=2))
    uneven = SlerpNoise().draw([1.0, 2.0, 5.0], (4, 5), seed=7, step=2)
    assert torch.equal(uneven, five[[0, 1, 4]])


def test_slerp_with_the_empirical_angle_by_hand():
    first, last = (keyed_normal((4, 5), Key(7, 2), anchor).double().numpy() for anchor in (0, 1))
    w = np.arccos((first * last).sum() / np.linalg.norm(first) / np.linalg.norm(last))
    assert abs(w - np.pi / 2) > 0.05  # the case tells the two angles apart
    field = SlerpNoise("empirical").draw(5, (4, 5), seed=7, step=2)
    expected = [(np.sin((1 - a) * w) * first + np.sin(a * w) * last) / np.sin(w) for a in np.arange(5) / 4]
    assert np.allclose(field, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("angle", ["orthogonal", "empirical"])
def test_slerp_ends_are_the_anchors(angle):
    field = SlerpNoise(angle).draw(8, SHAPE, seed=4, step=1)
    assert torch.allclose(field[0], keyed_normal(SHAPE, Key(4, 1), 0), atol=1e-6)
    assert torch.allclose(field[-1], keyed_normal(SHAPE, Key(4, 1), 1), atol=1e-6)


@pytest.mark.parametrize("positions", [1, 2, 9, UNEVEN], ids=str)
def test_piecewise_with_two_anchors_is_slerp(positions):
    two = PiecewiseSlerpNoise(anchors=2)
    assert torch.allclose(two.covariance(positions), SlerpNoise().covariance(positions), atol=1e-12)
    key = {"seed": 4, "step": 1}
    assert torch.allclose(two.draw(positions, (5, 6), **key), SlerpNoise().draw(positions, (5, 6), **key), atol=1e-6)


def test_piecewise_passes_through_its_anchors():
    anchors = torch.stack([keyed_normal((4, 5), Key(7, 2), m) for m in range(4)])
    by_number = PiecewiseSlerpNoise(anchors=4).draw(7, (4, 5), seed=7, step=2)
    assert torch.allclose(by_number[::2], anchors, atol=1e-6)
    assert torch.allclose(by_number[3], (anchors[1] + anchors[2]) / math.sqrt(2), atol=1e-6)
    by_distance = PiecewiseSlerpNoise(spacing=2.5).draw([0, 2.5, 3.75, 5, 7.5], (4, 5), seed=7, step=2)
    assert torch.allclose(by_distance[[0, 1, 3, 4]], anchors, atol=1e-6)
    assert torch.allclose(by_distance[2], by_number[3], atol=1e-6)


def test_piecewise_slices_without_a_common_anchor_share_nothing():
    k = PiecewiseSlerpNoise(spacing=10.0).covariance([1.0, 9.0, 11.0, 19.0, 21.0, 39.0])
    assert (k[0] > 0).tolist() == [True, True, True, True, False, False]
    assert k[1, 2] > 0.9 and k[3, 5] == 0


def test_piecewise_in_millimetres_is_the_same_for_a_sub_volume():
    z = [0.7 * i for i in range(100)]
    field = PiecewiseSlerpNoise(spacing=(40.0, 6.0))
    whole = field.draw(z, (5, 6), seed=1, step=2, level=0.5)
    assert torch.equal(field.draw(z[40:60], (5, 6), seed=1, step=2, level=0.5), whole[40:60])
    assert torch.equal(field.draw(z[3::7], (5, 6), seed=1, step=2, level=0.5), whole[3::7])


def test_mixed_goes_from_independent_to_identical():
    for share, limit in ((0.0, IndependentNoise()), (1.0, IdenticalNoise())):
        weights = contributions(MixedNoise(share), 6)
        assert torch.equal(weights @ weights.T, limit.covariance(6))
    same = MixedNoise(1.0).draw(6, SHAPE, seed=1, step=2)
    assert all(torch.equal(image, same[0]) for image in same)


# The keyed draws, and what is refused.


def test_step_and_index_are_no_substitutes():
    assert not torch.equal(keyed_normal((4, 4), Key(0, 1), 2), keyed_normal((4, 4), Key(0, 2), 1))
    assert not torch.equal(keyed_normal((4, 4), Key(1, 2), 0), keyed_normal((4, 4), Key(2, 1), 0))


@pytest.mark.parametrize(
    ("key", "index"),
    [(Key(0, 0), 1), (Key(0, 1), 0), (Key(1, 0), 0), (Key(0, 0), 2**32 - 1), (Key(0, 2**55 - 1), 0), (Key(0, 2**32), 0)]
    + [(Key(0, 0, purpose), 0) for purpose in Purpose if purpose],
)
def test_streams_of_neighbouring_keys_do_not_overlap(key, index):
    one, two = keyed_normal((4000,), Key(0, 0), 0), keyed_normal((4000,), key, index)
    assert len(np.intersect1d(one, two)) < 40  # a stream that begins inside another shares nearly all


@every_field
def test_a_field_for_another_purpose_is_another_of_the_same_law(field):
    fields = [field.draw(4, (50, 60), seed=1, step=2, purpose=purpose).double() for purpose in Purpose]
    for i, one in enumerate(fields):
        for other in fields[:i]:
            correlation = float((one * other).mean())
            assert abs(correlation) < 5 / math.sqrt(3000)  # four slices that may be one
    assert torch.equal(fields[0].float(), field.draw(4, (50, 60), seed=1, step=2))
