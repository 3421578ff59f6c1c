"""Bands of interleaved slices: found, evened place by place, and never found where there are none."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interslice.physics.thick.bands import find_bands
from tests.support.helpers import repeatable
from tests.support.scans import head_voxels

SPACING = (2.0, 2.0, 4.0)


def head(seed=0, slices=36):
    """(96, 88, K): thick slices of a head of shells, four fine ones each."""
    return torch.from_numpy(head_voxels((96, 88, 4 * slices), seed).reshape(96, 88, slices, 4).mean(3)) + 20


def bands(shape, packages=2, step=0.05, tilt=0.0, axis=2):
    """Factors of every package, that change linearly by `tilt` across the slices."""
    place = 1 + tilt * torch.linspace(-1, 1, shape[0])[:, None, None]
    package = torch.arange(shape[2]) % packages
    levels = torch.linspace(-0.5, 0.5, packages)[package]
    return torch.exp(step * levels * place)


def odd_even(voxels, clean):
    """Root mean square of the odd-even change of v / clean, on blocks of 12 x 11 voxels, air left out."""
    ratio = (voxels / clean).log()
    alternating = (ratio.diff(dim=2) * (-1.0) ** torch.arange(ratio.shape[2] - 1)).mean(2)
    inside = (clean > 200).float().mean(2) > 0.5
    blocks = (alternating * inside).unflatten(0, (8, 12)).unflatten(2, (8, 11))
    count = inside.float().unflatten(0, (8, 12)).unflatten(2, (8, 11)).sum((1, 3))
    means = (blocks.sum((1, 3)) / count.clamp(min=1))[count > 30]
    return float(means.square().mean().sqrt())


@pytest.mark.parametrize("tilt", [0.0, 0.8])
@pytest.mark.parametrize("step", [0.02, 0.1])
def test_nine_tenths_of_the_bands_go(step, tilt):
    clean = head()
    banded = clean * bands(clean.shape, step=step, tilt=tilt)
    found = find_bands(banded, 2, "auto", SPACING)
    assert found.packages == 2
    assert found.step == pytest.approx(step, rel=0.25)
    # A floor of what the anatomy itself changes from slice to slice.
    assert odd_even(found.evened(banded), clean) < 0.1 * odd_even(banded, clean) + 0.001


@pytest.mark.parametrize("packages", [3, 4])
def test_more_packages(packages):
    clean = head(slices=40)
    banded = clean * bands(clean.shape, packages, 0.1)
    found = find_bands(banded, 2, "auto", SPACING)
    assert found.packages == packages
    error = (found.evened(banded) / clean).log()[clean > 200]
    assert error.std() < 0.15 * (banded / clean).log()[clean > 200].std()


@settings(repeatable, max_examples=12)
@given(levels=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=4), slope=st.floats(-0.03, 0.03))
def test_slices_that_change_steadily_lose_their_bands_exactly(levels, slope):
    """log x_k = a + b k is its neighbours' mean, so that what is seen is the packages' alone."""
    packages, k = len(levels), torch.arange(6 * len(levels) + 1)
    clean = torch.zeros(24, 24, len(k))
    clean[4:20, 4:20] = 500 * torch.exp(slope * k)
    found = find_bands(clean * torch.exp(torch.tensor(levels)[k % packages]), 2, packages, SPACING)
    ratio = found.evened(clean * torch.exp(torch.tensor(levels)[k % packages]))[4:20, 4:20] / clean[4:20, 4:20]
    assert float(ratio.max() / ratio.min()) == pytest.approx(1, abs=1e-4)
    assert found.step == pytest.approx(np.exp(max(levels) - min(levels)) - 1, abs=1e-5)


@settings(repeatable, max_examples=8)
@given(seed=st.integers(0, 1000), axis=st.integers(0, 2))
def test_scans_without_bands_are_left_alone(seed, axis):
    clean = head(seed, 24).movedim(2, axis).contiguous()
    found = find_bands(clean, axis, "auto", tuple(np.roll(SPACING, axis - 2)))
    assert found.packages == 1 and found.evened(clean) is clean


def test_noise_has_no_bands():
    noise = torch.from_numpy(np.random.default_rng(0).normal(100, 20, (40, 40, 30)).astype(np.float32))
    assert find_bands(noise, 2).packages == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_does_not_matter(axis):
    clean = head()
    banded = clean * bands(clean.shape)
    even = find_bands(banded, 2, 2, SPACING).evened(banded)
    turned, spacing = banded.movedim(2, axis).contiguous(), [2.0, 2.0, 2.0]
    spacing[axis] = 4.0
    assert torch.allclose(find_bands(turned, axis, 2, spacing).evened(turned).movedim(axis, 2), even, rtol=1e-4)


def test_the_mean_stays_and_brightness_does_not_matter():
    clean = head()
    banded = clean * bands(clean.shape, step=0.08)
    even = find_bands(banded, 2, 2, SPACING).evened(banded)
    assert float(even.mean()) == pytest.approx(float(banded.mean()), rel=1e-5)
    brighter = find_bands(7 * banded, 2, 2, SPACING).evened(7 * banded)
    assert torch.allclose(brighter, 7 * even, rtol=1e-3)


def test_asked_for_bands_that_are_not_there_change_little():
    clean = head()
    change = (find_bands(clean, 2, 2, SPACING).evened(clean) / clean).log()
    assert float(change[clean > 200].square().mean().sqrt()) < 0.004


def test_few_slices():
    few = head(slices=5)
    assert find_bands(few, 2, "auto").packages == 1
    with pytest.raises(ValueError, match="5 slices are not 3 packages"):
        find_bands(few, 2, 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", range(2, 20))
def test_however_few_slices_there_are_nothing_is_divided_by_their_number(count):
    assert find_bands(head(slices=count), 2, "auto").packages == 1


def test_in_hounsfield_units_a_gain_says_nothing():
    ct = head() - 300
    assert find_bands(ct, 2, "auto").packages == 1
    with pytest.raises(ValueError, match="go down to -280, .*--operator#packages 1"):
        find_bands(ct, 2, 2)


def test_an_empty_scan():
    empty = torch.zeros(20, 20, 12)
    assert find_bands(empty, 2, "auto").packages == 1
    assert torch.equal(find_bands(empty, 2, 2).evened(empty), empty)
