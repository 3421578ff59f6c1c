"""A leaner network learns from a larger one that is trained: distillation of one pass.

    E |eps_student(sqrt(ab_t) x + sqrt(1 - ab_t) eps, t) - eps_teacher(the same)|^2

The noise itself is the expectation that the teacher has learned plus what nobody can know, which at low noise is most
of it: a student that is shown the expectation has less to average over. After Hinton, Vinyals and Dean, "Distilling the
knowledge in a neural network" (2015); here both networks predict the noise, and no step is saved, only work within one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from monai.networks.schedulers import DDIMScheduler

from interslice.files.paths import path_of
from interslice.prior.network import network_for
from interslice.prior.training import LowNoisePrepareBatch
from interslice.prior.weights import Weights, start_from


def teacher_for(path: str | Path | None, schedule: Mapping, scale: Mapping, device: torch.device | str = "cpu"
                ) -> torch.nn.Module | None:  # fmt: skip
    """The network that the weights at `path` are for, loaded and frozen; None where there is no path.

    Args:
        path: of the teacher's weights.
        schedule, scale: of the training; the teacher must know the same noise schedule and intensities.
        device: where the teacher runs.

    Raises:
        FileNotFoundError, ValueError: see interslice.prior.weights.start_from.
    """
    if path is None:
        return None
    weights = Weights(path_of("teacher", path), scale["kind"])
    teacher = network_for(weights)
    teacher.about |= {"schedule": dict(schedule), "scale": dict(scale)}
    start_from(teacher, weights)
    return teacher.eval().requires_grad_(False).to(device=device, memory_format=torch.channels_last)


class TaughtPrepareBatch(LowNoisePrepareBatch):
    """What is to be predicted is what a teacher predicts of the same noisy image; without a teacher, the noise.

    Args:
        scheduler: makes the noisy image, as the trainer's inferer does.
        teacher: as network(x, timesteps) -> the predicted noise, (N, 1, H, W); or None.
        power: see `LowNoisePrepareBatch`.
    """

    def __init__(self, scheduler: DDIMScheduler, teacher: torch.nn.Module | None = None, power: float = 1.5) -> None:
        super().__init__(scheduler.num_train_timesteps, power)
        self.scheduler, self.teacher = scheduler, teacher

    @torch.no_grad()
    def get_target(self, images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        if self.teacher is None:
            return noise
        noisy = self.scheduler.add_noise(original_samples=images, noise=noise, timesteps=timesteps)
        return self.teacher(noisy.contiguous(memory_format=torch.channels_last), timesteps)
