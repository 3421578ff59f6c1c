"""Draws in pairs of opposite noise: each is a sample, their mean lacks what noise does to first order."""

import math

import pytest
import torch

from interslice.files.findings import findings_of
from interslice.noise.field import IndependentNoise, SlerpNoise
from interslice.noise.named import FIELDS, named_noise
from interslice.physics import operator_of
from interslice.sampling import NoisyNullSpace
from tests.support.helpers import BlurringDenoiser, GaussianDenoiser, alpha_bars, measured, normal, sampled, sampler

AB = alpha_bars()
Y = 0.05 * normal(10, 8, 4, seed=6)  # no value comes near the prior's limits
MEASURED = measured(Y)
OPERATOR = operator_of(MEASURED)
every_field = pytest.mark.parametrize(
    "field", [named_noise(n) for n in FIELDS if n != "auto"], ids=lambda f: type(f).__name__
)
TURNING = {"slice_axis": "alternate", "num_steps": 5, "start_fraction": 0.5}


class Silent(IndependentNoise):
    def _draw(self, z, slice_shape, key, level, slices, device):
        return torch.zeros(len(slices), *slice_shape)


class Affine(BlurringDenoiser):
    """The same blur without its bend."""

    def __call__(self, x, t):
        ab = self.ab[t].reshape(-1, 1, 1, 1)
        clean = 0.1 + 0.5 * torch.nn.functional.conv2d(x, self.kernel, padding=1)
        return (x - torch.sqrt(ab) * clean) / torch.sqrt(1 - ab)


def draws(inferer, network, count):
    return torch.stack([sampled(inferer, Y, OPERATOR, network, draw=k) for k in range(count)])


@every_field
def test_a_pair_of_an_affine_denoiser_is_the_path_without_noise(field):
    network = Affine(AB)
    quiet = sampled(sampler(Silent(), **TURNING), Y, OPERATOR, network)
    one, other = draws(sampler(field, **TURNING, antithetic=True), network, 2)
    torch.testing.assert_close((one + other) / 2, quiet, atol=1e-4, rtol=0)
    assert float((one - quiet).std()) > 0.01
    independent = draws(sampler(field, **TURNING, antithetic=False), network, 2)
    assert float((independent.mean(0) - quiet).std()) > 0.01


@every_field
def test_pairs_are_unlike_one_another_and_begin_with_each_axis_in_turn(field):
    seen = []
    network = BlurringDenoiser(AB)

    class Watched(torch.nn.Module):
        multiple = 1

        def forward(self, x, timesteps):
            seen.append(tuple(x.shape[2:]))
            return network(x, timesteps)

    inferer = sampler(field, slice_axis="alternate", num_steps=1, antithetic=True)
    found = draws(inferer, Watched(), 4)
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert not torch.allclose(found[0], found[2], atol=1e-3)
    alone = sampled(sampler(field, slice_axis="alternate", num_steps=1, antithetic=False), Y, OPERATOR, network)
    assert torch.equal(found[0], alone)


def test_the_second_of_a_pair_follows_the_law_of_the_first():
    network = GaussianDenoiser(AB, mean=0.4, std=0.3)
    inferer = sampler(num_steps=6, start_fraction=1, antithetic=True, consistency=lambda x0, y, operator, step: x0)
    one, other = draws(inferer, network, 2)
    error = 5 * float(one.std()) / math.sqrt(one.numel())
    assert float(one.mean()) == pytest.approx(float(other.mean()), abs=2 * error)
    assert float(one.std()) == pytest.approx(float(other.std()), rel=5 / math.sqrt(one.numel()))
    assert float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("num_draws", [2, 3, 4, 5])
def test_the_spread_is_that_of_one_draw(num_draws):
    """Of an affine denoiser exactly so: the mean over seeds and voxels of its square is the variance of a draw."""
    network, squares = GaussianDenoiser(AB), []
    inferer = sampler(num_draws=num_draws, antithetic=True, slice_axis=0)
    for inferer.seed in range(12):
        squares.append(findings_of(inferer.reconstruct(MEASURED, network)).maps["std"].square().mean())
    quiet = sampled(sampler(Silent(), slice_axis=0), Y, OPERATOR, network)
    single = sampler(slice_axis=0, antithetic=False)
    variance = (draws(single, network, 24) - quiet).square().mean()
    assert float(torch.stack(squares).mean()) == pytest.approx(float(variance), rel=0.05)


def test_pairs_come_closer_to_the_mean_of_many_draws_where_the_denoiser_is_curved():
    network = BlurringDenoiser(AB)
    many = draws(sampler(SlerpNoise(), **TURNING, antithetic=False), network, 128).mean(0)

    def error(antithetic):
        inferer, errors = sampler(SlerpNoise(), **TURNING, antithetic=antithetic), []
        for inferer.seed in range(1, 9):
            errors.append((draws(inferer, network, 2).mean(0) - many).square().mean())
        return float(torch.stack(errors).mean())

    assert error(True) < 0.5 * error(False)


def test_what_a_data_step_draws_for_itself_differs_within_a_pair():
    keys = []

    class Recorder(NoisyNullSpace):
        def __call__(self, x0, y, operator, step):
            keys.append(step.key)
            return x0

    inferer = sampler(consistency=Recorder(0.1), num_draws=4, antithetic=True)
    inferer.reconstruct(MEASURED, BlurringDenoiser(AB))
    assert len(set(keys)) == len(keys) == 16


def test_whether_draws_come_in_pairs_is_on_or_off():
    with pytest.raises(ValueError, match="antithetic is on or off"):
        sampler(antithetic="maybe")
