"""Whole samplers against matrices and closed forms: a Gaussian prior, a linear physics, and the exact denoiser.

Every solver but RED-diff and DiffusionMBIR is then an affine map of its noise. `as_matrices` follows it step by step,
from tests.support.gaussian_models import SolvedOperator
from the formulas of the documentation alone; that gives the mean and the covariance of the result without any draw.
"""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from interslice.noise import Purpose
from interslice.prior.diffusion import SIGMA_RULES
from interslice.sampling.data_consistency import ConjugateGradient, NullSpace, Proximal, Unconditional
from interslice.sampling.posterior_steps import GaussianPosterior, NoisyNullSpace, PosteriorGradient
from tests.support.gaussian_models import (
    AB,
    EVERY_RULE,
    EXACT,
    SHAPE,
    SIZE,
    AffineNetwork,
    Crooked,
    Gaussian,
    SolvedOperator,
    case,
    exact_sampler,
    random_volume,
    regular_inverse,
    volume_covariance,
    volume_matrix,
    volume_mean,
)
from tests.support.helpers import normal, sampled

IDENTITY = torch.eye(SIZE, dtype=torch.float64)
NOISE_STD = 0.3
FINE_STEPS = [*range(999, 300, -20), *range(300, 50, -5), *range(50, -1, -1)]


# -- the data steps as matrices: x0_hat = P x0 + p --------------------------------------------------------


def filtered(f):
    """x0 + F (y - A x0), with F a function of (A, |A|, ab_t, ab_s, sigma)."""

    def data_step(a, y, step):
        matrix = f(a, float(torch.linalg.matrix_norm(a, 2)), *step)
        return IDENTITY - matrix @ a, matrix @ y

    return data_step


def gradient(scale):
    def data_step(a, y, step, d):
        size = scale / (math.sqrt(step[1]) * float(torch.linalg.matrix_norm(a, 2)) ** 2)
        return IDENTITY - size * d.T @ a.T @ a, size * d.T @ a.T @ y

    return data_step


def allowed(ab_t, ab_s, sigma):
    return sigma**2 / ab_s if ab_s < 1 else (1 - ab_t) / ab_t


def daps_weight(ab_t):
    return NOISE_STD**2 / (0.7**2 * (1 - ab_t) / ab_t)


SOLVERS = {
    "unconditional": (Unconditional(), filtered(lambda a, norm, *step: torch.zeros_like(a.T)), {}),
    "ddnm": (NullSpace(), filtered(lambda a, norm, *step: torch.linalg.pinv(a)), {"closed_form": True}),
    "ddnm, iterated": (NullSpace(**EXACT), filtered(lambda a, norm, *step: torch.linalg.pinv(a)), {}),
    "dds": (ConjugateGradient(0.2, **EXACT), filtered(lambda a, norm, *step: regular_inverse(a, 0.2 * norm**2)), {}),
    "diffpir": (
        Proximal(0.05, scale_by_noise=True),
        filtered(lambda a, norm, ab_t, *step: regular_inverse(a, 0.05 * norm**2 * ab_t / (1 - ab_t))),
        {"closed_form": True, "eps_after_data": True},
    ),
    "dps": (PosteriorGradient(0.8), gradient(0.8), {}),
    "ddnm_plus": (
        NoisyNullSpace(NOISE_STD, **EXACT),
        filtered(
            lambda a, norm, *step: regular_inverse(
                a, max(1e-6 * norm**2, NOISE_STD**2 / 4 / max(allowed(*step), 1e-30))
            )
        ),
        {},
    ),
    "daps": (
        GaussianPosterior(NOISE_STD, 0.7, **EXACT),
        filtered(lambda a, norm, ab_t, *step: regular_inverse(a, daps_weight(ab_t))),
        {},
    ),
}


def as_matrices(inferer, prior, a, y, data_step, axes, name="", eps_after_data=False):
    """(N, 1 + noises): the mean of the result, and what each number of each noise adds to it.

    The noises come in the order of their keys: the start, the re-noisings, and for DAPS two more in each step.
    """
    keys = ["start"]
    x = torch.cat([torch.zeros(SIZE, 1, dtype=torch.float64), IDENTITY], 1)
    steps = inferer.timesteps
    for i, t in enumerate(steps):
        last = i == len(steps) - 1
        ab_t, ab_s = float(AB[t]), 1.0 if last else float(AB[steps[i + 1]])
        sigma = SIGMA_RULES[inferer.sigma_rule](ab_t, ab_s, inferer.eta)
        d, offset = volume_matrix(prior, ab_t, axes[i])
        known = (ab_t, ab_s, sigma)
        p, shift = data_step(a, y, known, d) if name == "dps" else data_step(a, y, known)
        clean = d @ x
        clean[:, 0] += offset
        consistent = p @ clean
        consistent[:, 0] += shift
        fresh = sigma
        if name == "daps" and not last:  # n_2 comes in as x0 does, and n_1 as y does
            f = regular_inverse(a, daps_weight(ab_t))
            own = torch.cat([p * 0.7 * math.sqrt((1 - ab_t) / ab_t), NOISE_STD * f], 1)
            consistent, keys = torch.cat([consistent, own], 1), [*keys, f"own {i}"]
            x, clean = (torch.cat([v, torch.zeros_like(own)], 1) for v in (x, clean))
        if name == "ddnm_plus" and not last:
            let_in = (
                NOISE_STD
                * regular_inverse(a, NOISE_STD**2 / 4 / max(allowed(*known), 1e-30))
                @ own_noise(len(y), i + 1)
            )
            fresh = math.sqrt(max(0.0, sigma**2 - ab_s * float(let_in.square().mean())))
        if last:
            return consistent
        eps = (x - math.sqrt(ab_t) * (consistent if eps_after_data else clean)) / math.sqrt(1 - ab_t)
        x = math.sqrt(ab_s) * consistent + math.sqrt(max(0.0, 1 - ab_s - sigma**2)) * eps
        x, keys = torch.cat([x, fresh * IDENTITY], 1), [*keys, f"renoise {i}"]


def own_noise(rows, key):
    """Noise of a data step in measurement space, by the sampler's key."""
    return normal(rows, seed=1000 + key, dtype=torch.float64)


@pytest.fixture
def prescribed(monkeypatch):
    """Data steps draw `own_noise`."""

    def draw(shape, key, index, device):
        assert key.purpose == Purpose.MEASUREMENT
        return own_noise(math.prod(shape), key.step)

    monkeypatch.setattr("interslice.sampling.posterior_steps.keyed_normal", draw)


@pytest.mark.parametrize("axes", [(2, 2, 2, 2), (0, 2, 0, 2)], ids=["one axis", "alternating"])
@pytest.mark.parametrize(("rule", "eta"), EVERY_RULE)
@pytest.mark.parametrize("name", SOLVERS)
def test_the_result_is_the_affine_map_of_its_noise_that_the_formulas_give(name, rule, eta, axes, prescribed):
    consistency, data_step, settings = SOLVERS[name]
    after = settings.get("eps_after_data", False)
    operator, _, y = case(closed_form=settings.get("closed_form", False))
    prior, count = Crooked(), len(axes)
    noises = {key: random_volume(100 + key) for key in range(count)}
    noises |= {(key, Purpose.DATA_STEP): random_volume(200 + key) for key in range(1, count)}
    inferer = exact_sampler(
        consistency, noises, slice_axis=list(axes), eta=eta, sigma_rule=rule, num_steps=count, eps_after_data=after
    )
    result = sampled(inferer, y, operator, AffineNetwork(prior))

    matrix = as_matrices(inferer, prior, operator.matrix, y, data_step, axes, name, after)
    in_order = [torch.ones(1, dtype=torch.float64), noises[0].flatten()]
    for key in range(1, count):
        in_order += [noises[key, Purpose.DATA_STEP].flatten(), own_noise(len(y), key)] if name == "daps" else []
        in_order.append(noises[key].flatten())
    assert torch.allclose(result.flatten(), matrix @ torch.cat(in_order), atol=1e-8)


# -- what the methods aim at, and what they miss ----------------------------------------------------------


def law(consistency, data_step, prior, operator, y, steps, name="", start=None, **settings):
    """(mean, covariance) of the result of many steps; the mean by the sampler itself, with all noise zero."""
    after = settings.get("eps_after_data", False)
    inferer = exact_sampler(consistency, timesteps=steps, **settings)
    begin = torch.zeros(SHAPE, dtype=torch.float64) if start is None else start
    mean = sampled(inferer, y, operator, AffineNetwork(prior), start=begin).flatten()
    matrix = as_matrices(inferer, prior, operator.matrix, y, data_step, [2] * len(steps), name, after)
    noise = matrix[:, 1:].clone()
    noise[:, :SIZE] *= math.sqrt(1 - float(AB[steps[0]]))
    if start is None:
        assert torch.allclose(mean, matrix[:, 0], atol=1e-8)
    return mean, noise @ noise.T


def gaussian_posterior(prior, a, y, noise_std):
    inverse, mean = torch.linalg.inv(volume_covariance(prior, 2)), volume_mean(prior, 2)
    covariance = torch.linalg.inv(a.T @ a / noise_std**2 + inverse)
    return covariance @ (a.T @ y / noise_std**2 + inverse @ mean), covariance


def relative(a, b):
    return float((a - b).norm() / b.norm())


def noisy_case(rows=7, smallest=0.5):
    operator, _, y = case(rows=rows, smallest=smallest)
    return operator, y + NOISE_STD * normal(rows, seed=3, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_diffpir_samples_the_posterior_of_a_wide_prior(eta):
    """Where the prior says nothing, x0 has the error that DiffPIR assumes, and rho |A|^2 = noise_std^2."""
    operator, y = noisy_case(rows=30)
    prior, a = Gaussian(std=30.0, reach=0, level=0.0), operator.matrix
    rho = (NOISE_STD / operator.norm) ** 2
    data_step = filtered(lambda a, norm, ab_t, *step: regular_inverse(a, NOISE_STD**2 * ab_t / (1 - ab_t)))
    mean, covariance = law(
        Proximal(rho, scale_by_noise=True), data_step, prior, operator, y, FINE_STEPS, eps_after_data=True, eta=eta,
        sigma_rule="ddim",
    )  # fmt: skip
    expected, spread = gaussian_posterior(prior, a, y, NOISE_STD)
    assert relative(mean, expected) < 0.03
    assert relative(covariance, spread) < 0.08


@pytest.mark.slow
def test_diffpir_with_a_narrow_prior_trusts_the_data_too_much_by_as_much_as_its_ode_says():
    """Its weight takes x0 to be as wrong as x_t. Per singular direction, with z = x_t / sqrt(ab) and r^2 the noise
    ratio, many steps without fresh noise follow dz/dr = (z - x0_hat(z, r)) / r."""
    operator, y = noisy_case()
    prior = Gaussian(std=0.5, reach=0, level=0.0)
    rho = (NOISE_STD / operator.norm) ** 2
    inferer = exact_sampler(Proximal(rho, True), timesteps=range(999, -1, -3), eta=0.0, eps_after_data=True)
    begin = torch.zeros(SHAPE, dtype=torch.float64)
    result = sampled(inferer, y, operator, AffineNetwork(prior), start=begin).flatten()
    expected, _ = gaussian_posterior(prior, operator.matrix, y, NOISE_STD)

    u, s, v = torch.linalg.svd(operator.matrix, full_matrices=False)
    data, mean, precision = u.T @ y / s, v @ volume_mean(prior, 2), s**2 / NOISE_STD**2

    def estimate(z, r):
        x0 = (z * prior.std**2 + mean * r**2) / (prior.std**2 + r**2)
        return (precision * data * r**2 + x0) / (precision * r**2 + 1)

    levels = [math.sqrt(float((1 - AB[t]) / AB[t])) for t in (999, 0)]
    end = solve_ivp(lambda r, z: (z - estimate(torch.from_numpy(z), r).numpy()) / r, levels, [0.0] * 7, rtol=1e-6)
    assert torch.allclose(v @ result, estimate(torch.from_numpy(end.y[:, -1]), levels[1]), atol=0.02)
    # Each lies nearer to the data than the posterior mean does.
    assert ((v @ result - data).abs() < (v @ expected - data).abs()).all()
    assert relative(v @ result, v @ expected) > 0.05


def test_dds_with_a_constant_weight_ends_with_the_data_noise_included():
    """rho acts in every step: the more steps, the less it says. One step is the proximal step, and no more."""
    operator, y = noisy_case()
    a, prior = operator.matrix, Gaussian()
    data_step = filtered(lambda a, norm, *step: regular_inverse(a, 0.2 * norm**2))
    misfits = []
    for steps in ([300], FINE_STEPS[::8], FINE_STEPS[::2]):
        mean, _ = law(ConjugateGradient(0.2, **EXACT), data_step, prior, operator, y, steps, sigma_rule="ddim")
        misfits.append(relative(a @ mean, y))
    assert misfits[0] > 3 * misfits[1] > 6 * misfits[2] and misfits[2] < 0.03
    expected, _ = gaussian_posterior(prior, a, y, NOISE_STD)
    assert relative(a @ expected, y) > 3 * misfits[2]  # the posterior mean does not follow the noise of y


def test_one_proximal_step_is_the_posterior_mean_if_its_weight_is_the_ratio_of_variances():
    """Pixels N(mean, std^2): x0 is wrong by a known variance, and rho |A|^2 = noise_std^2 / variance."""
    operator, y = noisy_case()
    prior, ab = Gaussian(reach=0), float(AB[400])
    x_t = random_volume(3)
    rho = NOISE_STD**2 / prior.spread(ab) / operator.norm**2
    a, inverse, mean = operator.matrix, torch.linalg.inv(volume_covariance(prior, 2)), volume_mean(prior, 2)
    precision = a.T @ a / NOISE_STD**2 + inverse + IDENTITY * ab / (1 - ab)
    b = a.T @ y / NOISE_STD**2 + inverse @ mean + x_t.flatten() * math.sqrt(ab) / (1 - ab)
    for consistency in (Proximal(rho), ConjugateGradient(rho, **EXACT)):
        inferer = exact_sampler(consistency, {0: x_t / math.sqrt(1 - ab)}, timesteps=[400])
        start = torch.zeros(SHAPE, dtype=torch.float64)
        result = sampled(inferer, y, operator, AffineNetwork(prior), start=start)
        assert torch.allclose(result.flatten(), torch.linalg.solve(precision, b), atol=1e-9)


class OwnSpread:
    """DAPS whose r_t is the deviation of a pixel of this prior given its noisy one, as Bayes has it."""

    def __init__(self, prior):
        self.prior = prior

    def __call__(self, x0, y, operator, step):
        r = math.sqrt(self.prior.spread(step.ab_t) / step.noise_ratio)
        return GaussianPosterior(NOISE_STD, r, **EXACT)(x0, y, operator, step)


def test_daps_samples_the_posterior_if_its_deviation_is_that_of_the_prior(monkeypatch):
    """x_t of p(x_t | y) gives x0_hat of p(x | y), which gives x_s of p(x_s | y), however few and long the steps are."""
    operator, y = noisy_case()
    prior, steps = Gaussian(reach=0), [999, 400, 100]

    def run(noises):
        monkeypatch.setattr(
            "interslice.sampling.posterior_steps.keyed_normal",
            lambda shape, key, index, device: noises.get((key.step, key.purpose), torch.zeros(shape)).double(),
        )
        inferer = exact_sampler(OwnSpread(prior), noises, timesteps=steps)
        return sampled(inferer, y, operator, AffineNetwork(prior), start=torch.zeros(SHAPE).double()).flatten()

    mean = run({})
    expected, covariance = gaussian_posterior(prior, operator.matrix, y, NOISE_STD)
    assert relative(mean, expected) < 1e-3
    keys = dict.fromkeys((0, 1, 2, (1, Purpose.DATA_STEP), (2, Purpose.DATA_STEP)), SHAPE)
    keys |= {(key, Purpose.MEASUREMENT): y.shape for key in (1, 2)}
    gains = []
    for key, shape in keys.items():
        for unit in torch.eye(math.prod(shape), dtype=torch.float64):
            gains.append(run({key: unit.reshape(shape)}) - mean)
    # The last step gives the mean of p(x | x_t, y) and draws nothing: that much of the covariance is missing.
    precision = operator.matrix.T @ operator.matrix / NOISE_STD**2 + IDENTITY / prior.spread(float(AB[steps[-1]]))
    found = torch.stack(gains, 1) @ torch.stack(gains) + torch.linalg.inv(precision)
    assert relative(found, covariance) < 1e-3


@pytest.mark.slow
def test_dps_leaves_the_prior_alone_where_nothing_is_measured_and_ends_with_the_data_noise_included():
    """Independent pixels. The weight acts in every step, and knows no noise: the more steps, the nearer to the data."""
    operator, y = noisy_case(smallest=2.0)
    prior, a = Gaussian(reach=0), operator.matrix
    unmeasured = IDENTITY - torch.linalg.pinv(a) @ a
    misfits = []
    for steps in (FINE_STEPS[::8], FINE_STEPS[::2]):
        free, spread = law(Unconditional(), SOLVERS["unconditional"][1], prior, operator, y, steps, sigma_rule="ddim")
        for scale in (0.5, 1.0):
            settings = {"name": "dps", "sigma_rule": "ddim"}
            mean, cov = law(PosteriorGradient(scale), gradient(scale), prior, operator, y, steps, **settings)
            assert torch.allclose(unmeasured @ mean, unmeasured @ free, atol=1e-8)
            assert torch.allclose(unmeasured @ cov @ unmeasured, unmeasured @ spread @ unmeasured, atol=1e-8)
            misfits.append(relative(a @ mean, y))
    assert misfits == sorted(misfits, reverse=True) and misfits[-1] < 0.01
    expected, _ = gaussian_posterior(prior, a, y, NOISE_STD)
    assert relative(a @ expected, y) > 3 * misfits[-1]  # the posterior mean does not follow the noise of y


def test_ddnm_plus_follows_noisy_data_less_than_ddnm():
    operator, y = noisy_case(smallest=0.05)
    prior, a = Gaussian(), operator.matrix
    truth, _ = gaussian_posterior(prior, a, y, NOISE_STD)
    errors = {}
    for consistency in (NullSpace(), NoisyNullSpace(NOISE_STD)):
        inferer = exact_sampler(consistency, num_steps=20, eta=0.85)
        mean = sampled(inferer, y, SolvedOperator(operator.matrix), AffineNetwork(prior)).flatten()
        errors[type(consistency).__name__] = float((mean - truth).norm())
    assert errors["NoisyNullSpace"] < 0.3 * errors["NullSpace"]
