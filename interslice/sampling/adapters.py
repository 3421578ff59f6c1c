"""The noise fields in samplers of other libraries: the batch of slices is the volume, and its noise is one field.

A sampler of 2-D images that is given the slices of a volume as a batch x (S, C, H, W) draws torch.randn_like(x): its
slices share nothing. Here the same call gives a field, so that every slice is N(0, I) as before, and

    cov(noise_i, noise_j) = k(z_i, z_j)        for slices at z_i, z_j (mm); another field at each call.

    FieldNoise       noise.like(x), for samplers that take noise as an argument or call a function for it
    NoiseSampler     noise_sampler(sigma, sigma_next), as in k-diffusion: increments of a Brownian motion of fields
    FieldScheduler   for the DiffusionInferer of MONAI, whose schedulers take no noise from outside
    FieldRandn       torch.randn and torch.randn_like within a `with` block, for samplers that leave no other way in

docs/how_to/drop_in.md shows each in the library that it is for.
"""

from __future__ import annotations

import math

import torch
from monai.networks.schedulers import DDIMScheduler
from monai.networks.schedulers.ddim import DDIMPredictionType
from torch.overrides import TorchFunctionMode

from interslice.noise.field import NoiseField, Positions, as_positions
from interslice.prior.diffusion import SIGMA_RULES, predict_eps, predict_x0, renoise


class FieldNoise:
    """Draws of a noise field in the shape of a stack of slices, a fresh one at each call.

    Args:
        noise_field: how the slices share their noise.
        positions: of the slices of the whole volume, in mm from its beginning; a number S stands for S slices 1 mm
            apart.
        seed: with the number of the call, the key of a draw: another object with this seed repeats the draws.
        slices: which of the slices a stack holds, if the volume is sampled in parts; all by default. Parts that make
            the same calls get parts of the same fields.
    """

    def __init__(
        self, noise_field: NoiseField, positions: Positions, seed: int = 0, slices: range | None = None
    ) -> None:
        if not isinstance(noise_field, NoiseField):
            raise TypeError(
                f"noise_field must draw noise by itself, got {noise_field!r}: of what is fitted to a measurement, "
                "take the field that its fit returns"
            )
        self.noise_field, self.positions, self.seed = noise_field, as_positions(positions), seed
        self.slices = range(len(self.positions)) if slices is None else slices
        self.next_step = 0

    def like(self, sample: torch.Tensor, step: int | None = None, level: float = 1.0) -> torch.Tensor:
        """Noise in the shape of `sample`, on its device and in its dtype; the values of `sample` do not matter.

        Args:
            sample: (S, C, H, W) or (S, H, W), one entry per slice.
            step: number of the draw; by default that of the last call plus 1, from 0.
            level: standard deviation of the noise in the image that is made, from 0 (clean) to 1 (pure noise); matters
                to fields whose parameters follow the schedule.

        Raises:
            ValueError: the entries of the batch are not the slices.
        """
        if sample.ndim < 3 or len(sample) != len(self.slices):
            raise ValueError(
                f"expected a stack of {len(self.slices)} slices (S, C, H, W), got the shape {tuple(sample.shape)}; "
                "the batch must hold the slices of one volume, all of them or those named by `slices`"
            )
        step = self.next_step if step is None else step
        self.next_step = max(self.next_step, step + 1)
        shape = tuple(sample.shape[1:])
        field = self.noise_field.draw(
            self.positions, shape, seed=self.seed, step=step, level=level, slices=self.slices, device=sample.device
        )
        return field.to(sample.dtype).contiguous()


class NoiseSampler:
    """`noise_sampler(sigma, sigma_next)` as k-diffusion calls it: unit noise for the way from sigma down to sigma_next.

    W is a Brownian motion over sigma with a field as its unit increment, and (W(sigma_next) - W(sigma)) / sqrt(sigma -
    sigma_next) is returned. Ways that do not overlap get independent fields, which is all that ancestral samplers ask
    for. A sampler that draws for half of its step and then for the whole (DPM-Solver++ SDE) gets two that agree:
    correlated by the square root of their ratio. What lies behind is forgotten; a start above all that is remembered
    begins another motion.

    Args:
        noise: where the fields come from, one for each new sigma.
        sample: (S, C, H, W), of the shape, dtype and device of the noise.
    """

    def __init__(self, noise: FieldNoise, sample: torch.Tensor) -> None:
        self.noise = noise
        self.like = sample.new_empty(1).expand(sample.shape)  # its shape, in the memory of one number
        self.path: dict[float, torch.Tensor | float] = {}  # W by sigma, downwards

    def __call__(self, sigma: float | torch.Tensor, sigma_next: float | torch.Tensor) -> torch.Tensor:
        """Noise (S, C, H, W); raises ValueError unless sigma falls and stays at or above 0."""
        start, end = float(sigma), float(sigma_next)
        if not 0 <= end < start:
            raise ValueError(f"sigma must fall from one call's first argument to its second, got {start:g}, {end:g}")
        if not self.path or start > max(self.path):
            self.path = {start: 0.0}
        self._visit(start)
        self._visit(end)
        origin = self.path[start]
        self.path = {s: w - origin for s, w in self.path.items() if s <= start}
        return self.path[end] / math.sqrt(start - end)

    def _visit(self, sigma: float) -> None:
        """Let the path know W(sigma)."""
        if sigma in self.path:
            return
        above = min(s for s in self.path if s > sigma)
        below = max((s for s in self.path if s < sigma), default=None)
        fresh = self.noise.like(self.like, level=sigma / math.hypot(1, sigma))
        if below is None:
            w = self.path[above] + math.sqrt(above - sigma) * fresh
        else:  # a Brownian bridge
            share = (above - sigma) / (above - below)
            w = (1 - share) * self.path[above] + share * self.path[below] + math.sqrt(share * (sigma - below)) * fresh
        self.path = dict(sorted({**self.path, sigma: w}.items(), reverse=True))


class FieldScheduler(DDIMScheduler):
    """MONAI's DDIM with fields as its noise, for `DiffusionInferer(scheduler).sample(...)`.

    A step leads to the next of `timesteps`, whatever list that is, and the last one to the clean image; MONAI's own
    schedulers count T / (number of steps) back, or 1, which need not be in the list.

    Args:
        noise: of the slices in the batch.
        eta: share of the fresh noise, from 0 (none) to 1; with "ddim" 1 is ancestral sampling (DDPM).
        sigma_rule: "ddim" or "fixed_share", see `interslice.prior.diffusion`.
        arguments: those of `DDIMScheduler`, by name.
    """

    def __init__(self, noise: FieldNoise, eta: float = 1.0, sigma_rule: str = "ddim", **arguments) -> None:
        super().__init__(**arguments)
        if not 0 <= eta <= 1 or sigma_rule not in SIGMA_RULES:
            raise ValueError(
                f"eta must lie in [0, 1] and sigma_rule be one of {', '.join(SIGMA_RULES)}, got {eta}, {sigma_rule!r}"
            )
        self.noise, self.eta, self.sigma_rule = noise, eta, sigma_rule

    def step(
        self, model_output: torch.Tensor, timestep: int | torch.Tensor, sample: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x_s and the estimate of x_0, both (S, C, H, W), from the network's output for x_t; s is the next timestep.

        Raises:
            ValueError: `timestep` is not in `timesteps`.
        """
        t, steps = int(timestep), self.timesteps.tolist()
        if t not in steps:
            raise ValueError(f"timestep {t} is not in scheduler.timesteps; choose them with set_timesteps first")
        index = steps.index(t)
        ab_t = float(self.alphas_cumprod[t])
        ab_s = float(self.alphas_cumprod[steps[index + 1]] if index + 1 < len(steps) else self.final_alpha_cumprod)
        x0, eps = self._estimates(model_output, sample, ab_t)
        if self.clip_sample:
            x0 = x0.clamp(*self.clip_sample_values)
        sigma = SIGMA_RULES[self.sigma_rule](ab_t, ab_s, self.eta)
        noise = self.noise.like(sample, level=math.sqrt(1 - ab_s)) if sigma > 0 else torch.zeros_like(sample)
        return renoise(x0, eps, noise, ab_s, sigma), x0

    def _estimates(self, model_output, sample, ab_t) -> tuple[torch.Tensor, torch.Tensor]:
        """x_0 and eps, from whichever of them, or of their mixture v, the network predicts."""
        if self.prediction_type == DDIMPredictionType.EPSILON:
            return predict_x0(sample, model_output, ab_t), model_output
        if self.prediction_type == DDIMPredictionType.SAMPLE:
            return model_output, predict_eps(sample, model_output, ab_t)
        x0 = math.sqrt(ab_t) * sample - math.sqrt(1 - ab_t) * model_output
        return x0, math.sqrt(ab_t) * model_output + math.sqrt(1 - ab_t) * sample


class FieldRandn(TorchFunctionMode):
    """Within `with FieldRandn(noise):`, torch.randn and torch.randn_like give draws of `noise`.

    For samplers that draw inside and take no noise. A `generator` that they pass is not used. Draws of fewer than three
    dimensions are left alone; a draw of three or more that is not the stack of slices raises ValueError, rather than
    being independent without a word.
    """

    EMPTY = {torch.randn: torch.empty, torch.randn_like: torch.empty_like}

    def __init__(self, noise: FieldNoise) -> None:
        super().__init__()
        self.noise = noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.EMPTY:
            like = self.EMPTY[func](*args, **{name: v for name, v in kwargs.items() if name != "generator"})
            if like.ndim > 2:
                return self.noise.like(like)
        return func(*args, **kwargs)
