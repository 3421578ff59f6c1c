"""The noise that is found in a measurement is that which was put there."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.foreground import foreground_threshold
from interslice.physics.kspace import CartesianSampling
from interslice.physics.noise_level import noise_deviation, noise_norm
from tests.support.helpers import normal, repeatable, scan
from tests.support.scans import head_voxels


@given(dim=st.integers(0, 1), level=st.floats(0.01, 10), slope=st.floats(-5, 5), seed=st.integers(0, 99))
@repeatable
def test_white_noise_on_what_is_smooth(dim, level, slope, seed):
    noise = level * normal(40, 48, 5, seed=seed)
    smooth = slope * torch.linspace(-1, 1, 48)[:, None].square() + torch.linspace(0, 3, 40)[:, None, None]
    assert noise_norm(smooth + noise, dim) == pytest.approx(float(noise.norm()), rel=0.15)


def test_noise_that_is_not_the_same_everywhere_and_edges():
    level = torch.exp(torch.linspace(-4, 1, 96))[:, None]
    noise = level * normal(30, 96, 8)
    steps = torch.zeros(30, 96, 8)
    steps[:, 30:60] = 5.0
    assert noise_norm(steps + noise, 1) == pytest.approx(float(noise.norm()), rel=0.15)


def test_nothing_is_known_of_few_values():
    assert noise_norm(normal(20, 7, 3), 1) == 0


@pytest.mark.parametrize(("acceleration", "share"), [(1, 0.03), (4, 0.03), (4, 0.1)])
def test_noise_of_kspace(acceleration, share):
    volume = torch.from_numpy(head_voxels((64, 60, 4)))
    operator = CartesianSampling(acceleration=acceleration).for_volume(scan(volume, (1.0, 1.0, 4.0)))
    noise = share * float(volume.max()) * normal(*operator.range_shape) * operator.mask[..., None]
    found = operator.noise_norm(operator.forward(volume) + noise)
    assert float(noise.norm()) < found < 1.4 * float(noise.norm()) or np.isclose(found, float(noise.norm()), rtol=0.1)


def rician(image, level, seed=0):
    """Magnitudes of an image whose real and imaginary parts have noise of `level`."""
    real, imaginary = (level * normal(*image.shape, seed=seed + k) for k in (0, 1))
    return torch.hypot(image + real, imaginary)


@given(level=st.floats(0.01, 0.2), dims=st.sampled_from([(0, 1), (1, 2), (0, 2)]), seed=st.integers(0, 99))
@repeatable
def test_the_deviation_of_white_noise_in_images(level, dims, seed):
    shape = [9, 9, 9]
    for dim in dims:
        shape[dim] = 48
    smooth = sum(
        torch.linspace(-1, 1, n).square().view([-1 if d == k else 1 for k in range(3)]) for d, n in enumerate(shape)
    )
    assert noise_deviation(smooth + level * normal(*shape, seed=seed), dims) == pytest.approx(level, rel=0.1)


@pytest.mark.parametrize("background", ["air", "zero"])
@pytest.mark.parametrize("level", [10.0, 20.0, 50.0])
def test_the_noise_of_magnitude_images_is_found_in_the_subject_whatever_is_around_it(level, background):
    """1, 2 and 5 percent of a body that is brighter on one side."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 88), indexing="ij")
    body = ((800 + 200 * x + 60 * torch.sin(9 * y)) * (x.square() + y.square() < 0.8))[..., None].repeat(1, 1, 6)
    seen = rician(body, level)
    if background == "zero":
        seen = torch.where(body > 0, seen, 0.0)
    assert noise_deviation(seen, (0, 1)) == pytest.approx(level, rel=0.1)


@pytest.mark.parametrize("level", [20.0, 50.0])
def test_edges_of_shells_raise_it_by_a_fifth_at_most(level):
    """The head's own texture (8) counts as noise."""
    seen = rician(torch.from_numpy(head_voxels((256, 240, 4))), level)
    assert 1 < noise_deviation(seen, (0, 1)) / float(np.hypot(level, 8)) < 1.2


def test_air_alone_would_say_a_third_less():
    air = rician(torch.zeros(64, 64, 8), 1.0)
    assert noise_deviation(air + 0, (0, 1)) < 0.9 and foreground_threshold(air.numpy()) > 0


def test_nothing_is_known_of_small_images():
    assert noise_deviation(normal(23, 64, 8), (0, 1)) == 0 and noise_deviation(normal(24, 64, 8), (0, 1)) > 0.9
