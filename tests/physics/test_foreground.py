"""The scale and the box of a subject: neither the field of view nor a thousandth of the voxels moves them."""

import time

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.foreground import foreground_box, foreground_threshold
from interslice.physics.intensity import intensity_range
from interslice.physics.thick import ScalePercentilesd
from interslice.sampling.foreground import ForegroundInferer
from tests.support.helpers import measured, repeatable
from tests.support.scans import ROOT, head_voxels

THICK = ROOT / "sample_data/mri/measured/colin27_t1_5mm.nii.gz"
TOLERANCE = 0.01
"""Of the range: by how much its ends may move."""


@pytest.fixture(scope="module", params=["real", "made"])
def volume(request):
    if request.param == "real":
        return nib.load(THICK).get_fdata(dtype=np.float32)
    return np.pad(head_voxels((48, 44, 40)), 6)


def ends(volume):
    return np.array(intensity_range(torch.from_numpy(np.ascontiguousarray(volume))))


def moved(volume, other):
    """By which part of its range the ends of `volume` differ from those of `other`."""
    lower, upper = ends(volume)
    return np.abs(ends(other) - [lower, upper]).max() / (upper - lower)


def spoiled(volume, value, share=0.001, seed=0):
    """A share of the voxels hold `value`, spread evenly."""
    volume = volume.copy()
    chosen = np.random.default_rng(seed).choice(volume.size, int(share * volume.size), replace=False)
    volume.flat[chosen] = value
    return volume


def rician(shape, sigma, seed=0):
    return np.hypot(*np.random.default_rng(seed).normal(0, sigma, (2, *shape))).astype(np.float32)


@repeatable
@given(exponent=st.floats(3.5, 12), sign=st.sampled_from([-1, 1]), seed=st.integers(0, 99))
def test_a_thousandth_of_the_voxels_has_no_say(exponent, sign, seed):
    volume = np.pad(head_voxels((24, 22, 20)), 6)
    assert moved(volume, spoiled(volume, sign * 10.0**exponent, seed=seed)) < TOLERANCE


@pytest.mark.parametrize("value", [1e9, -1e9, 1e30, 5000.0])
def test_one_voxel_has_no_say(volume, value):
    other = volume.copy()
    other[tuple(n // 2 for n in volume.shape)] = value
    assert moved(volume, other) < TOLERANCE


def test_metal_in_one_place_has_no_say():
    """CT in HU, with a hip's worth of metal in the head, brighter than all bone."""
    volume = np.pad(head_voxels((40, 36, 40)), 8) * 1.5 - 1000
    other = volume.copy()
    side = round((volume.size / 1000) ** (1 / 3))
    other[24 : 24 + side, 24 : 24 + side, 24 : 24 + side] = 30000
    assert moved(volume, other) < TOLERANCE


@pytest.mark.parametrize("air", [(0, 0, 0), (40, 30, 0), (10, 60, 4)])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_a_larger_field_of_view_keeps_the_scale(volume, air, kind):
    lower, upper = ends(volume)
    widths = [(n, n // 2) for n in air]
    padded = np.pad(volume, widths)
    if kind == "noise":  # as strong as a poor scan's: its mean is 4 % of the range
        inside = np.pad(np.ones(volume.shape, bool), widths)
        padded = np.where(inside, padded, rician(padded.shape, 0.03 * (upper - lower)))
    assert moved(volume, padded) < TOLERANCE


def test_a_tight_field_of_view_keeps_the_scale(volume):
    volume = np.pad(volume, [(20, 20), (20, 20), (0, 0)])
    lower, upper = ends(volume)
    subject = torch.from_numpy(volume > lower + 0.2 * (upper - lower))
    assert moved(volume, volume[foreground_box(subject, 0.02, 2)]) < TOLERANCE
    assert np.prod(volume[foreground_box(subject, 0.02, 2)].shape) < 0.8 * volume.size


def test_zeros_around_noise_are_no_air(volume):
    """A border of zeros does not lower the level of air."""
    lower, upper = ends(volume)
    noisy = np.hypot(volume + 0.02 * (upper - lower), rician(volume.shape, 0.02 * (upper - lower)))
    assert moved(noisy, np.pad(noisy, 9)) < 1e-6


@repeatable
@given(gain=st.floats(0.01, 100), offset=st.floats(-3000, 3000))
def test_gain_and_offset_go_through(gain, offset):
    """So negative values, as of a signed or a rescaled scan, are as good as others."""
    volume = np.pad(head_voxels((24, 22, 20)), 4).astype(np.float64)
    lower, upper = ends(volume)
    found = ends(gain * volume + offset)
    np.testing.assert_allclose(found, [gain * lower + offset, gain * upper + offset], atol=0.005 * gain * upper)


def test_eight_bits_are_enough(volume):
    lower, upper = ends(volume)
    stored = np.round((volume - lower) / (volume.max() - lower) * 255).astype(np.uint8)
    back = stored.astype(np.float32) / 255 * (volume.max() - lower) + lower
    assert moved(volume, back) < TOLERANCE


def test_the_scale_is_quick_and_always_the_same():
    volume = torch.from_numpy(np.kron(head_voxels((64, 64, 30)), np.ones((8, 8, 1), np.float32)))
    first = intensity_range(volume)
    start = time.process_time()
    assert intensity_range(volume) == first
    assert time.process_time() - start < 0.5  # 512 x 512 x 30


@pytest.mark.cuda
def test_the_scale_does_not_depend_on_the_device(head):
    volume = torch.from_numpy(head)
    assert intensity_range(volume.cuda()) == intensity_range(volume)


# -- the box ----------------------------------------------------------------------------------------------------------
@repeatable
@given(data=st.data())
def test_the_box_holds_the_subject_and_no_more(data):
    shape, mask = (15, 14, 13), np.zeros((15, 14, 13), bool)
    low = [data.draw(st.integers(0, n - 3)) for n in shape]
    high = [data.draw(st.integers(a + 2, n)) for a, n in zip(low, shape)]
    mask[tuple(slice(a, b) for a, b in zip(low, high))] = True
    assert foreground_box(torch.from_numpy(mask)) == tuple(slice(a, b) for a, b in zip(low, high))
    assert foreground_box(torch.from_numpy(mask), margin=2) == tuple(
        slice(max(0, a - 2), min(n, b + 2)) for a, b, n in zip(low, high, shape)
    )


def test_scattered_voxels_do_not_widen_the_box():
    mask = np.zeros((60, 50, 40), bool)
    mask[20:40, 15:35, 10:30] = True
    assert foreground_box(torch.from_numpy(spoiled(mask, True)), 0.05) == (slice(20, 40), slice(15, 35), slice(10, 30))
    assert foreground_box(torch.zeros(3, 4, 5, dtype=torch.bool)) == (slice(None),) * 3


def test_the_threshold_lies_between_air_and_subject_whatever_a_voxel_holds(head):
    assert 0 < foreground_threshold(head) < 800
    other = head.copy()
    other[0, 0, 0] = 1e9
    assert foreground_threshold(other) == pytest.approx(foreground_threshold(head), rel=0.02)


def test_one_bright_voxel_leaves_the_head_in_the_sampled_box(volume):
    other = volume.copy()
    other[1, 1, 1] = 1e9
    inferer = ForegroundInferer(None)
    boxes = []
    for voxels in (volume, other):
        scaled = ScalePercentilesd("image")({"image": torch.from_numpy(voxels)[None]})["image"]
        boxes.append(inferer._box(scaled, measured(scaled[0]).meta["operator"]))
    assert boxes[0] == boxes[1]
