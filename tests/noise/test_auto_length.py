"""The length that is fitted to a measurement: right for fields of known length, and used by the sampler."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.files.findings import findings_of
from interslice.noise.auto_length import AutoLength, detail_length
from interslice.noise.field import Purpose, SlerpNoise
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling.adapters import FieldNoise
from interslice.sampling.volume_noise import VolumeNoise
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler
from tests.support.scans import INFERENCE

SHAPE = (48, 48)


def volume_of_length(length, count=60, spacing=1.0, axis=0, step=0):
    positions = torch.arange(count, dtype=torch.float64) * spacing
    return OrnsteinUhlenbeckNoise(length).draw(positions, SHAPE, seed=3, step=step).movedim(0, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("length", "spacing"), [(4.0, 1.0), (9.0, 1.0), (10.0, 2.5)])
def test_the_length_of_a_known_field_is_found(length, spacing, axis):
    x = volume_of_length(length, spacing=spacing, axis=axis)
    assert detail_length(x, axis, spacing) == pytest.approx(length, rel=0.15)


def test_noise_that_slices_do_not_share_does_not_shorten_it():
    x = volume_of_length(8.0) + 0.7 * normal(60, *SHAPE, seed=5)
    assert detail_length(x, 0, 1.0) == pytest.approx(8.0, rel=0.25)


def test_slow_changes_within_a_slice_do_not_count():
    ramp = 50 * torch.linspace(-1, 1, SHAPE[0])[None, :, None]
    assert detail_length(volume_of_length(5.0) + ramp, 0, 1.0) == pytest.approx(5.0, rel=0.15)


@pytest.mark.parametrize("count", [2, 3, 30])
def test_it_lies_between_one_slice_and_all_of_them(count):
    assert detail_length(normal(count, *SHAPE, seed=1), 0, 2.0) == 2.0  # nothing in common
    assert detail_length(normal(1, *SHAPE, seed=1).expand(count, -1, -1), 0, 2.0) in (2.0, 2.0 * count)


def test_the_field_is_fitted_in_mm_and_the_template_is_left_alone():
    template = MaternNoise(123.0)
    x = volume_of_length(6.0, axis=2, count=40)
    operator = ThroughPlaneSampling(axis=0, ratio=2.0).for_grid(tuple(x.shape), (1.0, 1.0, 1.0))
    y = operator.forward(x)
    field = AutoLength(template).fit(y, operator, (1.0, 1.0, 1.0)).across(1)
    assert isinstance(field, MaternNoise) and template.length == 123.0
    doubled = AutoLength(template).fit(y, operator, (2.0, 2.0, 2.0)).across(1)
    assert doubled.length == pytest.approx(2 * field.length)
    assert AutoLength(template, factor=3.0).fit(y, operator, (1.0, 1.0, 1.0)).across(2).length != field.length


def test_the_sampler_fits_once_and_draws_from_the_fitted_field():
    fits = []

    class Counted(AutoLength):
        def fit(self, *arguments):
            fits.append(super().fit(*arguments))
            return fits[-1]

    y, network = normal(8, 6, 4, seed=4), BlurringDenoiser(alpha_bars())
    automatic = sampler(Counted(), num_draws=2).reconstruct(measured(y), network)
    (field,) = fits
    by_hand = sampler(MaternNoise(field.across(0).length), num_draws=2).reconstruct(measured(y), network)
    assert torch.equal(automatic.as_tensor(), by_hand.as_tensor())
    assert findings_of(automatic).noise == str(field)


def test_along_the_thick_axis_it_is_slerp_and_elsewhere_matern():
    operator = ThroughPlaneSampling(axis=1, ratio=2.0).for_grid((8, 12, 10), (1.0, 1.0, 1.0))
    field = AutoLength().fit(operator.forward(normal(8, 12, 10, seed=2)), operator, (1.0, 1.0, 1.0))
    kinds = [type(field.across(axis)) for axis in range(3)]
    assert kinds == [MaternNoise, SlerpNoise, MaternNoise]
    drawn = VolumeNoise(field, (1.0, 1.0, 1.0), seed=3).volume(torch.empty(8, 12, 10), 1, 0.5, 4, Purpose.RENOISE)
    slerp = SlerpNoise().draw(12, (8, 10), seed=3, step=4, level=math.sqrt(0.5))
    assert torch.equal(drawn.movedim(1, 0), slerp)
    assert torch.equal(field.covariance(5), field.across(0).covariance(5))


def test_it_is_no_field_until_it_is_fitted():
    """Adapters, which know no measurement, take fields alone."""
    with pytest.raises(TypeError, match=r"got AutoLength\(.*take the field that its fit returns"):
        FieldNoise(AutoLength(), 3)


@pytest.mark.parametrize("factor", [0, -1.0, math.inf, math.nan])
def test_bad_factors_are_refused(factor):
    with pytest.raises(ValueError, match="factor must be positive"):
        AutoLength(factor=factor)


def test_noise_auto_runs_and_says_what_it_chose(run_here, tiny_overrides, thick_file, tmp_path):
    run_here("inference", INFERENCE, tiny_overrides(thick_file, noise="auto"))
    case = tmp_path / "results" / "thick"
    assert np.isfinite(nib.load(case / "thick_recon.nii.gz").get_fdata()).all()
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert record["noise"].startswith("NoiseByAxis(field=MaternNoise(length=")
    assert record["settings"]["noise_field"].startswith("AutoLength(")
