"""What stands for an intensity of 0 and for full scale, in each task: SSIM rests on it."""

import pytest
import torch
from monai.data import MetaTensor

from interslice.physics.ct import HounsfieldScale
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.sparse_radon import SparseRadon
from interslice.physics.intensity import intensity_range
from interslice.physics.thick import ScalePercentilesd
from interslice.physics.thick.through_plane import ThroughPlane
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import ssim
from tests.support.judges import independent_ssim


@pytest.mark.parametrize(("low", "high"), [(-1000.0, 1000.0), (-1024.0, 1500.0)])
def test_in_ct_zero_is_air_and_full_scale_the_window(low, high):
    """SSIM of x is that of HU + 1000 over the span of the window."""
    scale, grid = HounsfieldScale(low, high), Grid((14, 15, 13), (1.0, 1.0, 1.0))
    geometry = ScanGeometry("parallel", (0.0, 90.0), 20, 1.0, 13, 1.0)
    operator = SparseRadon(geometry, grid, background=scale.air)
    a, b = (torch.rand(2, 14, 15, 13, generator=torch.Generator().manual_seed(0)) * 1500 - 1000).float()
    found = ssim(scale.from_hu(a), scale.from_hu(b), DATA_RANGE, operator.background)
    assert found == pytest.approx(independent_ssim(a + 1000, b + 1000, high - low), abs=1e-4)


def test_in_mri_zero_is_the_lower_end_of_the_scale(head):
    """SSIM of scaled volumes is that of v - lower over upper - lower."""
    volume = torch.from_numpy(head)[None, :, :, :20]
    data = {"image": MetaTensor(volume + 20), "label": MetaTensor(volume * 0.9 + 25)}
    scaled = ScalePercentilesd(["image", "label"])(data)
    lower, upper = intensity_range(data["image"])
    operator = ThroughPlane(volume.shape[1:], 2, torch.eye(20), spacing=1.0, pitch=1.0, thickness=1.0)
    found = ssim(*(scaled[k].as_tensor()[0] for k in ("image", "label")), DATA_RANGE, operator.background)
    expected = independent_ssim(*(data[k].as_tensor()[0] - lower for k in ("image", "label")), upper - lower)
    assert found == pytest.approx(expected, abs=1e-4)
