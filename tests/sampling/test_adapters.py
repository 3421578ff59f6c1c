"""The noise that a sampler adds through an adapter is the field, and nothing else about the sampler changes.

One law serves every library. A sampler with a linear, slice by slice network maps all noise that it is given linearly
and each slice alike, so slices of its result correlate exactly as the field does.
"""

import math

import pytest
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from interslice.noise.field import IdenticalNoise, IndependentNoise, MixedNoise, NoiseField, SlerpNoise
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from interslice.prior.diffusion import sigma_ddim
from interslice.sampling.adapters import FieldNoise, FieldRandn, FieldScheduler, NoiseSampler
from tests.support.helpers import GaussianDenoiser, normal

POSITIONS = [0.0, 1.0, 2.5, 7.0, 20.0]
"""Uneven, in mm."""
FIELDS = [IndependentNoise(), IdenticalNoise(), MixedNoise(0.7), SlerpNoise(), OrnsteinUhlenbeckNoise(8.0)]
SIGMAS = torch.tensor([10.0, 4.0, 1.5, 0.5, 0.1])
every_field = pytest.mark.parametrize("field", FIELDS, ids=lambda f: type(f).__name__)


class GeneratorNoise(NoiseField):
    """What the libraries draw themselves: torch.randn with a generator, the next piece of it at each call."""

    def __init__(self, seed, dtype=torch.float32):
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def _draw(self, z, slice_shape, key, level, slices, device):
        return torch.randn((len(z), *slice_shape), generator=self.generator, dtype=self.dtype)

    def covariance(self, positions, level=1.0):
        return torch.eye(len(positions), dtype=torch.float64)


def stack(size=64, count=5, **options):
    return torch.empty(count, 1, size, size, **options)


def correlation(x):
    """Between slices (S, S), over all pixels."""
    return torch.corrcoef(x.double().flatten(1))


def assert_follows(x, field):
    """Slices of x (S, 1, 64, 64) correlate as the field says, within 5 standard errors of 4096 pixels."""
    assert torch.isfinite(x).all()
    assert (correlation(x) - field.covariance(POSITIONS)).abs().max() < 5 / math.sqrt(x[0].numel())


# --- the field in the shape of a stack


@every_field
def test_noise_is_the_draw_of_the_field(field):
    noise = FieldNoise(field, POSITIONS, seed=3)
    x = noise.like(stack(4))
    assert torch.equal(x, field.draw(POSITIONS, (1, 4, 4), seed=3, step=0))
    assert torch.equal(noise.like(stack(4)), field.draw(POSITIONS, (1, 4, 4), seed=3, step=1))
    assert torch.equal(noise.like(stack(4), step=7), field.draw(POSITIONS, (1, 4, 4), seed=3, step=7))
    assert torch.equal(noise.like(stack(4)), field.draw(POSITIONS, (1, 4, 4), seed=3, step=8))  # goes on from there
    x.add_(1)  # may be written to, as what torch.randn_like returns


@every_field
def test_every_slice_is_standard_normal_and_slices_covary_as_stated(field):
    x = FieldNoise(field, POSITIONS, seed=1).like(stack())
    assert x.mean((1, 2, 3)).abs().max() < 5 / 64
    assert (x.var((1, 2, 3)) - 1).abs().max() < 5 * math.sqrt(2) / 64
    assert_follows(x, field)


def test_level_reaches_the_field():
    field = OrnsteinUhlenbeckNoise((40.0, 2.0))
    noise = FieldNoise(field, POSITIONS)
    assert torch.equal(noise.like(stack(4), 0, 0.3), field.draw(POSITIONS, (1, 4, 4), seed=0, step=0, level=0.3))
    assert not torch.equal(noise.like(stack(4), 0, 0.3), noise.like(stack(4), 0, 0.9))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_noise_has_the_dtype_of_the_sample(dtype):
    noise = FieldNoise(SlerpNoise(), POSITIONS)
    assert torch.equal(noise.like(stack(4, dtype=dtype), 0), noise.like(stack(4), 0).to(dtype))


def test_slices_of_several_channels_and_of_none():
    field = OrnsteinUhlenbeckNoise()
    noise = FieldNoise(field, 5, seed=2)
    assert torch.equal(noise.like(torch.empty(5, 4, 3, 2), 1), field.draw(5, (4, 3, 2), seed=2, step=1))
    assert torch.equal(noise.like(torch.empty(5, 3, 2), 1), field.draw(5, (3, 2), seed=2, step=1))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (6, 1, 8, 8), (5, 8)], ids=str)
def test_a_batch_that_is_not_the_volume_is_refused(shape):
    with pytest.raises(ValueError, match=r"stack of 5 slices .* got the shape"):
        FieldNoise(SlerpNoise(), 5).like(torch.empty(shape))


# --- noise_sampler(sigma, sigma_next)


def sampler(field=None, size=64, **options):
    return NoiseSampler(FieldNoise(field or MaternNoise(8.0), POSITIONS, **options), stack(size))


def test_steps_that_follow_each_other_get_the_draws_of_the_field():
    field = MaternNoise(8.0)
    draw = sampler(field, seed=4)
    for step, (sigma, sigma_next) in enumerate(zip(SIGMAS, SIGMAS[1:])):
        expected = field.draw(POSITIONS, (1, 64, 64), seed=4, step=step)
        torch.testing.assert_close(draw(sigma, sigma_next), expected, rtol=1e-6, atol=1e-6)
    assert len(draw.path) == 2  # memory of one step


@pytest.mark.parametrize("order", [(5.0, 2.0), (2.0, 5.0)], ids=["half first", "whole first"])
def test_parts_of_a_step_agree_with_the_whole_as_brownian_motion_does(order):
    field = MaternNoise(8.0)
    draw = sampler(field, seed=1)
    draw(12.0, 10.0)
    noise = {end: draw(10.0, end) for end in order}
    half, whole = noise[5.0], noise[2.0]
    for x in (half, whole):
        assert (x.var((1, 2, 3)) - 1).abs().max() < 5 * math.sqrt(2) / 64
        assert_follows(x, field)
    shared = torch.stack([(a * b).mean() for a, b in zip(half, whole)])
    assert (shared - math.sqrt(5 / 8)).abs().max() < 5 / 64
    # What is left of the whole is independent of the half, and is what a step from there on gets.
    rest = (math.sqrt(8) * whole - math.sqrt(5) * half) / math.sqrt(3)
    torch.testing.assert_close(draw(5.0, 2.0), rest, rtol=1e-4, atol=1e-5)
    assert torch.stack([(a * b).mean() for a, b in zip(half, rest)]).abs().max() < 5 / 64


def test_a_start_above_begins_another_motion():
    draw = sampler(size=8)
    first = [draw(4.0, 2.0), draw(2.0, 1.0)]
    again = [draw(4.0, 2.0), draw(2.0, 1.0)]
    assert all((a - b).abs().max() > 0.1 for a, b in zip(first, again))


def test_field_parameters_follow_sigma():
    field = OrnsteinUhlenbeckNoise((40.0, 2.0))
    expected = field.draw(POSITIONS, (1, 8, 8), seed=0, step=0, level=3 / math.sqrt(10))
    torch.testing.assert_close(sampler(field, size=8)(4.0, 3.0), expected)


@pytest.mark.parametrize("ends", [(1.0, 2.0), (1.0, 1.0), (1.0, -0.5)], ids=str)
def test_rising_sigma_is_refused(ends):
    with pytest.raises(ValueError, match="sigma must fall"):
        sampler(size=8)(*ends)


# --- MONAI


class Linear(torch.nn.Module):
    """A denoiser that keeps a fixed share of its input."""

    def forward(self, x, timesteps=None, context=None):
        return 0.5 * x


def schedule(kind, *leading, steps_offset=None, **options):
    offset = {} if steps_offset is None else {"steps_offset": steps_offset}
    return kind(*leading, num_train_timesteps=20, clip_sample=False, beta_end=0.2, **offset, **options)


def monai_sample(scheduler, x, network=None):
    return DiffusionInferer(scheduler).sample(x, network or Linear(), scheduler, verbose=False)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_is_monais_where_its_grid_is_even(prediction, eta):
    """With an offset of T / n - 1 MONAI's rounded grid is even, and its target is the next timestep."""
    noise = FieldNoise(GeneratorNoise(5), POSITIONS)
    ours = schedule(FieldScheduler, noise, eta, steps_offset=3, prediction_type=prediction)
    theirs = schedule(DDIMScheduler, steps_offset=3, prediction_type=prediction)
    generator = torch.Generator().manual_seed(5)
    x, output = normal(5, 1, 8, 8, seed=1), normal(5, 1, 8, 8, seed=2)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
    assert theirs.timesteps.tolist() == [19, 15, 11, 7, 3]
    for t in theirs.timesteps:
        for a, b in zip(ours.step(output, t, x), theirs.step(output, t, x, eta, generator)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_ancestral_sampling_is_monais_ddpm_on_the_full_grid():
    network = GaussianDenoiser(schedule(DDPMScheduler).alphas_cumprod)
    field, start = OrnsteinUhlenbeckNoise(8.0), normal(5, 1, 8, 8)

    def sample(scheduler):
        return monai_sample(scheduler, start, lambda x, timesteps, context: network(x, timesteps.long()))

    ours = sample(schedule(FieldScheduler, FieldNoise(field, POSITIONS)))
    with FieldRandn(FieldNoise(field, POSITIONS)):
        theirs = sample(schedule(DDPMScheduler))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_few_steps_lead_to_the_next_timestep():
    """The spread of a Gaussian follows the list to its end; not so with MONAI's DDPM, which goes back by 1."""
    options = {"num_train_timesteps": 1000, "clip_sample": False}
    ours = FieldScheduler(FieldNoise(IndependentNoise(), POSITIONS), **options)
    ab = ours.alphas_cumprod
    network = GaussianDenoiser(ab, std=0.3)

    def spread(scheduler):
        scheduler.set_timesteps(10)
        x = monai_sample(scheduler, normal(5, 1, 64, 64), lambda x, timesteps, context: network(x, timesteps.long()))
        return float(x.std())

    measured, variance = spread(ours), 1.0
    steps = ours.timesteps.tolist()
    for t, s in zip(steps, [*steps[1:], None]):
        ab_t, ab_s = float(ab[t]), 1.0 if s is None else float(ab[s])
        share, _ = network.x0(ab_t)  # of x_t in the estimate of x_0
        sigma = sigma_ddim(ab_t, ab_s, 1.0)
        kept = math.sqrt(max(0.0, 1 - ab_s - sigma**2)) * (1 - math.sqrt(ab_t) * share) / math.sqrt(1 - ab_t)
        variance = (math.sqrt(ab_s) * share + kept) ** 2 * variance + sigma**2
    assert measured == pytest.approx(math.sqrt(variance), rel=0.03)
    assert spread(DDPMScheduler(**options)) > 1.5 * measured


@every_field
def test_monais_inferer_samples_with_the_field(field):
    noise = FieldNoise(field, POSITIONS, seed=2)

    def sample(noise):
        scheduler = schedule(FieldScheduler, noise)
        scheduler.set_timesteps(4)
        return monai_sample(scheduler, noise.like(stack()))

    x = sample(noise)
    assert_follows(x, field)
    assert torch.equal(x, sample(FieldNoise(field, POSITIONS, seed=2)))  # the seed says it all
    assert correlation(torch.stack([x, sample(noise)]))[0, 1].abs() < 0.05  # another sample


def test_parts_of_a_volume_are_sampled_as_the_whole():
    def sample(slices):
        noise = FieldNoise(OrnsteinUhlenbeckNoise(8.0), POSITIONS, slices=slices)
        scheduler = schedule(FieldScheduler, noise, sigma_rule="fixed_share")
        scheduler.set_timesteps(3)
        return monai_sample(scheduler, noise.like(stack(8, len(slices))))

    parts = [sample(range(0, 2)), sample(range(2, 5))]
    assert torch.equal(torch.cat(parts), sample(range(5)))


def test_errors_of_the_scheduler():
    noise = FieldNoise(SlerpNoise(), POSITIONS)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        FieldScheduler(noise, eta=1.5)
    with pytest.raises(ValueError, match="fixed_share"):
        FieldScheduler(noise, sigma_rule="other")
    scheduler = schedule(FieldScheduler, noise)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="timestep 7 is not in"):
        scheduler.step(stack(8), 7, stack(8))


# --- torch.randn within a block


def test_randn_gives_the_field_within_the_block_only():
    field = OrnsteinUhlenbeckNoise(8.0)
    generator = torch.Generator().manual_seed(0)
    with FieldRandn(FieldNoise(field, POSITIONS, seed=6)):
        drawn = [
            torch.randn(5, 1, 4, 4),
            torch.randn((5, 1, 4, 4), generator=generator, dtype=torch.float64, device="cpu"),
            torch.randn(size=(5, 1, 4, 4)),
            torch.randn_like(stack(4)),
            torch.randn_like(stack(4), dtype=torch.float64),
        ]
        assert torch.randn(7, 3).shape == (7, 3)  # too small for a stack
        with pytest.raises(ValueError, match="stack of 5 slices"):
            torch.randn(2, 1, 4, 4)
    for step, x in enumerate(drawn):
        assert torch.equal(x.float(), field.draw(POSITIONS, (1, 4, 4), seed=6, step=step))
    assert [x.dtype for x in drawn] == [torch.float32, torch.float64, torch.float32, torch.float32, torch.float64]
    assert torch.randn(2, 1, 4, 4).shape == (2, 1, 4, 4)
