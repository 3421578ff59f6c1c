"""Baselines: what each keeps exactly, and that interpolated voxels are where they belong."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from interslice.physics.baselines import interpolate, interpolate_consistently, smooth
from interslice.physics.thick import ThroughPlaneSampling

RATIOS = [2.0, 3.0, 4.0, 2.5]


def operator_for(ratio, axis, shape=(9, 10, 11), gap=0.0):
    measured = list(shape)
    measured[axis] = 8
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = ratio
    return ThroughPlaneSampling(axis=axis, gap=gap).for_scan(tuple(measured), tuple(spacing))


def texture(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_constants_are_reproduced(ratio, axis, order):
    operator = operator_for(ratio, axis)
    x = interpolate(torch.full(operator.range_shape, 0.7), operator, order)
    assert x.shape == operator.domain_shape
    torch.testing.assert_close(x, torch.full_like(x, 0.7))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_ramps_stay_where_they_are_in_millimetres(ratio, axis, order, gap):
    """A thick scan whose values are world positions gives a fine one whose values are its own world positions."""
    operator = operator_for(ratio, axis, gap=gap)
    thick_affine = torch.tensor([[-1.0, 0.2, 0, 5], [0.1, 1, 0.3, -7], [0, -0.3, 1, 2], [0, 0, 0, 1]]).double()
    fine_affine = operator.domain_affine(thick_affine)

    def ramp(affine, shape):
        index = np.stack([*np.indices(shape), np.ones(shape)])
        return np.einsum("i,ij,jxyz->xyz", [0.5, 0.3, 0.7, 0], affine.numpy(), index)

    x = interpolate(torch.from_numpy(ramp(thick_affine, operator.range_shape)), operator, order).numpy()
    expected = ramp(fine_affine, operator.domain_shape)
    # The ends are extrapolated as constants, and a cubic spline feels that two thick slices far in.
    margin = int(ratio * (1 if order == 1 else 3.5))
    inner = [slice(None) if order == 1 else slice(3, -3)] * 3  # in-plane ends matter to the spline alone
    inner[axis] = slice(margin, -margin)
    np.testing.assert_allclose(x[tuple(inner)], expected[tuple(inner)], atol=1e-6 if order == 1 else 2e-2)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_it_is_scipys_interpolation_in_three_dimensions(ratio, axis, order):
    operator = operator_for(ratio, axis, gap=0.3)
    y = texture((2, *operator.range_shape)).double()
    mapping = operator.domain_affine(torch.eye(4, dtype=torch.float64)).numpy()
    matrix, offset = np.diag(mapping)[:3], mapping[:3, 3]
    expected = [affine_transform(v, matrix, offset, operator.domain_shape, order=order, mode="nearest") for v in y]
    np.testing.assert_allclose(interpolate(y, operator, order), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_interpolation_passes_through_the_slices(order):
    """With an odd ratio, every thick slice has a fine slice at its centre."""
    operator = operator_for(3.0, 2)
    y = texture(operator.range_shape)
    torch.testing.assert_close(interpolate(y, operator, order)[..., 1::3], y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("order", [1, 3])
def test_consistent_interpolation_agrees_with_the_measurement(ratio, order):
    operator = operator_for(ratio, 2)
    y = texture(operator.range_shape)
    plain, consistent = interpolate(y, operator, order), interpolate_consistently(y, operator, order)
    torch.testing.assert_close(operator.forward(consistent), y, atol=1e-5, rtol=0)
    assert (operator.forward(plain) - y).abs().max() > 1e-3
    # It is the closest such volume: the correction has no part that the measurement does not see.
    correction = consistent - plain
    torch.testing.assert_close(operator.pseudo_inverse(operator.forward(correction)), correction, atol=1e-5, rtol=0)


def variation(x):
    return sum(float(x.diff(dim=d).abs().sum()) for d in range(3))


def test_total_variation_falls_with_the_weight_and_noise_falls_with_it(head):
    clean = torch.from_numpy(head[8:32, 6:30, 8:32]) / 1000
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    levels = [variation(noisy), *(variation(smooth(noisy, w)) for w in (0.01, 0.05, 0.2))]
    assert levels == sorted(levels, reverse=True) and levels[-1] < 0.5 * levels[0]
    smoothed = smooth(noisy, 0.05)
    assert (smoothed - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert smoothed.mean() == pytest.approx(float(noisy.mean()), abs=1e-3)
    assert smoothed.dtype == noisy.dtype


def test_total_variation_leaves_constants_alone():
    flat = torch.full((6, 7, 8), 0.3)
    torch.testing.assert_close(smooth(flat, 0.2), flat)
