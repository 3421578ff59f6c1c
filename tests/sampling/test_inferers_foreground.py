"""Inference on the subject's bounding box."""

import pytest
import torch

from interslice.noise.field import SlerpNoise
from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling.foreground import ForegroundInferer
from interslice.sampling.volume_inferer import VolumeInferer
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler, scan

NETWORK = BlurringDenoiser(alpha_bars())
SHAPE = (14, 13, 12)


def head(axis, low=(4, 3, 5), high=(9, 8, 8)):
    """A thick scan of air with a subject from `low` to `high` (exclusive), and its fine operator."""
    values = torch.full(SHAPE, -1.0)
    subject = tuple(slice(a, b) for a, b in zip(low, high))
    values[subject] = 0.3 * normal(*values[subject].shape)
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 3.0
    measurement = measured(values, tuple(spacing), origin=(5.0, -7.0, 11.0), axis=axis)
    return measurement, ThroughPlaneSampling(axis=axis).for_scan(SHAPE, tuple(spacing))


def expected_box(axis, margin, low=(4, 3, 5), high=(9, 8, 8)):
    box = [slice(max(0, a - margin), min(n, b + margin)) for a, b, n in zip(low, high, SHAPE)]
    box[axis] = slice(None)
    return tuple(box)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("margin", [0, 2, 50])
def test_the_box_is_the_inner_result_and_the_rest_the_linear_reconstruction(axis, margin):
    measurement, operator = head(axis)
    inner = sampler(SlerpNoise(), num_steps=2)
    result = ForegroundInferer(inner, margin=margin).reconstruct(measurement, NETWORK)
    box = expected_box(axis, margin)
    crop = measured(measurement.as_tensor()[0][box], tuple(measurement.pixdim.tolist()), axis=axis)
    assert torch.equal(result.as_tensor()[0][box], inner.reconstruct(crop, NETWORK).as_tensor()[0])

    outside = torch.ones(operator.domain_shape, dtype=torch.bool)
    outside[box] = False
    linear = operator.linear_reconstruction(measurement.as_tensor()[0])
    assert outside.any() == (margin < 50)
    assert torch.equal(result.as_tensor()[0][outside], linear[outside])
    assert torch.allclose(result.affine, operator.domain_affine(measurement.affine))
    assert (operator.forward(result.as_tensor()[0]) - measurement.as_tensor()[0]).abs().max() < 1e-4


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_inner_inferer_gets_the_box_in_its_place(axis):
    seen = []

    class Inner(VolumeInferer):
        def reconstruct(self, measurement, network):
            seen.append(measurement)
            fine = [n * 3 if a == axis else n for a, n in enumerate(measurement.shape[1:])]
            return scan(torch.full(fine, 9.0))

    measurement, _ = head(axis)
    result = ForegroundInferer(Inner(), margin=1).reconstruct(measurement, NETWORK)
    box = expected_box(axis, 1)
    corner = torch.tensor([*(s.start or 0 for s in box), 1.0], dtype=torch.float64)
    assert torch.allclose(seen[0].affine[:, 3], measurement.affine @ corner)
    assert torch.equal(seen[0].as_tensor()[0], measurement.as_tensor()[0][box])
    assert (result.as_tensor()[0][box] == 9).all()
    assert (result.as_tensor() == 9).sum() == result.as_tensor()[0][box].numel()


def test_a_subject_at_the_border_keeps_its_margin_inside():
    low, high = (0, 11, 0), (3, 13, 12)
    measurement, _ = head(2, low, high)
    inner = sampler(num_steps=2)
    result = ForegroundInferer(inner, margin=2).reconstruct(measurement, NETWORK)
    box = expected_box(2, 2, low, high)
    crop = measured(measurement.as_tensor()[0][box], (1.0, 1.0, 3.0))
    assert torch.equal(result.as_tensor()[0][box], inner.reconstruct(crop, NETWORK).as_tensor()[0])


def test_without_a_foreground_everything_is_reconstructed():
    measurement, _ = head(2)
    inferer = ForegroundInferer(sampler(num_steps=2), threshold=100.0)
    expected = inferer.inferer.reconstruct(measurement, NETWORK)
    assert torch.equal(inferer.reconstruct(measurement, NETWORK).as_tensor(), expected.as_tensor())
