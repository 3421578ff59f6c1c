"""What a scan says of its acquisition: thickness, in-plane resolution and bands, in words and for the operator."""

import re
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from interslice.files.acquired import acquired_of
from interslice.files.doubts import doubts_of
from interslice.physics import Measured, operator_of
from interslice.physics.measurement import SIMULATED
from interslice.physics.thick import AsAcquiredd, SimulateMeasurementd, ThroughPlaneSampling
from interslice.physics.thick.as_acquired import seeing_bytes
from interslice.physics.thick.estimate import estimated_thickness
from interslice.physics.thick.in_plane import in_plane_resolution
from interslice.physics.thick.through_plane import slice_weights
from tests.support.scans import head_voxels


def tissue(seed=0, size=96):
    """The same statistics along every axis: coarse and fine random structure."""
    noise = np.random.default_rng(seed).normal(size=(size, size, size))
    layers = [gaussian_filter(noise, s, mode="wrap") for s in (1.0, 2.0, 4.0)]
    field = sum(f / f.std() for f in layers)
    return torch.from_numpy((600 + 100 * field).astype(np.float32))


def thick(volume, thickness, pitch=4.0, axis=2, profile="box"):
    count = volume.shape[axis]
    weights = slice_weights(count, 1.0, int((count - thickness) // pitch) + 1, pitch, thickness, profile).float()
    return torch.matmul(volume.movedim(axis, -1), weights.T).movedim(-1, axis).contiguous()


def scan_of(voxels, spacing, **meta):
    return MetaTensor(voxels[None], affine=torch.diag(torch.tensor([*spacing, 1.0])), meta=meta)


def seen(scan, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AsAcquiredd("image", ThroughPlaneSampling(**options))({"image": scan})["image"]


@pytest.mark.parametrize("profile", ["box", "gaussian", "sinc"])
@pytest.mark.parametrize("thickness", [2.5, 4.0, 6.0])
def test_the_thickness_of_structure_without_direction(thickness, profile):
    found = estimated_thickness(thick(tissue(), thickness, profile=profile), 2, (1.0, 1.0, 4.0), profile)
    # Slices with gaps between tell less: their lengths of averaging change little of what neighbours share.
    assert found == pytest.approx(thickness, rel=0.15 if thickness >= 4 else 0.4)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_of_the_slices_does_not_matter(axis):
    scan, spacing = thick(tissue(), 5.0), [1.0] * 3
    spacing[axis] = 4.0
    turned = estimated_thickness(scan.movedim(2, axis).contiguous(), axis, spacing)
    assert turned == pytest.approx(estimated_thickness(scan, 2, (1.0, 1.0, 4.0)), rel=1e-3)


def test_few_slices_tell_no_thickness():
    assert estimated_thickness(tissue()[:, :, :6], 2, (1.0, 1.0, 4.0)) is None
    assert estimated_thickness(torch.zeros(96, 96, 24), 2, (1.0, 1.0, 4.0)) is None


def zero_filled(slices, share):
    """(X, Y, K) whose frequencies end at a share of those of their voxels along both axes, as magnitudes."""
    spectrum = np.fft.fft2(slices, axes=(0, 1))
    for axis, count in enumerate(slices.shape[:2]):
        outside = np.abs(np.fft.fftfreq(count)) > share / 2
        spectrum[(slice(None),) * axis + (outside,)] = 0
    return torch.from_numpy(np.abs(np.fft.ifft2(spectrum, axes=(0, 1))).astype(np.float32))


@pytest.mark.parametrize("share", [0.5, 0.66, 0.8])
def test_where_the_spectrum_ends_is_found(share):
    filled = zero_filled(head_voxels((128, 112, 12)), share)
    found = in_plane_resolution(filled, 2, (0.5, 0.6, 4.0))
    assert found == pytest.approx((0.5 / share, 0.6 / share), rel=0.13)


def test_whole_spectra_have_no_end():
    assert in_plane_resolution(torch.from_numpy(head_voxels((128, 112, 12))), 2, (0.5, 0.5, 4.0)) is None
    blurred = gaussian_filter(head_voxels((128, 112, 12)), (1.5, 1.5, 0))
    assert in_plane_resolution(torch.from_numpy(blurred), 2, (0.5, 0.5, 4.0)) is None
    assert in_plane_resolution(torch.zeros(128, 112, 12), 2, (0.5, 0.5, 4.0)) is None


def test_a_sound_scan_passes_as_it_is():
    scan = scan_of(thick(tissue(), 4.0), (1.0, 1.0, 4.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = AsAcquiredd("image", ThroughPlaneSampling())({"image": scan})["image"]
    assert found is scan and not doubts_of(scan)
    assert acquired_of(scan)["packages"] == 1 and acquired_of(scan).keys() == {"packages", "thickness_estimated_mm"}
    assert seeing_bytes(scan) > scan.numel() * 4


def test_bands_are_evened_and_said():
    clean = thick(torch.from_numpy(head_voxels((96, 88, 96))), 4.0) + 20
    bands = 1 + 0.1 * (torch.arange(clean.shape[2]) % 2)
    found = seen(scan_of(clean * bands, (2.0, 2.0, 4.0)))
    assert float((found.as_tensor()[0] / clean)[clean > 200].std()) < 0.006
    assert float(found.mean()) == pytest.approx(float((clean * bands).mean()), rel=1e-4)
    assert acquired_of(found)["packages"] == 2
    assert acquired_of(found)["packages_step_percent"] == pytest.approx(10, abs=1)
    assert re.match(r"its slices have bands: every other slice is [\d.]+ percent brighter", doubts_of(found)[0])


def test_the_estimate_is_used_when_it_is_asked_for():
    scan = scan_of(thick(tissue(), 6.5), (1.0, 1.0, 4.0), slice_thickness=2.5)
    for thickness, used in ((None, 2.5), ("estimate", pytest.approx(6.5, rel=0.15)), (3.0, 3.0)):
        scanner = ThroughPlaneSampling(thickness=thickness)
        found = Measured("image", scanner)({"image": seen(scan.clone(), thickness=thickness)})["image"]
        assert operator_of(found).thickness == used
    said = doubts_of(seen(scan.clone()))
    assert len(said) == 1 and "2.5 mm is stated" in said[0]
    assert not doubts_of(seen(scan.clone(), thickness="estimate"))


def test_what_is_resolved_is_the_spacing_when_it_is_asked_for():
    filled = zero_filled(head_voxels((128, 112, 24)), 0.5)
    scan = scan_of(filled, (0.5, 0.5, 4.0))
    assert any("filled the rest with zeros" in s for s in doubts_of(seen(scan.clone())))
    for in_plane, spacing in (("voxels", 0.5), ("measured", pytest.approx(1.0, rel=0.13))):
        found = seen(scan.clone(), in_plane=in_plane)
        assert (
            operator_of(Measured("image", ThroughPlaneSampling(in_plane=in_plane))({"image": found})["image"]).spacing
            == spacing
        )


def test_a_simulated_scan_keeps_its_operator():
    volume = scan_of(tissue(), (1.0, 1.0, 1.0))
    scanner = ThroughPlaneSampling(ratio=4.0)
    simulated = SimulateMeasurementd("image", scanner)({"image": volume})["image"]
    found = seen(simulated, ratio=4.0)
    assert found.meta[SIMULATED] is simulated.meta[SIMULATED] and not doubts_of(found)


def test_other_measurements_pass():
    assert AsAcquiredd("image", scanner=object())({"image": 3}) == {"image": 3}
    thin = scan_of(tissue(), (1.0, 1.0, 1.0))
    assert seen(thin) is thin and not acquired_of(thin)


def test_more_packages_than_slices_are_refused():
    with pytest.raises(ValueError, match="scan.nii: 24 slices are not 20 packages"):
        seen(scan_of(thick(tissue(), 4.0), (1.0, 1.0, 4.0), filename_or_obj="scan.nii"), packages=20)
