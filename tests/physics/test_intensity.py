"""Intensity scale: exact there and back, and one scale for a measurement and its truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import MetaTensor

from interslice.physics.intensity import MAX_SAMPLES, intensity_range
from interslice.physics.thick import ScalePercentilesd
from tests.support.helpers import repeatable

shapes = hnp.array_shapes(min_dims=4, max_dims=4, min_side=2, max_side=6)
volumes = hnp.arrays(np.float32, shapes, elements=st.floats(-2000, 4000, width=32)).filter(
    lambda v: np.ptp(v) > 1e-2 and np.percentile(v[v > v.mean()], 99.5) > np.percentile(v, 0.5) + 1e-2
)


@repeatable
@given(volume=volumes, b_min=st.sampled_from([-1.0, 0.0]))
def test_the_inverse_is_exact(volume, b_min):
    scale = ScalePercentilesd("image", b_min=b_min)
    data = {"image": MetaTensor(torch.from_numpy(volume))}
    restored = scale.inverse(scale(data))["image"]
    np.testing.assert_allclose(restored, volume, rtol=0, atol=4e-6 * np.abs(volume).max())
    assert not restored.applied_operations


@repeatable
@given(volume=volumes, b_min=st.floats(-2, 0), b_max=st.floats(0.5, 3))
def test_the_range_becomes_b_min_and_b_max(volume, b_min, b_max):
    volume = torch.from_numpy(volume)
    lower, upper = intensity_range(volume)
    ends = torch.tensor([lower, upper])
    # The line through (lower, b_min) and (upper, b_max), read off the two voxels that the data may not have.
    scaled = ScalePercentilesd(["image", "ends"], b_min, b_max)({"image": volume, "ends": ends})
    rounding = 1e-4 * max(1, float(ends.abs().max()) / (upper - lower))
    np.testing.assert_allclose(scaled["ends"], [b_min, b_max], atol=rounding)


def test_the_percentiles_are_those_that_the_docstring_names(head):
    """Of a head that touches the border, between whose air and skin anything is a threshold."""
    lower, upper = intensity_range(torch.from_numpy(head))
    assert lower == pytest.approx(np.percentile(head, 0.5))
    assert upper == pytest.approx(np.percentile(head[head > 400], 99.5), rel=0.02)
    assert (head > upper).any()  # and these voxels are not clipped:
    scaled = ScalePercentilesd("image")({"image": torch.from_numpy(head)})["image"]
    assert scaled.max() > 1


def test_the_scale_is_equivariant(head):
    """Another scanner's gain and offset do not show in the result."""
    volume, scale = torch.from_numpy(head), ScalePercentilesd("image")
    one, other = (scale({"image": v})["image"] for v in (volume, 3.7 * volume + 90))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_the_first_key_sets_the_scale_of_all():
    image, label = torch.linspace(0, 100, 64).view(1, 4, 4, 4), torch.linspace(-50, 300, 64).view(1, 4, 4, 4)
    scaled = ScalePercentilesd(["image", "label"])({"image": image, "label": label})
    alone = ScalePercentilesd("image")({"image": image})["image"]
    torch.testing.assert_close(scaled["image"], alone)
    slope = (alone[0, 3, 3, 3] - alone[0, 0, 0, 0]) / 100
    torch.testing.assert_close(scaled["label"], alone[0, 0, 0, 0] + slope * label)


@pytest.mark.parametrize("value", [0.0, -1024.0, 7.5])
def test_a_constant_volume_is_refused(value):
    with pytest.raises(ValueError, match=f"constant .*{value:g}"):
        ScalePercentilesd("image")({"image": torch.full((1, 4, 4, 4), value)})


def test_large_volumes_are_sampled_evenly():
    """A ramp has the same percentiles however it is sampled."""
    ramp = torch.linspace(0, 1, 2 * MAX_SAMPLES + 7)
    assert intensity_range(ramp) == pytest.approx((0.005, 0.9975), abs=1e-4)


def test_plain_tensors_and_missing_keys_are_welcome():
    data = {"image": torch.arange(8.0).view(1, 2, 2, 2)}
    scaled = ScalePercentilesd(["image", "label"], allow_missing_keys=True)(data)
    assert set(scaled) == {"image"}
    assert float(data["image"].max()) == 7  # the input is left as it was


def test_a_volume_that_is_almost_constant_has_the_range_of_the_rest():
    volume = torch.zeros(20, 20, 20)
    volume[0, 0, 0], volume[-1, -1, -1] = -1, 1
    assert intensity_range(volume) == (-1, 1)
