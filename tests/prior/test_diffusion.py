"""The diffusion updates against MONAI's scheduler and against the algebra of Gaussians."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from monai.networks.schedulers import DDIMScheduler

from interslice.prior.diffusion import (
    SIGMA_RULES,
    check_time_steps,
    predict_eps,
    predict_x0,
    renoise,
    sigma_ddim,
    sigma_fixed_share,
    time_steps,
)
from tests.support.helpers import alpha_bars, normal, repeatable

AB = [float(a) for a in alpha_bars()]


@pytest.mark.parametrize("num_steps", [5, 10, 50, 1000])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_update_is_the_ddim_step_of_monai(num_steps, eta):
    scheduler = DDIMScheduler(1000, "scaled_linear_beta", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    scheduler.set_timesteps(num_steps)
    stride = 1000 // num_steps  # MONAI's target is t - stride, whatever its own list of timesteps says
    x_t, eps, noise = normal(4, 4, seed=1), normal(4, 4, seed=2), normal(4, 4, seed=3)
    for t in (999, stride * (num_steps // 2) + stride - 1, stride - 1):
        s = t - stride
        ab_s = AB[s] if s >= 0 else 1.0
        theirs, their_x0 = scheduler.step(eps, t, x_t, eta=eta, generator=torch.Generator().manual_seed(3))
        x0 = predict_x0(x_t, eps, AB[t])
        assert torch.allclose(x0, their_x0, rtol=1e-4, atol=1e-4)
        assert torch.allclose(renoise(x0, eps, noise, ab_s, sigma_ddim(AB[t], ab_s, eta)), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("t", "s"), [(999, 998), (999, 500), (300, 10), (40, 0)])
def test_ddim_with_eta_one_has_the_posterior_deviation_of_ddpm(t, s):
    a = AB[t] / AB[s]  # x_t = sqrt(a) x_s + sqrt(1 - a) eps
    precision = 1 / (1 - AB[s]) + a / (1 - a)  # x_s given x_0, and x_t given x_s
    assert sigma_ddim(AB[t], AB[s], 1.0) == pytest.approx(precision**-0.5, rel=1e-9)


@pytest.mark.parametrize("rule", SIGMA_RULES.values(), ids=SIGMA_RULES.keys())
def test_fresh_noise_grows_with_eta_and_ends_with_the_clean_image(rule):
    assert rule(AB[500], AB[300], 0.0) == 0
    assert rule(AB[500], AB[300], 0.5) == pytest.approx(rule(AB[500], AB[300], 1.0) / 2)
    assert rule(AB[500], 1.0, 1.0) == 0


def test_fixed_share_of_one_replaces_all_the_noise():
    sigma = sigma_fixed_share(AB[500], AB[300], 1.0)
    assert sigma**2 == pytest.approx(1 - AB[300])
    x0, noise = normal(50, seed=1), normal(50, seed=3)
    expected = math.sqrt(AB[300]) * x0 + math.sqrt(1 - AB[300]) * noise
    for eps in (None, normal(50, seed=2)):
        assert torch.allclose(renoise(x0, eps, noise, AB[300], sigma), expected, atol=1e-5)


@repeatable
@given(t=st.integers(1, 999), s=st.integers(0, 998), eta=st.floats(0, 1), rule=st.sampled_from(sorted(SIGMA_RULES)))
def test_noise_keeps_its_variance(t, s, eta, rule):
    assume(s < t)
    sigma = SIGMA_RULES[rule](AB[t], AB[s], eta)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    kept, fresh = renoise(zero, one, zero, AB[s], sigma), renoise(zero, zero, one, AB[s], sigma)
    assert float(kept**2 + fresh**2) == pytest.approx(1 - AB[s], rel=1e-9)
    assert float(renoise(one, zero, zero, AB[s], sigma)) == pytest.approx(math.sqrt(AB[s]), rel=1e-9)


@pytest.mark.parametrize(("eta", "rule"), [(0.0, "ddim"), (0.8, "ddim"), (0.5, "fixed_share"), (1.0, "fixed_share")])
def test_samples_have_the_variance_of_the_forward_process(eta, rule):
    x0 = 0.5 * normal(200_000, seed=1, dtype=torch.float64)
    eps, noise = (normal(200_000, seed=seed, dtype=torch.float64) for seed in (2, 3))
    x_s = renoise(x0, eps, noise, AB[300], SIGMA_RULES[rule](AB[600], AB[300], eta))
    assert float(x_s.var()) == pytest.approx(AB[300] * 0.25 + 1 - AB[300], rel=0.02)


def test_renoise_leaves_its_arguments_alone():
    arguments = [normal(6, seed=seed) for seed in (1, 2, 3)]
    copies = [a.clone() for a in arguments]
    renoise(*arguments, 0.5, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(arguments, copies))


@repeatable
@given(t=st.integers(0, 999))
def test_x0_and_eps_determine_each_other(t):
    x_t, eps = normal(20, seed=1, dtype=torch.float64), normal(20, seed=2, dtype=torch.float64)
    x0 = predict_x0(x_t, eps, AB[t])
    assert torch.allclose(predict_eps(x_t, x0, AB[t]), eps, atol=1e-9)
    assert torch.allclose(math.sqrt(AB[t]) * x0 + math.sqrt(1 - AB[t]) * eps, x_t, atol=1e-9)


@repeatable
@given(num_train=st.integers(1, 2000), fraction=st.floats(0.001, 1), data=st.data())
def test_time_steps_descend_from_the_start(num_train, fraction, data):
    first = round(fraction * num_train) - 1
    assume(first >= 0)
    num_steps = data.draw(st.integers(1, first + 1))
    steps = time_steps(num_train, num_steps, fraction)
    assert len(steps) == num_steps
    assert steps[0] == first
    assert all(t > s for t, s in pairwise(steps))
    assert steps[-1] >= 0
    gaps = [t - s for t, s in zip(steps, [*steps[1:], -1])]
    assert max(gaps) - min(gaps) <= 2  # evenly spaced, each end rounded
    assert check_time_steps(steps, num_train) == steps


def test_time_steps_of_the_documented_example():
    assert time_steps(1000, 4, 0.4) == [399, 299, 199, 99]
    assert time_steps(10, 10) == list(range(9, -1, -1))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, math.nan])
def test_start_fraction_outside_of_the_schedule_is_refused(fraction):
    with pytest.raises(ValueError, match="start_fraction"):
        time_steps(1000, 1, fraction)


@pytest.mark.parametrize(("num_steps", "fraction"), [(0, 1.0), (-1, 1.0), (1001, 1.0), (301, 0.3), (1, 0.0001)])
def test_more_steps_than_timesteps_are_refused(num_steps, fraction):
    with pytest.raises(ValueError, match="num_steps"):
        time_steps(1000, num_steps, fraction)


@pytest.mark.parametrize("steps", [[], [5, 5], [3, 7], [10], [4, -1]])
def test_a_grid_that_does_not_descend_is_refused(steps):
    with pytest.raises(ValueError, match="descend"):
        check_time_steps(steps, 10)


@pytest.mark.parametrize(("num_steps", "start_fraction"), [(2.5, 0.2), ("3", 0.2), (3, "half")])
def test_steps_of_another_kind_are_refused(num_steps, start_fraction):
    with pytest.raises(ValueError, match="num_steps must be a whole number and start_fraction a number"):
        time_steps(1000, num_steps, start_fraction)
