"""Data steps that see the reverse step, one at a time: RED-diff, DAPS, and what all of them promise.

DDNM+, DPS and DiffusionMBIR are in test_noisy_null_space.py, test_posterior_gradient.py and
test_slice_total_variation.py, whole samplers in test_solver_laws.py.
"""

import math
from functools import partial

import pytest
import torch

from interslice.noise import IdenticalNoise, IndependentNoise, Key, Purpose, keyed_normal
from interslice.physics.thick import ThroughPlaneSampling
from interslice.prior.slices import SlicePrior
from interslice.sampling.data_consistency import Proximal, Unconditional
from interslice.sampling.posterior_steps import (
    GaussianPosterior,
    NoisyNullSpace,
    PosteriorGradient,
    SliceTotalVariation,
    Variational,
)
from interslice.sampling.step import Step
from interslice.sampling.volume_noise import VolumeNoise
from tests.support.gaussian_models import (
    AB,
    AB_S,
    AB_T,
    EXACT,
    SHAPE,
    SIZE,
    AffineNetwork,
    Gaussian,
    case,
    closed_or_not,
    random_volume,
    through_network,
    volume_covariance,
    volume_matrix,
    volume_mean,
)
from tests.support.helpers import BlurringDenoiser, alpha_bars, dense, measured, normal, sampled, sampler

every_axis = pytest.mark.parametrize("axis", [0, 1, 2])
NOISE_STD = 0.3


# -- no data ---------------------------------------------------------------------------------------------


def test_unconditional_gives_back_the_clean_estimate_itself():
    _, x0, y = case()
    assert Unconditional()(x0, y, None, Step(AB_T)) is x0


# -- a volume that is kept: RED-diff ---------------------------------------------------------------------


def test_steps_are_those_of_adam_on_the_loss_of_the_paper():
    """The loss with its noises, differentiated by autograd, and Adam as it is published (Kingma and Ba, 2015)."""
    operator, _, y = case()
    weight, rate, momenta = 0.4, 0.05, (0.9, 0.99)
    consistency, memory = Variational(weight, rate, momenta), {}
    network, slices = AffineNetwork(Gaussian()), SlicePrior(AB, multiple=1)
    m, first, second = random_volume(1), 0.0, 0.0
    for number, t in enumerate((700, 400, 100), 1):
        ab, eps = float(AB[t]), random_volume(10 + number)
        x_t = math.sqrt(ab) * m + math.sqrt(1 - ab) * eps
        x0 = slices(network, x_t, t, 2) if number > 1 else m.clone()  # m begins as the first x0
        predicted = (x_t - math.sqrt(ab) * x0) / math.sqrt(1 - ab)
        m.requires_grad_()
        misfit = (operator(m) - y).square().sum() / (2 * operator.norm**2)
        loss = misfit + weight * math.sqrt((1 - ab) / ab) * ((predicted - eps) * m).sum()
        (gradient,) = torch.autograd.grad(loss, m)
        first = momenta[0] * first + (1 - momenta[0]) * gradient
        second = momenta[1] * second + (1 - momenta[1]) * gradient**2
        unbiased = first / (1 - momenta[0] ** number), second / (1 - momenta[1] ** number)
        m = m.detach() - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        assert torch.allclose(consistency(x0, y, operator, Step(ab, memory=memory)), m, atol=1e-10)


def test_the_fixed_point_is_a_tikhonov_solution_and_not_the_posterior_mean():
    """At one noise level, for N(mean, C) and without the scatter of the noise: x0 = B m + c, where m tends to

        argmin_m |A m - y|^2 / (2 |A|^2) + lambda / 2 (m - mean)^T W (m - mean),    W = (1 - ab) (ab C + 1 - ab)^-1.

    The posterior mean has C^-1 in place of W: their ratio depends on the noise level and on the direction.
    """
    operator, _, y = case(rows=30)
    prior, weight, ab = Gaussian(), 0.25, AB_T
    d, constant = volume_matrix(prior, ab, 2)
    covariance, identity = volume_covariance(prior, 2), torch.eye(SIZE, dtype=torch.float64)
    mean = torch.linalg.solve(identity - math.sqrt(ab) * d, constant)
    penalty = weight * (1 - ab) * torch.linalg.inv(ab * covariance + (1 - ab) * identity)
    a = operator.matrix / operator.norm
    tikhonov = torch.linalg.solve(a.T @ a + penalty, a.T @ y / operator.norm + penalty @ mean)

    def follow(m, memory, steps):
        for _ in range(steps):
            x0 = (math.sqrt(ab) * d @ m.flatten() + constant).reshape(SHAPE) if memory else m
            m = Variational(weight, 0.03)(x0, y, operator, Step(ab, memory=memory))
        return m.flatten()

    assert torch.allclose(follow(random_volume(1), {}, 400), tikhonov, atol=1e-5)
    inverse = torch.linalg.inv(covariance)
    posterior = torch.linalg.solve(a.T @ a + inverse, a.T @ y / operator.norm + inverse @ mean)
    assert (tikhonov - posterior).norm() > 0.3 * posterior.norm()


def test_what_is_given_back_is_a_copy_of_what_is_kept():
    operator, x0, y = case()
    memory = {}
    consistency = Variational()
    first = consistency(x0, y, operator, Step(AB_T, memory=memory))
    kept = memory["m"].clone()
    first.zero_()
    assert torch.equal(memory["m"], kept)
    assert set(memory) == {"m", "first", "second", "count"} and memory["count"] == 1


# -- a draw from the Gaussian posterior: DAPS ------------------------------------------------------------


def posterior(operator, x0, y, noise_std, r):
    """Mean (N,) and covariance (N, N) of N(z; x0, r^2) N(y; A z, noise_std^2)."""
    a = operator.matrix
    precision = a.T @ a / noise_std**2 + torch.eye(SIZE, dtype=torch.float64) / r**2
    covariance = torch.linalg.inv(precision)
    return covariance @ (a.T @ y / noise_std**2 + x0.flatten() / r**2), covariance


@closed_or_not
def test_the_draw_is_exactly_the_posterior(closed_form, monkeypatch):
    """An affine function of the two noises: its value without them and its matrix give mean and covariance."""
    operator, x0, y = case(closed_form=closed_form)
    consistency, spread = GaussianPosterior(NOISE_STD, spread=0.8, **EXACT), 0.8
    noises = torch.zeros(7, dtype=torch.float64), torch.zeros(SHAPE, dtype=torch.float64)

    def draw(of_data, of_volume):
        monkeypatch.setattr("interslice.sampling.posterior_steps.keyed_normal", lambda *key: of_data)
        return consistency(x0.clone(), y, operator, Step(AB_T, AB_S, noise=lambda: of_volume))

    centre = draw(*noises)
    gains = torch.cat(
        [
            dense(lambda n: draw(n, noises[1]) - centre, (7,)),
            dense(lambda n: draw(noises[0], n) - centre, SHAPE),
        ],
        1,
    )
    mean, covariance = posterior(operator, x0, y, NOISE_STD, spread * math.sqrt((1 - AB_T) / AB_T))
    assert torch.allclose(centre.flatten(), mean, atol=1e-8)
    assert torch.allclose(gains @ gains.T, covariance, atol=1e-8)


def draws(operator, x0, y, keys, consistency, noise_seed=0):
    """Draws (len(keys), N) with noise from an independent field."""
    noise = VolumeNoise(IndependentNoise(), (1.0, 1.0, 1.0), noise_seed)
    results = []
    for key in keys:
        step = Step(
            AB_T,
            AB_S,
            key=Key(0, key, Purpose.MEASUREMENT),
            noise=partial(noise.volume, x0, 2, AB_S, key, Purpose.DATA_STEP),
        )
        results.append(consistency(x0.clone(), y, operator, step).flatten())
    return torch.stack(results)


def test_keyed_draws_have_the_mean_and_covariance_of_the_posterior():
    operator, x0, y = case()
    consistency, count = GaussianPosterior(NOISE_STD), 1500
    x = draws(operator, x0, y, range(count), consistency)
    mean, covariance = posterior(operator, x0, y, NOISE_STD, math.sqrt((1 - AB_T) / AB_T))
    standardised = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (x - mean).T, upper=False)
    assert standardised.mean(1).abs().max() < 5 / math.sqrt(count)
    difference = (standardised @ standardised.T / count - torch.eye(SIZE, dtype=torch.float64)).abs()
    assert difference.max() < 6 * math.sqrt(2 / count)


def test_a_draw_is_a_function_of_its_key():
    operator, x0, y = case()
    consistency = GaussianPosterior(NOISE_STD)
    first, again, other = draws(operator, x0, y, [3, 3, 4], consistency)
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)
    assert not torch.allclose(draws(operator, x0, y, [3], consistency, noise_seed=1)[0], first, atol=0.1)


@closed_or_not
def test_the_last_step_draws_nothing_and_is_the_mean(closed_form):
    operator, x0, y = case(closed_form=closed_form)
    last = Step(AB_T, 1.0)  # without a noise field
    result = GaussianPosterior(NOISE_STD, spread=0.5, **EXACT)(x0.clone(), y, operator, last)
    mean, _ = posterior(operator, x0, y, NOISE_STD, 0.5 * math.sqrt(last.noise_ratio))
    assert torch.allclose(result.flatten(), mean, atol=1e-8)


def test_with_the_priors_own_deviation_the_mean_is_the_posterior_mean_given_the_noisy_volume():
    """Pixels N(mean, std^2): x0 and its variance v describe p(x | x_t) exactly, and y updates it."""
    prior = Gaussian(std=0.3, reach=0)
    operator, _, y = case()
    x_t = random_volume(3)
    x0, _ = through_network(AffineNetwork(prior), x_t)
    spread = math.sqrt(prior.spread(AB_T) * AB_T / (1 - AB_T))
    result = GaussianPosterior(NOISE_STD, spread)(x0.clone(), y, operator, Step(AB_T))
    # Directly: x_t and y are measurements of x with noise, and the prior is a third.
    a, mean = operator.matrix, volume_mean(prior, 2)
    identity = torch.eye(SIZE, dtype=torch.float64)
    precision = a.T @ a / NOISE_STD**2 + identity * (AB_T / (1 - AB_T) + 1 / 0.3**2)
    b = a.T @ y / NOISE_STD**2 + math.sqrt(AB_T) * x_t.flatten() / (1 - AB_T) + mean / 0.3**2
    assert torch.allclose(result.flatten(), torch.linalg.solve(precision, b), atol=1e-9)


@every_axis
def test_its_noise_follows_the_field_along_the_slices(axis):
    """What the data do not see of the draw is the same in all slices, if the field is and the clean estimate is."""
    shape = (4, 6, 6)
    operator = ThroughPlaneSampling(axis=(axis + 1) % 3, ratio=2.0).for_grid(shape, (1.0, 1.0, 1.0))
    x0 = random_volume(1, operator.domain_shape).mean(axis, keepdim=True).expand(operator.domain_shape).clone()
    y = operator.forward(x0)
    spreads = {}
    for field in (IdenticalNoise(), IndependentNoise()):
        noise = VolumeNoise(field, (1.0, 1.0, 1.0), seed=0)
        step = Step(
            AB_T,
            AB_S,
            key=Key(0, 1, Purpose.MEASUREMENT),
            noise=partial(noise.volume, x0, axis, AB_S, 1, Purpose.DATA_STEP),
        )
        x = GaussianPosterior(0.1)(x0.clone(), y, operator, step)
        unmeasured = x - operator.pseudo_inverse(operator.forward(x))
        spreads[type(field).__name__] = float(unmeasured.var(axis).mean())
    assert spreads["IdenticalNoise"] < 1e-12 < 0.1 < spreads["IndependentNoise"]


# -- what all of them promise ----------------------------------------------------------------------------

STEPS = {
    "gradient": PosteriorGradient(),
    "noisy null space": NoisyNullSpace(0.05),
    "variational": Variational(),
    "Gaussian posterior": GaussianPosterior(0.05),
    "slice total variation": SliceTotalVariation(0.01),
}
every_step = pytest.mark.parametrize("consistency", STEPS.values(), ids=STEPS.keys())


@every_step
def test_draws_do_not_influence_each_other(consistency):
    """Two draws in one run are those of two runs; the same again is the same again."""
    network, y = BlurringDenoiser(alpha_bars()), normal(6, 5, 3, seed=6)
    inferer = sampler(consistency=consistency, num_draws=2)
    operator = ThroughPlaneSampling(axis=2).for_scan(tuple(y.shape), (1.0, 1.0, 5.0))
    second, first = (sampled(inferer, y, operator, network, draw) for draw in (1, 0))
    both = inferer.reconstruct(measured(y), network)
    assert torch.allclose(both.as_tensor()[0], (first + second) / 2, atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-3)
    assert torch.equal(sampled(inferer, y, operator, network, 1), second)
    inferer.seed = 1
    assert not torch.allclose(sampled(inferer, y, operator, network, 0), first, atol=1e-3)


@every_step
def test_data_and_noisy_volume_are_left_alone(consistency):
    operator, x0, y = case()
    x_t = random_volume(3)
    x0, step = through_network(AffineNetwork(Gaussian()), x_t)
    step.x_t, step.sigma, step.noise = x_t, 0.3, lambda: random_volume(9)
    before = x_t.clone(), y.clone(), operator.matrix.clone()
    for _ in range(2):
        result = consistency(x0.clone(), y, operator, step)
        assert result.shape == SHAPE and result.dtype == torch.float64
    assert all(torch.equal(a, b) for a, b in zip((x_t, y, operator.matrix), before))


def test_keys_of_data_steps_are_not_those_of_the_noise_field():
    """The key of a data step is used by no field, so that its draws are independent of x_s."""
    keys = []

    class Recorder:
        def __call__(self, x0, y, operator, step):
            keys.append(step.key)
            step.noise()
            return x0

    class Field(IndependentNoise):
        def _draw(self, z, slice_shape, key, level, slices, device):
            fields.append(key)
            return super()._draw(z, slice_shape, key, level, slices, device)

    fields = []
    inferer = sampler(Field(), Recorder(), num_draws=3, antithetic=False, num_steps=3)
    inferer.reconstruct(measured(normal(6, 5, 3)), BlurringDenoiser(alpha_bars()))
    assert len(set(keys)) == len(keys) == 9 and not set(keys) & set(fields)
    assert len(set(fields)) == len(fields) == 9 + 9  # re-noising and starts; and what the data steps asked for
    keyed_normal((1,), keys[-1], 0)  # within the range of the generator


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: PosteriorGradient(v), "scale must be a number above 0, got"),
        (lambda v: NoisyNullSpace(v if v else -1.0), "noise_std must be a number from 0, got"),
        (lambda v: Variational(weight=v), "weight must be a number above 0, got"),
        (lambda v: Variational(learning_rate=v), "learning_rate must be a number above 0, got"),
        (lambda v: GaussianPosterior(v), "noise_std must be a number above 0, got"),
        (lambda v: GaussianPosterior(0.1, spread=v), "spread must be a number above 0, got"),
        (lambda v: SliceTotalVariation(v), "weight must be a number above 0, got"),
        (lambda v: SliceTotalVariation(0.1, penalty=v), "penalty must be a number above 0, got"),
        (lambda v: Proximal(v), "rho must be a number above 0, got"),
    ],
)
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan])
def test_bad_settings_are_refused(make, message, value):
    with pytest.raises(ValueError, match=message):
        make(value)
