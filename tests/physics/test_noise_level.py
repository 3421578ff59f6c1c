"""The noise that is found in a measurement is that which was put there."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bundle.physics.kspace import CartesianSampling
from bundle.physics.noise_level import noise_norm
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
