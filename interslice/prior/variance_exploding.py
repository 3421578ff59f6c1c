"""Variance-exploding networks as priors of the variance-preserving sampler.

    variance exploding     z = x_0 + sigma n                          sigma from 0 to infinity
    variance preserving    x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) n     ab_t from 1 to 0

The two differ by a factor: z = x_t / sqrt(ab_t) with sigma = sqrt((1 - ab_t) / ab_t), and n is the same (Song et al.,
"Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021; Karras et al., "Elucidating the
Design Space of Diffusion-Based Generative Models", NeurIPS 2022). So a network of one kind answers for the other at
every noise level that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from interslice.usage import UsageError


def noise_from_score(z: torch.Tensor, score: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """n of a score network: score = -n / sigma."""
    return -sigma * score


def noise_from_denoised(z: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """n of a denoiser D(z, sigma) = x_0, as in EDM."""
    return (z - denoised) / sigma


def noise_itself(z: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """n of a network that predicts it."""
    return noise


NOISE_FROM = {"score": noise_from_score, "denoised": noise_from_denoised, "epsilon": noise_itself}


class FromVarianceExploding(torch.nn.Module):
    """A variance-exploding network f(z, c(sigma)) as the noise prediction eps(x_t, t) that `SlicePrior` asks for.

    Args:
        network: called as network(z, c) with z (N, 1, H, W) and c (N,).
        alphas_cumprod: alpha-bar of every timestep of the sampler, (T,).
        output: what the network returns: "score", "denoised" or "epsilon".
        condition: sigma (N,) -> c (N,), what the network is told of the noise level; sigma itself by default. EDM's
            networks, for one, want `$lambda sigma: sigma.log() / 4`.

    Raises:
        ValueError: unknown `output`.
    """

    def __init__(self, network: torch.nn.Module, alphas_cumprod: torch.Tensor, output: str = "score",
                 condition: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:  # fmt: skip
        super().__init__()
        if output not in NOISE_FROM:
            raise UsageError(f"output must be one of {sorted(NOISE_FROM)}, got {output!r}")
        self.network, self.output, self.condition = network, output, condition
        self.register_buffer("alphas_cumprod", torch.as_tensor(alphas_cumprod).float(), persistent=False)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        ab = self.alphas_cumprod[t]
        sigma = torch.sqrt((1 - ab) / ab)
        z = x_t / torch.sqrt(ab)[:, None, None, None]
        answer = self.network(z, sigma if self.condition is None else self.condition(sigma))
        return NOISE_FROM[self.output](z, answer, sigma[:, None, None, None])
