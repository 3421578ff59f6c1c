"""The adapters with the samplers of diffusers, k-diffusion and deepinv: the noise that they add is the field.

The law is that of test_adapters.py: all noise passes linearly, so slices of a result correlate as the field does.
"""

import math

import pytest
import torch

from interslice.noise.markov import MaternNoise
from interslice.sampling.adapters import FieldNoise, FieldRandn, NoiseSampler
from tests.sampling.test_adapters import POSITIONS, GeneratorNoise, assert_follows, correlation, every_field, stack
from tests.support.helpers import normal
from tests.support.libraries import library

# --- diffusers


def diffusers_sample(scheduler, x, **options):
    if scheduler.num_inference_steps is None:
        scheduler.set_timesteps(4)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        given = {name: make(x) for name, make in options.items()}
        x = scheduler.step(0.5 * scheduler.scale_model_input(x, t), t, x, **given).prev_sample
    return x


@every_field
@pytest.mark.parametrize(
    "name, arguments",
    [("DDIMScheduler", {"clip_sample": False}), ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"})],
)
def test_diffusers_takes_the_field_as_variance_noise(field, name, arguments):
    scheduler = getattr(library("diffusers"), name)(**arguments)
    noise = FieldNoise(field, POSITIONS, seed=8)
    options = {"eta": lambda x: 1.0} if name == "DDIMScheduler" else {}
    assert_follows(diffusers_sample(scheduler, noise.like(stack()), variance_noise=noise.like, **options), field)
    assert noise.next_step == 5


def test_diffusers_own_noise_gives_its_own_result():
    diffusers = library("diffusers")
    noise, generator = FieldNoise(GeneratorNoise(3), POSITIONS), torch.Generator().manual_seed(3)
    x, eta = normal(5, 1, 8, 8), {"eta": lambda x: 1.0}
    ours = diffusers_sample(diffusers.DDIMScheduler(), x, variance_noise=noise.like, **eta)
    theirs = diffusers_sample(diffusers.DDIMScheduler(), x, generator=lambda x: generator, **eta)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_schedulers_of_diffusers_without_an_argument_for_noise(name):
    diffusers = library("diffusers")
    field = MaternNoise(8.0)
    with FieldRandn(FieldNoise(field, POSITIONS)):
        scheduler = getattr(diffusers, name)(**({"clip_sample": False} if name == "DDPMScheduler" else {}))
        assert_follows(diffusers_sample(scheduler, torch.randn(stack().shape)), field)


def test_the_sde_solver_of_diffusers_calls_a_noise_sampler():
    """It draws for half a step and then for the whole, as k-diffusion's sample_dpmpp_sde does."""
    diffusers, _ = library("diffusers"), library("torchsde")
    field = MaternNoise(8.0)
    noise = FieldNoise(field, POSITIONS)
    scheduler = diffusers.DPMSolverSDEScheduler()
    scheduler.set_timesteps(4)
    calls, sampler = [], NoiseSampler(noise, stack())

    def record(sigma, sigma_next):
        drawn = sampler(sigma, sigma_next)
        calls.append((float(sigma), float(sigma_next), drawn))
        return drawn

    scheduler.noise_sampler = record  # set_timesteps would forget it
    assert_follows(diffusers_sample(scheduler, noise.like(stack())), field)
    assert len(calls) == 6
    for (start, half, a), (same, end, b) in zip(calls[::2], calls[1::2]):
        assert start == same and half > end
        assert float((a * b).mean()) == pytest.approx(math.sqrt((start - half) / (start - end)), abs=0.05)


# --- k-diffusion


@pytest.mark.parametrize("name", ["sample_euler_ancestral", "sample_dpmpp_sde", "sample_dpmpp_2m_sde"])
def test_samplers_of_k_diffusion_with_the_field(name):
    library("k_diffusion")
    from k_diffusion import sampling

    field = MaternNoise(8.0)
    noise = FieldNoise(field, POSITIONS)
    start = 10 * noise.like(stack())

    def sample(draw):
        sigmas = sampling.get_sigmas_karras(6, 0.1, 10.0)
        return getattr(sampling, name)(lambda x, sigma: 0.5 * x, start, sigmas, disable=True, noise_sampler=draw)

    x = sample(NoiseSampler(noise, start))
    assert_follows(x, field)
    own = sample(sampling.BrownianTreeNoiseSampler(start, 0.1, 10.0, seed=1))
    assert float(x.std() / own.std()) == pytest.approx(1, abs=0.05)  # slices alone have the law that they had


# --- deepinv


def deepinv_parts(timesteps=(1.0, 0.6, 0.3, 0.1, 0.02)):
    """The library, a linear denoiser for it, time steps, and measured slices of which each second pixel is missing."""
    deepinv = library("deepinv")

    class Half(deepinv.models.Denoiser):
        def forward(self, x, sigma, **options):
            return 0.5 * x

    mask = (torch.arange(64 * 64).reshape(1, 64, 64) % 2).float()
    physics = deepinv.physics.Inpainting(img_size=(1, 64, 64), mask=mask)
    return (
        deepinv,
        Half(),
        torch.tensor(timesteps, dtype=torch.float64),
        physics,
        torch.zeros(len(POSITIONS), 1, 64, 64),
    )


@pytest.mark.parametrize("solver", ["EulerSolver", "HeunSolver", "DDPMSolver"])
def test_deepinvs_posterior_diffusion_draws_from_the_field(solver):
    deepinv, denoiser, timesteps, physics, y = deepinv_parts()
    field = MaternNoise(8.0)
    solver = getattr(deepinv.sampling, solver)(timesteps=timesteps)
    sde = deepinv.sampling.VariancePreservingDiffusion(denoiser=denoiser)
    model = deepinv.sampling.PosteriorDiffusion(sde=sde, solver=solver, minus_one_one=False)

    def sample():
        noise = FieldNoise(field, POSITIONS, seed=9)
        solver.randn_like = noise.like
        start = noise.like(y.double()) * sde.sigma_t(timesteps[0]) * sde.scale_t(timesteps[0])
        x = model(y, physics, x_init=start)
        assert noise.next_step == 5
        return x

    x = sample()
    assert_follows(x, field)
    assert torch.equal(x, sample())


def test_deepinvs_own_noise_gives_its_own_result():
    deepinv, denoiser, timesteps, physics, y = deepinv_parts()
    sde = deepinv.sampling.VariancePreservingDiffusion(denoiser=denoiser)
    solver = deepinv.sampling.DDPMSolver(timesteps=timesteps, rng=torch.Generator().manual_seed(3))
    model = deepinv.sampling.PosteriorDiffusion(sde=sde, solver=solver)
    start = normal(*y.shape, dtype=torch.float64)
    theirs = model(y, physics, x_init=start)
    solver.randn_like = FieldNoise(GeneratorNoise(3, torch.float64), POSITIONS).like
    assert torch.equal(model(y, physics, x_init=start), theirs)


@pytest.mark.parametrize("name", ["DiffPIR", "DDRM"])
def test_samplers_of_deepinv_that_draw_inside(name):
    deepinv, denoiser, _, physics, y = deepinv_parts()
    field = MaternNoise(8.0)
    if name == "DDRM":
        model = deepinv.sampling.DDRM(denoiser, sigmas=torch.linspace(1, 0.1, 5).tolist())
    else:
        model = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=5)
    with FieldRandn(FieldNoise(field, POSITIONS)):
        x = model(y, physics)
    missing = physics.mask.flatten() == 0
    x = x.flatten(1)[:, missing]
    expected = field.covariance(POSITIONS)
    assert (correlation(x) - expected).abs().max() < 5 / math.sqrt(x.shape[1])
