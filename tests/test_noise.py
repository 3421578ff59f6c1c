"""Noise fields as distributions: every slice N(0, I), the stated covariance along the slice axis, keyed draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from bundle.noise import IdenticalNoise, IndependentNoise, SlerpNoise, keyed_normal
from tests.helpers import repeatable

FIELDS = {
    "independent": IndependentNoise(),
    "identical": IdenticalNoise(),
    "slerp": SlerpNoise(),
    "slerp_empirical": SlerpNoise("empirical"),
}
every_field = pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS.keys())
SHAPE = (64, 60)
PIXELS = SHAPE[0] * SHAPE[1]
DEVIATIONS = 5  # standard errors that an estimate may be off; the seeds are fixed


@every_field
@pytest.mark.parametrize("num_slices", [1, 2, 9])
def test_every_slice_is_standard_normal(field, num_slices):
    for image in field.draw(num_slices, SHAPE, seed=3, step=5):
        values = image.flatten().double().numpy()
        assert kstest(values, "norm").pvalue > 1e-4
        assert abs(values.mean()) < DEVIATIONS / math.sqrt(PIXELS)
        assert abs(values.var() - 1) < DEVIATIONS * math.sqrt(2 / PIXELS)


@every_field
@pytest.mark.parametrize("num_slices", [1, 2, 7])
def test_slices_covary_as_stated(field, num_slices):
    draws = 6
    x = torch.cat([field.draw(num_slices, SHAPE, seed=1, step=s).flatten(1) for s in range(draws)], 1).double()
    stated = field.covariance(num_slices)
    standard_error = torch.sqrt((1 + stated**2) / x.shape[1])  # of the product of two unit normals
    assert ((x @ x.T / x.shape[1] - stated).abs() < DEVIATIONS * standard_error).all()


@every_field
@pytest.mark.parametrize("lag", [(0, 1), (1, 0), (1, 1), (2, -3), (0, 7), (9, 0)])
def test_slices_are_white_within_and_across(field, lag):
    x = field.draw(5, SHAPE, seed=2, step=0).double()
    shifted = x.roll(lag, dims=(1, 2)).flatten(1)
    correlation = x.flatten(1) @ shifted.T / PIXELS
    assert (correlation.abs() < DEVIATIONS / math.sqrt(PIXELS)).all()


@every_field
def test_stated_covariance_is_one(field):
    k = field.covariance(6)
    assert k.dtype == torch.float64
    assert torch.equal(k, k.T)
    assert torch.allclose(k.diagonal(), torch.ones(6, dtype=torch.float64))
    assert torch.linalg.eigvalsh(k).min() > -1e-12


def test_stated_covariances_differ_as_documented():
    a = np.arange(6) / 5
    cosine = np.cos(np.pi / 2 * (a[:, None] - a[None, :]))
    assert np.allclose(FIELDS["slerp"].covariance(6), cosine)
    assert np.linalg.matrix_rank(cosine, tol=1e-9) == 2
    assert torch.equal(FIELDS["independent"].covariance(6), torch.eye(6, dtype=torch.float64))
    assert torch.equal(FIELDS["identical"].covariance(6), torch.ones(6, 6, dtype=torch.float64))


def test_slerp_of_three_and_five_slices_by_hand():
    first, last = (keyed_normal((4, 5), 7, 2, anchor) for anchor in (0, 1))
    three = SlerpNoise().draw(3, (4, 5), seed=7, step=2)
    assert torch.allclose(three[1], (first + last) / math.sqrt(2), atol=1e-6)
    five = SlerpNoise().draw(5, (4, 5), seed=7, step=2)
    assert torch.allclose(five[1], 0.92387953 * first + 0.38268343 * last, atol=1e-6)  # cos, sin of 22.5 degrees


def test_slerp_with_the_empirical_angle_by_hand():
    first, last = (keyed_normal((4, 5), 7, 2, anchor).double().numpy() for anchor in (0, 1))
    w = np.arccos((first * last).sum() / np.linalg.norm(first) / np.linalg.norm(last))
    assert abs(w - np.pi / 2) > 0.05  # the case tells the two angles apart
    field = SlerpNoise("empirical").draw(5, (4, 5), seed=7, step=2)
    expected = [(np.sin((1 - a) * w) * first + np.sin(a * w) * last) / np.sin(w) for a in np.arange(5) / 4]
    assert np.allclose(field, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("angle", ["orthogonal", "empirical"])
def test_slerp_ends_are_the_anchors(angle):
    field = SlerpNoise(angle).draw(8, SHAPE, seed=4, step=1)
    assert torch.allclose(field[0], keyed_normal(SHAPE, 4, 1, 0), atol=1e-6)
    assert torch.allclose(field[-1], keyed_normal(SHAPE, 4, 1, 1), atol=1e-6)


@every_field
@repeatable
@given(count=st.integers(1, 12), data=st.data())
def test_part_of_the_field_is_the_field_of_the_part(field, count, data):
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    whole = field.draw(count, (5, 6), seed=1, step=2)
    part = field.draw(count, (5, 6), seed=1, step=2, slices=range(start, stop))
    assert part.shape == (stop - start, 5, 6)
    assert torch.equal(part, whole[start:stop])


@every_field
def test_an_empty_part_is_empty(field):
    assert field.draw(4, (5, 6), seed=1, step=2, slices=range(2, 2)).shape == (0, 5, 6)


@every_field
@repeatable
@given(count=st.integers(1, 30), chunk=st.integers(1, 31))
def test_chunks_do_not_change_the_field(field, count, chunk):
    key = {"seed": 9, "step": 4}
    parts = [range(i, min(i + chunk, count)) for i in range(0, count, chunk)]
    joined = torch.cat([field.draw(count, (3, 7), slices=part, **key) for part in parts])
    assert torch.equal(joined, field.draw(count, (3, 7), **key))


@every_field
def test_other_keys_give_uncorrelated_fields(field):
    keys = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (1, 2), (2**63 - 1, 2**63 - 1)]
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


def test_step_and_index_are_no_substitutes():
    assert not torch.equal(keyed_normal((4, 4), 0, 1, 2), keyed_normal((4, 4), 0, 2, 1))
    assert not torch.equal(keyed_normal((4, 4), 1, 2, 0), keyed_normal((4, 4), 2, 1, 0))


@pytest.mark.parametrize("other", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2**63 - 1), (0, 2**63 - 1, 0)])
def test_streams_of_neighbouring_keys_do_not_overlap(other):
    one, two = keyed_normal((4000,), 0, 0, 0), keyed_normal((4000,), *other)
    assert len(np.intersect1d(one, two)) < 40  # a stream that begins inside another shares nearly all


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_keys_are_refused(key):
    with pytest.raises(ValueError, match="negative"):
        keyed_normal((2, 2), *key)


@every_field
def test_fields_refuse_negative_keys(field):
    with pytest.raises(ValueError, match="negative"):
        field.draw(3, (2, 2), seed=-1, step=0)


def test_unknown_angle_is_refused():
    with pytest.raises(ValueError, match="orthogonal"):
        SlerpNoise("None")
