"""Metrics: closed forms, an independent SSIM, and what inter-slice differences can and cannot see."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import SSIMMetric

from interslice.report.metrics import PLANES, evaluate, inter_slice, psnr, slice_ssim, ssim
from tests.support.judges import independent_ssim

RANGE, ORIGIN = 2.0, -1.0
every_plane = pytest.mark.parametrize(("plane", "axis"), PLANES.items())


@pytest.fixture(scope="module")
def truth(head):
    volume = torch.from_numpy(head)
    return volume / volume.max() * 2 - 1


@pytest.fixture(scope="module")
def noisy(truth):
    return truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))


# -- PSNR -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_psnr_of_a_constant_error(truth, error, data_range):
    assert psnr(truth + error, truth, data_range) == pytest.approx(20 * math.log10(data_range / error), abs=1e-3)


def test_psnr_is_infinite_only_where_nothing_is_wrong(truth):
    assert psnr(truth, truth, RANGE) == math.inf


def test_a_mask_leaves_the_rest_out(truth):
    inside = torch.zeros_like(truth, dtype=torch.bool)
    inside[10:20, 5:25, 8:30] = True
    x = torch.where(inside, truth + 0.1, truth + 5)
    assert psnr(x, truth, RANGE, inside) == pytest.approx(20 * math.log10(RANGE / 0.1), abs=1e-3)
    assert psnr(x, truth, RANGE, ~inside) == pytest.approx(20 * math.log10(RANGE / 5), abs=1e-3)


# -- SSIM -----------------------------------------------------------------------------------------
def mean_over_slices(judge, x, truth, axis):
    return np.mean([judge(a, b) for a, b in zip(x.unbind(axis), truth.unbind(axis), strict=True)])


@every_plane
def test_ssim_of_identical_volumes_is_one(truth, plane, axis):
    assert slice_ssim(truth, truth, RANGE, ORIGIN, axis) == pytest.approx(1, abs=1e-6)
    assert ssim(truth, truth, RANGE, ORIGIN) == pytest.approx(1, abs=1e-6)


@every_plane
def test_slice_ssim_is_that_of_scikit_image_on_intensities_from_zero(truth, noisy, plane, axis):
    """Both use the Gaussian window of Wang et al. and means over pixels whose whole window lies inside the image."""
    expected = mean_over_slices(independent_ssim, noisy - ORIGIN, truth - ORIGIN, axis)
    assert 0.2 < expected < 0.9
    assert slice_ssim(noisy, truth, RANGE, ORIGIN, axis) == pytest.approx(expected, abs=1e-4)


@every_plane
def test_slice_ssim_is_that_of_monai(truth, noisy, plane, axis):
    stacks = [(v - ORIGIN).movedim(axis, 0)[:, None] for v in (noisy, truth)]
    expected = float(SSIMMetric(spatial_dims=2, data_range=RANGE)(*stacks).mean())
    assert slice_ssim(noisy, truth, RANGE, ORIGIN, axis) == pytest.approx(expected, abs=1e-4)


def test_volume_ssim_is_that_of_scikit_image_on_intensities_from_zero(truth, noisy):
    expected = independent_ssim(noisy - ORIGIN, truth - ORIGIN)
    assert ssim(noisy, truth, RANGE, ORIGIN) == pytest.approx(expected, abs=1e-4)


@given(scale=st.floats(0.01, 4000), offset=st.floats(-1000, 1000))
@settings(max_examples=10, deadline=None)
def test_ssim_does_not_depend_on_the_unit(scale, offset):
    """The same intensities in another unit, with another value for 0, are as similar."""
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 13, 14, 15, generator=generator, dtype=torch.float64)
    expected = ssim(a, b, 1.0, 0.0)
    assert ssim(a * scale + offset, b * scale + offset, scale, offset) == pytest.approx(expected, abs=1e-8)
    assert slice_ssim(a * scale + offset, b * scale + offset, scale, offset, 1) == pytest.approx(
        slice_ssim(a, b, 1.0, 0.0, 1), abs=1e-8
    )


def test_ssim_depends_on_where_zero_is(truth):
    """Why the origin is stated: a uniform error weighs on dark tissue, and near a wrong zero it weighs much more."""
    x = 0.9 * (truth - ORIGIN) + ORIGIN
    right, of_scaled_values = (slice_ssim(x, truth, RANGE, origin, 2) for origin in (ORIGIN, 0.0))
    assert right == pytest.approx(mean_over_slices(independent_ssim, x - ORIGIN, truth - ORIGIN, 2), abs=1e-4)
    assert of_scaled_values == pytest.approx(mean_over_slices(independent_ssim, x, truth, 2), abs=1e-4)
    assert abs(right - of_scaled_values) > 0.01


def test_values_below_zero_count_as_they_are(truth):
    """Noise in air is neither clipped nor lifted: either would be another image."""
    noise = 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    x = truth + noise
    assert float(x.min()) < ORIGIN - 0.05
    expected = independent_ssim(x - ORIGIN, truth - ORIGIN)
    assert ssim(x, truth, RANGE, ORIGIN) == pytest.approx(expected, abs=1e-4)
    assert abs(ssim(x.clamp_min(ORIGIN), truth, RANGE, ORIGIN) - expected) > 1e-3


def test_slices_smaller_than_the_window_have_an_ssim():
    small = torch.rand(4, 6, 30, generator=torch.Generator().manual_seed(0))
    for axis in range(3):
        assert slice_ssim(small, small, 1.0, 0.0, axis) == pytest.approx(1)
        assert slice_ssim(1 - small, small, 1.0, 0.0, axis) < 0


# -- between slices -------------------------------------------------------------------------------
@every_plane
def test_a_constant_offset_is_no_inter_slice_error(truth, plane, axis):
    assert inter_slice(truth, truth, RANGE, axis) == {"error": 0, "ratio": 1}
    shifted = inter_slice(truth + 0.25, truth, RANGE, axis)
    assert shifted["error"] == pytest.approx(0, abs=1e-6) and shifted["ratio"] == pytest.approx(1, abs=1e-5)


@every_plane
def test_an_offset_of_each_slice_is_seen_across_its_axis_alone(truth, plane, axis):
    shape = [1, 1, 1]
    shape[axis] = truth.shape[axis]
    stripes = 0.1 * (-1.0) ** torch.arange(truth.shape[axis]).view(shape)
    for name, other in PLANES.items():
        expected = 2 * 0.1 / RANGE if name == plane else 0
        assert inter_slice(truth + stripes, truth, RANGE, other)["error"] == pytest.approx(expected, abs=1e-6)


def test_ratio_tells_smoothing_from_amplification(truth):
    for factor in (0.5, 1.0, 1.7):
        measured = inter_slice(factor * truth, truth, RANGE, 2)
        assert measured["ratio"] == pytest.approx(factor, rel=1e-5)
        expected = abs(factor - 1) * float(truth.diff(dim=2).abs().mean()) / RANGE
        assert measured["error"] == pytest.approx(expected, rel=1e-4)


def test_a_ratio_of_one_can_be_jitter(truth):
    """Why the error is judged: slices in reverse have the right ratio and the wrong differences."""
    measured = inter_slice(truth.flip(2), truth, RANGE, 2)
    assert measured["ratio"] == pytest.approx(1, rel=1e-5)
    assert measured["error"] > 0.01


# -- all together ---------------------------------------------------------------------------------
def test_evaluate_has_the_keys_that_users_rely_on(truth, noisy):
    inside = truth > -0.5
    result = evaluate(noisy, truth, RANGE, ORIGIN, 0.125, {"inside": inside, "outside": ~inside})
    planes, stated = {"axial", "coronal", "sagittal", "volume"}, {"data_range", "origin"}
    assert result.keys() == {*planes, "inter_slice", "data_residual", "regions", *stated}
    assert (result["data_range"], result["origin"]) == (RANGE, ORIGIN)
    for plane in ("axial", "coronal", "sagittal", "volume"):
        assert result[plane].keys() == {"psnr", "ssim"}
    assert result["inter_slice"].keys() == {"axial", "coronal", "sagittal"}
    for plane, axis in PLANES.items():
        assert result["inter_slice"][plane] == inter_slice(noisy, truth, RANGE, axis)
        assert result[plane]["ssim"] == slice_ssim(noisy, truth, RANGE, ORIGIN, axis)
    assert result["volume"] == {"psnr": psnr(noisy, truth, RANGE), "ssim": ssim(noisy, truth, RANGE, ORIGIN)}
    assert result["data_residual"] == 0.125
    assert result["regions"] == {
        "inside": {"psnr": psnr(noisy, truth, RANGE, inside)}, "outside": {"psnr": psnr(noisy, truth, RANGE, ~inside)}
    }  # fmt: skip
    assert "regions" not in evaluate(noisy, truth, RANGE, ORIGIN, 0.125)


@every_plane
def test_psnr_of_a_plane_is_the_mean_over_its_slices(truth, plane, axis):
    """Slices without error, whose PSNR is infinite, do not count."""
    x = truth.clone()
    x.select(axis, 7).add_(0.1)
    x.select(axis, 8).add_(0.2)
    expected = np.mean([20 * math.log10(RANGE / e) for e in (0.1, 0.2)])
    assert evaluate(x, truth, RANGE, ORIGIN, 0.0)[plane]["psnr"] == pytest.approx(expected, abs=1e-3)


def test_planes_have_the_axes_of_ras():
    assert PLANES == {"sagittal": 0, "coronal": 1, "axial": 2}
