"""Variance-exploding networks in the variance-preserving sampler: three outputs, one Gaussian, and the same result."""

import math

import pytest
import torch

from interslice.prior.slices import SlicePrior
from interslice.prior.variance_exploding import NOISE_FROM, FromVarianceExploding
from interslice.sampling.data_consistency import Proximal
from tests.support.gaussian_models import AB, SHAPE, AffineNetwork, Gaussian, case, exact_sampler, random_volume
from tests.support.helpers import normal, sampled

PRIOR = Gaussian()
every_output = pytest.mark.parametrize("output", ["score", "denoised", "epsilon"])


class Exploding(torch.nn.Module):
    """What a network f(z, c) returns for z = x + sigma n with x from a Gaussian, by Bayes; c(sigma) is inverted."""

    def __init__(self, output, sigma_of=lambda c: c):
        super().__init__()
        self.output, self.sigma_of, self.seen = output, sigma_of, []
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, z, c):
        self.seen.append(c)
        results = []
        for image, sigma in zip(z[:, 0], self.sigma_of(c).double().tolist()):
            mean, covariance = PRIOR.mean(tuple(image.shape)), PRIOR.covariance(tuple(image.shape))
            noisy = covariance + sigma**2 * torch.eye(len(mean), dtype=torch.float64)
            whitened = torch.linalg.solve(noisy, image.double().flatten() - mean)
            answer = {"score": -whitened, "denoised": mean + covariance @ whitened, "epsilon": sigma * whitened}
            results.append(answer[self.output].reshape(1, *image.shape))
        return torch.stack(results).to(z.dtype)


@every_output
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_answers_as_the_variance_preserving_network_of_the_same_prior(output, dtype):
    x_t, t = normal(4, 1, 3, 2, dtype=dtype), torch.tensor([0, 80, 500, 999])
    found = FromVarianceExploding(Exploding(output), AB, output)(x_t, t)
    expected = [AffineNetwork(PRIOR)(x_t[i : i + 1].double(), t[i : i + 1]) for i in range(4)]
    assert found.dtype == dtype
    # At t = 0 the noise is a small difference, over a small sigma.
    assert torch.allclose(found.double(), torch.cat(expected), atol=1e-5 if dtype == torch.float64 else 1e-3)


@every_output
def test_the_sampler_gives_the_same_volume(output):
    operator, _, y = case(closed_form=True)
    noises = {key: random_volume(10 + key) for key in range(4)}
    for axis in range(3):
        inferer = exact_sampler(Proximal(0.1), noises, slice_axis=axis)
        expected = sampled(inferer, y, operator, AffineNetwork(PRIOR))
        found = sampled(inferer, y, operator, FromVarianceExploding(Exploding(output), AB, output))
        assert torch.allclose(found, expected, atol=1e-5)


def test_an_output_taken_for_another_is_another_result():
    x_t = normal(*SHAPE, dtype=torch.float64)
    results = [
        SlicePrior(AB, multiple=1)(FromVarianceExploding(Exploding("score"), AB, output), x_t, 500, 0)
        for output in NOISE_FROM
    ]
    assert (results[0] - results[1]).norm() > 0.1 and (results[0] - results[2]).norm() > 0.1


def test_the_gradient_goes_through_it():
    """As DPS needs it: the Jacobian is that of the variance-preserving network."""

    class Smooth(torch.nn.Module):
        def forward(self, z, sigma):
            return torch.tanh(z) / (1 + sigma[:, None, None, None])  # D(z, sigma)

    def equivalent(x_t, t):
        ab = AB[t].reshape(-1, 1, 1, 1)
        sigma = torch.sqrt((1 - ab) / ab)
        return (x_t / torch.sqrt(ab) - torch.tanh(x_t / torch.sqrt(ab)) / (1 + sigma)) / sigma

    x_t, v = random_volume(1), random_volume(2)
    prior = SlicePrior(AB, multiple=1)
    found = prior.pull_back(FromVarianceExploding(Smooth(), AB, "denoised"), x_t, 300, 1, v)
    assert torch.allclose(found, prior.pull_back(equivalent, x_t, 300, 1, v), atol=1e-5)


def test_the_network_is_told_sigma_or_what_the_condition_makes_of_it():
    t = torch.tensor([10, 700])
    sigma = torch.sqrt((1 - AB[t]) / AB[t]).float()
    plain, logarithmic = Exploding("score"), Exploding("score", sigma_of=lambda c: torch.exp(4 * c))
    x_t = normal(2, 1, 3, 2)
    first = FromVarianceExploding(plain, AB)(x_t, t)
    second = FromVarianceExploding(logarithmic, AB, condition=lambda sigma: sigma.log() / 4)(x_t, t)
    assert torch.allclose(plain.seen[0], sigma) and plain.seen[0].shape == (2,)
    assert torch.allclose(logarithmic.seen[0], sigma.log() / 4)
    assert torch.allclose(first, second, atol=1e-4)


def test_the_noise_level_of_a_step_is_that_of_both_kinds():
    """z = x_t / sqrt(ab) is x_0 + sigma n, with the n of x_t."""
    x_0, n, t = normal(1, 1, 3, 2, dtype=torch.float64), normal(1, 1, 3, 2, seed=1, dtype=torch.float64), 600
    ab, seen = float(AB[t]), {}

    class Keeping(torch.nn.Module):
        def forward(self, z, sigma):
            seen.update(z=z, sigma=sigma)
            return z

    FromVarianceExploding(Keeping(), AB)(math.sqrt(ab) * x_0 + math.sqrt(1 - ab) * n, torch.tensor([t]))
    assert torch.allclose(seen["z"], x_0 + float(seen["sigma"]) * n, atol=1e-5)


@pytest.mark.parametrize("output", ["noise", "v_prediction", "", None])
def test_unknown_outputs_are_refused(output):
    with pytest.raises(ValueError, match=r"output must be one of \['denoised', 'epsilon', 'score'\], got"):
        FromVarianceExploding(Exploding("score"), AB, output)


def test_its_state_is_that_of_the_network_and_the_schedule_moves_with_it():
    wrapped = FromVarianceExploding(Exploding("score"), AB)
    assert set(wrapped.state_dict()) == {"network.weight"}
    assert wrapped.alphas_cumprod.dtype == torch.float32
    assert wrapped.to(torch.float64).alphas_cumprod.dtype == torch.float64
    wrapped.load_state_dict({"network.weight": torch.tensor([2.0])})
    assert wrapped.network.weight.item() == 2
