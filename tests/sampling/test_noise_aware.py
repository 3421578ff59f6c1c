"""The noise-aware null-space step: exact without noise, Wiener's filter with it, and never worse than either end."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling import NoiseAware, NullSpace, Proximal
from interslice.sampling.noise_aware import FULL_SCALE, MATTERS
from interslice.sampling.step import Step
from interslice.usage import UsageError
from tests.support.helpers import normal, repeatable
from tests.support.scans import INFERENCE, write_volume

SHAPE = (40, 36, 20)
OPERATOR = ThroughPlaneSampling(axis=2, ratio=4).for_grid(SHAPE, (1.0, 1.0, 1.0))
STEP = Step(ab_t=0.9)


def smooth_scan(level, seed=0):
    """Slices that hold nothing fine, and noise of `level` in the prior's units."""
    volume = torch.linspace(-0.5, 0.9, SHAPE[0])[:, None, None].expand(SHAPE).contiguous()
    return OPERATOR.forward(volume) + level * normal(*OPERATOR.range_shape, seed=seed)


def test_without_noise_it_is_the_null_space_step():
    x0, y = normal(*SHAPE, seed=1), smooth_scan(0.0)
    expected = NullSpace()(x0.clone(), y, OPERATOR, STEP)
    for step in (NoiseAware(0), NoiseAware("auto"), NoiseAware("auto").fit(y, OPERATOR)):
        assert torch.equal(step(x0.clone(), y, OPERATOR, STEP), expected)


@given(level=st.floats(0.02, 0.3), error=st.floats(0.05, 1.0))
@repeatable
def test_with_noise_it_is_the_proximal_step_of_wieners_weight(level, error):
    x0, y = normal(*SHAPE, seed=1), smooth_scan(level)
    rho = (FULL_SCALE * level / error) ** 2
    expected = Proximal(rho / OPERATOR.norm**2)(x0.clone(), y, OPERATOR, STEP)
    found = NoiseAware(level, error)(x0.clone(), y, OPERATOR, STEP)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_of_all_weights_the_true_ones_have_the_least_error():
    """Truth and the denoiser's error are white: the posterior mean is in closed form, and beats its neighbours."""
    truth, level, error = normal(*SHAPE, seed=2), 0.1, 0.3
    x0 = truth + error * normal(*SHAPE, seed=3)
    y = OPERATOR.forward(truth) + FULL_SCALE * level * normal(*OPERATOR.range_shape, seed=4)
    mse = {
        factor: float((NoiseAware(level, factor * error)(x0.clone(), y, OPERATOR, STEP) - truth).square().mean())
        for factor in (0.5, 1.0, 2.0)
    }
    exact = float((NullSpace()(x0.clone(), y, OPERATOR, STEP) - truth).square().mean())
    assert mse[1.0] == min(mse.values()) and mse[1.0] < float((x0 - truth).square().mean()) < exact


@pytest.mark.parametrize(("level", "said"), [(0.0, 0.0), (0.015, 0.0), (0.05, 0.05), (0.2, 0.2)])
def test_the_level_is_estimated_and_followed_where_it_matters(level, said):
    step = NoiseAware("auto").fit(smooth_scan(FULL_SCALE * level), OPERATOR)
    assert step.noise_level == pytest.approx(said, rel=0.1) and (step.noise_level == 0 or step.noise_level > MATTERS)
    given_level = NoiseAware(0.07)
    assert given_level.fit(smooth_scan(0.5), OPERATOR) is given_level


@pytest.mark.parametrize("level", ["x", -0.1, 1, None, True, float("inf")])
def test_other_levels_are_refused(level):
    with pytest.raises(UsageError, match='noise_level must be "auto" or a number from 0, below 1 .* got'):
        NoiseAware(level)


@pytest.mark.parametrize(("given_level", "low", "high"), [("auto", 0.03, 0.2), (0, 0, 0), (0.11, 0.11, 0.11)])
def test_the_record_says_what_was_gone_by(given_level, low, high, run_here, tiny_overrides, tmp_path):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 6)], indexing="ij"))
    body = 800.0 * (np.square(grid[:2]).sum(0) < 0.8)
    path = write_volume(tmp_path / "noisy.nii.gz", (body + rng.normal(0, 80, body.shape)).clip(0), spacing=(1, 1, 4))
    run_here("inference", INFERENCE, tiny_overrides(path, noise_level=given_level))
    record = json.loads((tmp_path / "results/noisy/run.json").read_text(encoding="utf-8"))
    assert low <= record["noise_level"] <= high
    assert (record["relative_residual"] < 1e-4) == (record["noise_level"] == 0)


def test_scans_too_small_to_tell_noise_from_anatomy_are_taken_as_they_are():
    operator = ThroughPlaneSampling(axis=2, ratio=4).for_grid((20, 18, 20), (1.0, 1.0, 1.0))
    y = normal(*operator.range_shape)
    assert operator.noise_deviation(y) == 0 == NoiseAware("auto").fit(y, operator).noise_level
