"""The sampler against closed forms: Gaussian priors with an exact denoiser, and the null test of noise fields."""

import math
from itertools import pairwise

import pytest
import torch

from interslice.noise.field import IdenticalNoise, IndependentNoise, SlerpNoise
from interslice.physics.thick import ThroughPlaneSampling
from interslice.prior.diffusion import SIGMA_RULES
from tests.support.helpers import BlurringDenoiser, GaussianDenoiser, alpha_bars, measured, normal, sampled, sampler

AB = alpha_bars()
THICK, FINE = (12, 10, 4), (12, 10, 20)
DEVIATIONS = 5  # standard errors that an estimate may be off; the seeds are fixed
FINE_STEPS = [*range(999, 300, -20), *range(300, 50, -5), *range(50, -1, -1)]
"""Dense where the image forms; even so 1000 DDPM steps end 4 % below the variance of this prior."""
every_rule = pytest.mark.parametrize(
    ("rule", "eta"), [("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0), ("fixed_share", 0.5), ("fixed_share", 1.0)]
)


def without_data(x0, y, operator, step):
    return x0


def moments(inferer, network, mean, variance):
    """Mean and variance of the result where x_T ~ N(mean, variance) and the data have no say.

    Each step is affine in x_t: x0 = a x + b, eps = (x - sqrt(ab_t) x0) / sqrt(1 - ab_t), and
    x_s = sqrt(ab_s) x0 + sqrt(1 - ab_s - sigma^2) eps + sigma N(0, 1).
    """
    steps = inferer.timesteps
    for t, s in pairwise(steps):
        ab_t, ab_s = float(AB[t]), float(AB[s])
        sigma = SIGMA_RULES[inferer.sigma_rule](ab_t, ab_s, inferer.eta)
        kept = math.sqrt(max(0.0, 1 - ab_s - sigma**2) / (1 - ab_t))
        a, b = network.x0(ab_t)
        gain = math.sqrt(ab_s) * a + kept * (1 - math.sqrt(ab_t) * a)
        offset = (math.sqrt(ab_s) - kept * math.sqrt(ab_t)) * b
        mean, variance = gain * mean + offset, gain**2 * variance + sigma**2
    a, b = network.x0(float(AB[steps[-1]]))
    return a * mean + b, a**2 * variance


def samples(inferer, network, y, seeds):
    """Results (seeds, X, Y, Z) for seeds 0, 1, ... and the operator."""
    operator = ThroughPlaneSampling(axis=2).for_scan(tuple(y.shape), (1.0, 1.0, 5.0))
    results = []
    for inferer.seed in range(seeds):
        results.append(sampled(inferer, y, operator, network))
    return torch.stack(results), operator


@every_rule
def test_without_data_the_result_follows_the_recursion(rule, eta):
    network = GaussianDenoiser(AB)
    inferer = sampler(consistency=without_data, num_steps=7, start_fraction=1, eta=eta, sigma_rule=rule)
    x, _ = samples(inferer, network, torch.zeros(THICK), seeds=4)
    mean, variance = moments(inferer, network, 0.0, 1.0)
    assert float(x.mean()) == pytest.approx(mean, abs=DEVIATIONS * math.sqrt(variance / x.numel()))
    assert float(x.var()) == pytest.approx(variance, rel=DEVIATIONS * math.sqrt(2 / x.numel()))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_many_steps_without_data_sample_the_prior(eta):
    network = GaussianDenoiser(AB, mean=0.4, std=0.3)
    inferer = sampler(consistency=without_data, timesteps=FINE_STEPS, eta=eta, sigma_rule="ddim")
    x, _ = samples(inferer, network, torch.zeros(THICK), seeds=3)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.02)
    assert float(x.var()) == pytest.approx(0.3**2, rel=0.08)


@every_rule
@pytest.mark.parametrize("start_fraction", [1, 0.4])
def test_data_give_the_measured_part_and_the_prior_the_rest(rule, eta, start_fraction):
    network = GaussianDenoiser(AB, mean=normal(*FINE[1:], seed=5))  # the slices (Y, Z) lie across axis 0
    y = normal(*THICK, seed=6)
    inferer = sampler(num_steps=5, start_fraction=start_fraction, eta=eta, sigma_rule=rule, slice_axis=0)
    x, operator = samples(inferer, network, y, seeds=8)
    assert (operator.forward(x) - y).abs().max() < 1e-4

    start = 0.0
    if start_fraction < 1:
        start = math.sqrt(AB[inferer.timesteps[0]]) * operator.linear_reconstruction(y)
    variance = 1.0 if start_fraction == 1 else 1 - float(AB[inferer.timesteps[0]])
    mean, variance = moments(inferer, network, start, variance)
    mean = mean.expand(FINE)
    unmeasured = mean - operator.pseudo_inverse(operator.forward(mean))
    assert unmeasured.norm() > 0.5 * mean.norm()  # the prior does say something
    error = x - (operator.pseudo_inverse(y) + unmeasured)
    null_share = 1 - THICK[2] / FINE[2]
    assert error.mean((0, 1)).abs().max() < DEVIATIONS * math.sqrt(variance / (8 * FINE[0]))
    freedom = null_share * error.numel()
    assert float(error.square().sum() / freedom) == pytest.approx(variance, rel=DEVIATIONS * math.sqrt(2 / freedom))


def test_many_steps_with_data_sample_the_posterior():
    network = GaussianDenoiser(AB, mean=normal(*FINE[1:], seed=5), std=0.3)
    y = normal(*THICK, seed=6)
    inferer = sampler(timesteps=FINE_STEPS, sigma_rule="ddim", slice_axis=0)
    x, operator = samples(inferer, network, y, seeds=3)
    mean = network.mean.expand(FINE)
    posterior_mean = operator.pseudo_inverse(y) + mean - operator.pseudo_inverse(operator.forward(mean))
    error = x - posterior_mean
    assert (error.mean((0, 1)).square().mean() / posterior_mean.square().mean()).sqrt() < 0.06
    assert float(error.square().mean() / (1 - THICK[2] / FINE[2])) == pytest.approx(0.3**2, rel=0.08)


# -- the null test ------------------------------------------------------------------------------------

FIELDS = {"independent": IndependentNoise(), "identical": IdenticalNoise(), "slerp": SlerpNoise()}


def squared_errors(field, slice_axis):
    """Mean squared error against a fixed truth, and mean |difference| of neighbours along axis 0, for each seed."""
    truth = torch.linspace(-1, 1, 12)[:, None, None] + 0.3 * normal(12, 8, 15, seed=3)
    y = truth.unflatten(2, (3, 5)).mean(-1)
    x, _ = samples(sampler(field, num_steps=4, start_fraction=0.5, slice_axis=slice_axis), BlurringDenoiser(AB), y, 60)
    return (x - truth).square().mean((1, 2, 3)), x.diff(dim=1).abs().mean((1, 2, 3))


def standard_error(values):
    return float(values.std() / math.sqrt(len(values)))


def test_fields_cannot_change_the_error_where_slices_are_separate():
    errors, differences = {}, {}
    for name, field in FIELDS.items():
        errors[name], differences[name] = squared_errors(field, slice_axis=0)
    reference = errors["independent"]
    for name in ("identical", "slerp"):
        tolerance = 4 * math.hypot(standard_error(errors[name]), standard_error(reference))
        assert tolerance < 0.1 * float(reference.mean())  # the test can tell
        assert float(errors[name].mean()) == pytest.approx(float(reference.mean()), abs=tolerance)
        assert differences[name].max() < differences["independent"].min()
    assert differences["slerp"].mean() < 0.9 * differences["independent"].mean()


def test_fields_do_change_the_error_where_the_data_couple_the_slices():
    independent, identical = (squared_errors(FIELDS[name], slice_axis=2)[0] for name in ("independent", "identical"))
    spread = math.hypot(standard_error(independent), standard_error(identical))
    assert abs(float(independent.mean() - identical.mean())) > 6 * spread


@pytest.mark.parametrize("rule", SIGMA_RULES)
def test_one_step_is_the_denoised_start_made_consistent(rule):
    network, y = GaussianDenoiser(AB), normal(*THICK, seed=6)
    inferer = sampler(timesteps=[300], sigma_rule=rule, slice_axis=1)
    operator = ThroughPlaneSampling(axis=2).for_scan(THICK, (1.0, 1.0, 5.0))
    ab = float(AB[300])
    noise = IndependentNoise().draw(FINE[1], (FINE[0], FINE[2]), seed=0, step=0).movedim(0, 1)
    start = math.sqrt(ab) * operator.linear_reconstruction(y) + math.sqrt(1 - ab) * noise
    a, b = network.x0(ab)
    x0 = a * start + b
    expected = x0 + operator.pseudo_inverse(y - operator.forward(x0))
    assert torch.allclose(inferer.reconstruct(measured(y), network)[0], expected, atol=1e-4)
