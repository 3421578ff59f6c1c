"""Random shapes: smooth noise of unit variance, and displacements that are the affine maps and waves they promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.blocks import Warp

from scripts.data.deformation import displacement, smooth_noise, uniform
from tests.support.helpers import repeatable

SHAPE = (24, 20, 28)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def centred(shape):
    """Voxel positions (3, X, Y, Z) from the centre of the grid."""
    return torch.stack(torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))


def correlation(field, lag):
    """Mean product of values `lag` voxels apart along axis 0, of a field of unit variance about zero."""
    return float((field[lag:] * field[:-lag]).mean() / field.square().mean())


# -- single numbers -------------------------------------------------------------------------------
@repeatable
@given(low=st.floats(-100, 100), width=st.floats(1e-3, 100), seed=st.integers(0, 2**32))
def test_a_uniform_number_lies_in_its_range(low, width, seed):
    assert low <= uniform(rng(seed), low, low + width) < low + width


def test_uniform_numbers_fill_their_range_evenly():
    generator = rng()
    values = torch.tensor([uniform(generator, -2, 6) for _ in range(4000)])
    counts = torch.histc(values, 8, -2, 6)
    assert ((counts - 500).abs() < 5 * 500**0.5).all()


# -- smooth noise ---------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [1.5, 4.0, 11.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_smooth_noise_has_unit_variance(scale, channels):
    field = smooth_noise(rng(), SHAPE, scale, channels)
    assert field.shape == (channels, *SHAPE)
    torch.testing.assert_close(field.var(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_the_channels_of_smooth_noise_are_unrelated():
    a, b = smooth_noise(rng(), (40, 40, 40), 3.0, 2)
    assert abs(float((a * b).mean())) < 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_larger_scale_is_smoother_along_each_axis(axis):
    """Of unit variance, neighbours whose mean squared difference is d are correlated by 1 - d / 2."""
    fields = [smooth_noise(rng(), (40, 40, 40), scale)[0] for scale in (1.5, 3.0, 6.0, 12.0)]
    correlations = [1 - float(f.diff(dim=axis).square().mean()) / 2 for f in fields]
    assert correlations == sorted(correlations)
    assert correlations[0] < 0.7 and correlations[-1] > 0.95


@pytest.mark.parametrize("scale", [3, 6])
def test_features_are_as_wide_as_the_scale(scale):
    """Trilinear noise of nodes `scale` apart: related at half that distance, unrelated beyond twice."""
    field = smooth_noise(rng(), (60, 60, 60), float(scale))[0]
    assert correlation(field, scale // 2) > 0.5
    assert abs(correlation(field, 2 * scale + 1)) < 0.1


def test_noise_and_displacements_depend_on_the_generator_alone():
    def draw(seed):
        return smooth_noise(rng(seed), SHAPE, 4.0), displacement(rng(seed), SHAPE, 0.1, (0.9, 1.1), [(6.0, 1.0)])

    first = draw(3)
    torch.manual_seed(1)
    assert all(map(torch.equal, draw(3), first))
    assert not any(map(torch.equal, draw(4), first))


# -- displacements --------------------------------------------------------------------------------
def test_without_rotation_zoom_and_waves_nothing_moves():
    assert displacement(rng(), SHAPE, 0.0, (1.0, 1.0), ()).eq(0).all()


@pytest.mark.parametrize("zoom", [0.8, 1.25])
def test_a_pure_zoom_is_linear_about_the_centre(zoom):
    field = displacement(rng(), SHAPE, 0.0, (zoom, zoom), ())
    torch.testing.assert_close(field, (1 / zoom - 1) * centred(SHAPE), atol=1e-4, rtol=0)


def test_a_zoom_above_one_magnifies():
    radius = centred((33, 33, 33)).square().sum(0).sqrt()
    ball = torch.sigmoid(3 * (8 - radius))
    field = displacement(rng(), ball.shape, 0.0, (1.25, 1.25), ())
    warped = Warp("bilinear", "zeros")(ball[None, None], field[None])[0, 0]
    torch.testing.assert_close(warped.sum(), 1.25**3 * ball.sum(), atol=0, rtol=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_each_axis_has_a_zoom_of_its_own_within_the_range(seed):
    field, position = displacement(rng(seed), SHAPE, 0.0, (0.8, 1.3), ()), centred(SHAPE)
    zooms = 1 / (1 + (field * position).sum((1, 2, 3)) / position.square().sum((1, 2, 3)))
    assert ((zooms >= 0.8) & (zooms <= 1.3)).all() and len(set(zooms.tolist())) == 3
    torch.testing.assert_close(field, (1 / zooms - 1)[:, None, None, None] * position, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_pure_rotation_keeps_distances_and_turns_no_more_than_its_angles(seed):
    position = centred(SHAPE)
    field = displacement(rng(seed), SHAPE, 0.12, (1.0, 1.0), ())
    torch.testing.assert_close((position + field).norm(dim=0), position.norm(dim=0), atol=1e-4, rtol=1e-5)
    turned = 2 * torch.asin(field.norm(dim=0) / (2 * position.norm(dim=0)))
    assert 0.01 < turned.max() <= 3 * 0.12  # three turns, one about each axis
    corners = (position + field)[:, [0, -1]][:, :, [0, -1]][..., [0, -1]]
    assert torch.allclose(corners.sum((1, 2, 3)), torch.zeros(3), atol=1e-3)  # about the centre


@pytest.mark.parametrize("amplitude", [0.5, 3.0])
def test_waves_are_as_strong_as_their_amplitude(amplitude):
    strengths = [displacement(rng(s), SHAPE, 0.0, (1.0, 1.0), [(6.0, amplitude)]).std() for s in range(12)]
    assert 0.5 * amplitude * 0.99 <= min(strengths) < 0.8 * amplitude
    assert 0.9 * amplitude < max(strengths) <= 1.2 * amplitude * 1.01
