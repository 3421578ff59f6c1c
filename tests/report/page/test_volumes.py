"""Volumes in a page: nothing is lost that is seen, no value wraps, axes are the patient's."""

import base64

import nibabel as nib
import numpy as np
import pytest

from interslice.report.page.volumes import (
    axes_of,
    canonical,
    decimals_of,
    levels_for,
    nifti_header,
    packed,
    step_of,
)
from tests.support.report_pages import SHAPE, unpacked, whole_numbers
from tests.support.scans import OBLIQUE


def whole(volume, step, offset):
    """The packed volume in one piece, and the axes of its differences."""
    axes = axes_of(volume, step, offset)
    return "".join(packed(volume, step, offset, axes)), axes


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_a_volume_comes_back_to_half_a_step_whatever_the_axes(pair):
    random = np.random.default_rng(0)
    shape = tuple(1 if axis in pair else 9 for axis in range(3))
    volume = 1000 * random.normal(size=shape) - 300 + random.normal(size=(9, 9, 9)) * 10
    step, offset = step_of([volume], 2048)
    text, axes = whole(volume, step, offset)
    assert axes == pair  # those along which it changes little
    np.testing.assert_allclose(unpacked(text, axes, volume.shape, step, offset), volume, atol=step / 2 * 1.001)


def test_values_far_away_stop_at_the_ends_and_do_not_wrap():
    volume = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
    step, offset = step_of([volume], 2048)
    volume[0, 0, 0], volume[9, 9, 9] = -1e6, 1e6
    text, axes = whole(volume, step, offset)
    back = unpacked(text, axes, volume.shape, step, offset)
    assert back[0, 0, 0] == back.min() < -5 and back[9, 9, 9] == back.max() > 6


def test_neighbours_from_one_end_of_the_range_to_the_other_come_back():
    """Their differences do not fit into 16 bits, and need not: they are added up modulo 2^16."""
    volume = np.full((5, 6, 7), 32767.0, dtype=np.float32)
    volume[1::2] *= -1
    volume[:, 2] *= -1
    text, axes = whole(volume, 1.0, 0.0)
    np.testing.assert_array_equal(unpacked(text, axes, volume.shape, 1.0, 0.0), volume)


@pytest.mark.parametrize(("span", "step"), [(1.0, 0.0002), (2100.0, 1.0), (4000.0, 1.0), (5000.0, 2.0), (3e-5, 1e-8)])
def test_steps_are_round_and_fine(span, step):
    volume = np.linspace(-span / 2, span / 2, 10_001)
    volume *= span / np.diff(np.quantile(volume, (0.001, 0.999)))[0]
    found, offset = step_of([volume], 2048)
    assert found == pytest.approx(step) and offset % found == pytest.approx(0, abs=1e-9)
    assert round(found, decimals_of(found)) == pytest.approx(found)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.37, -1000.0])
def test_a_constant_volume_has_its_value(value):
    step, offset = step_of([np.full(5, value)], 2048)
    assert offset == pytest.approx(value, abs=step / 2 * 1.001) and step <= (abs(value) or 2048) / 2048


def test_a_few_voxels_that_differ_are_not_rounded_away():
    volume = np.zeros(10**5)
    volume[:3] = 0.3
    step, offset = step_of([volume], 512)
    assert 0.3 / 1500 < step < 0.3 / 500 and abs(offset) < 0.3


def test_repeated_slices_take_little_space():
    thick = whole_numbers(0, (40, 40, 8))
    step, offset = step_of([thick], 2048)
    sizes = [len(whole(v, step, offset)[0]) for v in (thick, thick.repeat(5, 2))]
    assert sizes[1] < 1.4 * sizes[0]


def test_large_volumes_and_maps_are_coarser():
    assert [levels_for(n) for n in (10**6, 3 * 10**6, 10**7)] == [2048, 1024, 512]
    assert levels_for(10**7, is_map=True) == 128


def test_the_header_is_nifti_with_the_affine_and_the_scaling():
    step, offset = 0.5, 20.0
    content = base64.b64decode(nifti_header(SHAPE, OBLIQUE, step, offset))
    volume = np.full(SHAPE, 21.5, dtype=np.float32)
    voxels = np.rint((volume - offset) / step).astype("<i2").tobytes(order="F")
    image = nib.Nifti1Image.from_bytes(content + voxels)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(image.get_fdata(), volume)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_canonical_axes_are_those_of_the_patient():
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 9], [0, 3, 0, 0], [0, 0, 0, 1]])  # axes: back, up, right
    volume = np.arange(24.0).reshape(2, 3, 4)
    turned, spacing = canonical(volume, affine)
    assert spacing == (2.0, 1.0, 3.0) and turned.shape == (4, 2, 3)
    assert turned[3, 0, 2] == volume[1, 2, 3]
