"""What training a prior adds to MONAI's engines: noise levels, their validation, and a grid of samples.

Training minimises E |eps_theta(sqrt(ab_t) x + sqrt(1 - ab_t) eps, t) - eps|^2 (Ho et al., 2020, eq. 14).
Images are (N, 1, H, W) in [-1, 1]; timesteps are integers in [0, T).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from matplotlib import image as image_file
from monai.engines.utils import DiffusionPrepareBatch
from monai.networks.schedulers import DDIMScheduler
from monai.transforms import Compose

from interslice.files.switch import is_on
from interslice.files.values import number, rising_pair, whole_number
from interslice.files.whole import written_whole
from interslice.prior.pool import volume_weights
from interslice.ranks import is_first, world_size
from interslice.usage import UsageError

WHOLE_NUMBERS = {
    "max_epochs": 1, "val_interval": 1, "epoch_length": 1, "patch_size": 1, "batch_size": 1, "num_workers": 0,
    "seed": 0,
}  # fmt: skip
"""Settings of a training and their least values."""
SWITCHES = ("resume", "resample_shear", "coarser", "grow", "compile")


def check_training(multiple: int = 1, **settings) -> dict:
    """Settings that parts of MONAI and torch take unseen, checked before a volume is read; returns them.

    Args:
        multiple: the network takes images whose sides are multiples of it.
        settings: by the ids of configs/train.json.

    Raises:
        ValueError: a value makes no sense, or the network does not take patches of this size.
    """
    whole_number("multiple", multiple, 1)
    for name, least in WHOLE_NUMBERS.items():
        if name in settings:
            whole_number(name, settings[name], least)
    if "learning_rate" in settings:
        number("learning_rate", settings["learning_rate"], above=0)
    if "ema_momentum" in settings:
        number("ema_momentum", settings["ema_momentum"], above=0, most=1)
    if settings.get("max_minutes") is not None:
        number("max_minutes", settings["max_minutes"], above=0, kind="a number of minutes")
    if "foreground" in settings:
        number("foreground", settings["foreground"])
    if "coarser_sizes" in settings:
        rising_pair("coarser_sizes", settings["coarser_sizes"], above=0)
    if "volume_weights" in settings:
        volume_weights(settings["volume_weights"])
    for name in SWITCHES:
        is_on(settings.get(name, False), name)
    size = settings.get("patch_size", multiple)
    if size % multiple:
        near = [n for n in (size // multiple * multiple, -(-size // multiple) * multiple) if n]
        raise UsageError(
            f"patch_size must be a multiple of {multiple}, which the network halves to whole pixels, got {size}: take "
            f"{' or '.join(map(str, near))}"
        )
    return settings | {name: is_on(settings[name], name) for name in SWITCHES if name in settings}


def say_effective_batch(batch_size: int, learning_rate: float) -> None:
    """Say, on rank 0, what several ranks train with.

    A step is that of one process with all their patches, and so is the learning rate: nothing is scaled in silence.
    With AdamW it is usually raised with the square root of the batch (Malladi et al., NeurIPS 2022).
    """
    ranks = world_size()
    if is_first() and ranks > 1:
        print(
            f"{ranks} ranks of {batch_size} patches: the effective batch is {ranks * batch_size}, and learning_rate "
            f"{learning_rate:g} is that of it; usual is sqrt({ranks}) times that of one rank"
        )


def fixed_patches(volumes: list[dict], transform: Compose, seed: int) -> list[dict]:
    """The patches of `volumes` that `transform` draws with `seed`: the same in every epoch and run."""
    transform.set_random_state(seed)
    return [patch for volume in volumes for patch in transform(volume)]


class LowNoisePrepareBatch(DiffusionPrepareBatch):
    """Draws t = T u^power, u uniform: power 1 is uniform, 2 puts half of the draws below T / 4.

    Reconstruction starts warm and spends its steps at low noise; a short training should too.
    """

    def __init__(self, num_train_timesteps: int, power: float = 1.5) -> None:
        super().__init__(num_train_timesteps=num_train_timesteps)
        if power <= 0:
            raise UsageError(f"power must be positive, got {power}")
        self.power = power

    def get_timesteps(self, images: torch.Tensor) -> torch.Tensor:
        u = torch.rand(images.shape[0], device=images.device)
        return (self.num_train_timesteps * u**self.power).long().clamp_max(self.num_train_timesteps - 1)


class FixedLevelPrepareBatch(DiffusionPrepareBatch):
    """For validation: every image at one of `levels` in turn, with noise from a fixed seed.

    The same images then give the same noisy images in every epoch, so errors compare across epochs.
    """

    def __init__(self, num_train_timesteps: int, levels: Sequence[int], seed: int = 0) -> None:
        super().__init__(num_train_timesteps=num_train_timesteps)
        if not levels or not all(0 <= t < num_train_timesteps for t in levels):
            raise UsageError(f"levels must lie in [0, {num_train_timesteps}), got {list(levels)}")
        self.levels = torch.tensor(list(levels))
        self.seed = seed

    def get_noise(self, images: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(images.shape, generator=generator).to(images.device)

    def get_timesteps(self, images: torch.Tensor) -> torch.Tensor:
        return self.levels[torch.arange(images.shape[0]) % len(self.levels)].to(images.device)


class ErrorPerNoiseLevel(Metric):
    """Mean squared error of the predicted noise per timestep, and its mean over the timesteps.

    Attached to an evaluator whose `decollate` is false, it adds `noise_mse_tNNN` per level to
    `engine.state.metrics` and, under its own name, minus their mean (checkpointing keeps the largest).

    Args:
        prepare_batch: the evaluator's own; it tells which timestep each image of a batch was given.
    """

    def __init__(self, prepare_batch: FixedLevelPrepareBatch) -> None:
        self.prepare_batch = prepare_batch
        super().__init__(output_transform=lambda output: (output["pred"], output["label"]))

    def reset(self) -> None:
        self.errors: dict[int, list[float]] = {}

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        pred, target = output
        errors = (pred.float() - target.float()).square().flatten(1).mean(1)
        for t, error in zip(self.prepare_batch.get_timesteps(pred).tolist(), errors.tolist(), strict=True):
            self.errors.setdefault(t, []).append(error)

    def compute(self) -> dict[str, float]:
        if not self.errors:
            raise ValueError("no validation image was seen: check validation_dir")
        return {f"noise_mse_t{t:03d}": float(np.mean(e)) for t, e in sorted(self.errors.items())}

    def completed(self, engine: Engine, name: str) -> None:
        levels = self.compute()
        engine.state.metrics |= {**levels, name: -float(np.mean(list(levels.values())))}


class ValidateStart:
    """Handler of a trainer, on rank 0: validates the weights that it starts from, as epoch 0 of the history.

    So what a fine-tuning or an adaptation writes is never worse on the validation slices than what it started from.
    """

    def __init__(self, validator: Engine, enabled: bool) -> None:
        self.validator, self.enabled = validator, enabled

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.enabled and engine.state.epoch == 0 and is_first():
            self.validator.run(1)  # engines of ignite count from 1


class ValidateEnd:
    """Handler of a trainer, on rank 0: validates at its end, if its last epoch was not.

    A budget in minutes ends with any.
    """

    def __init__(self, validator: Engine, interval: int) -> None:
        self.validator, self.interval = validator, interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch % self.interval and is_first():
            self.validator.run(engine.state.epoch)


class KeepBest:
    """Handler of an evaluator: writes `model`'s weights to `path` whenever the key metric is the best so far.

    The best score is part of its state, so that a resumed training does not overwrite a better model.
    """

    def __init__(self, model: torch.nn.Module, path: str, metric: str = "neg_noise_mse") -> None:
        self.model, self.path, self.metric, self.best = model, Path(path), metric, -math.inf

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.metrics[self.metric] > self.best:
            self.best = float(engine.state.metrics[self.metric])
            with written_whole(self.path) as partial:
                torch.save(self.model.state_dict(), partial)

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best = state["best"]


class SampleGrid:
    """Writes a PNG of samples drawn from the network alone (DDIM, eta = 0), after each validation.

    Args:
        network: the network to sample, on `device`.
        scheduler: the schedule it was trained with.
        path: the PNG file, overwritten each time.
        num_samples, size, num_steps: samples of (size, size) pixels from `num_steps` network calls.
    """

    def __init__(self, network: torch.nn.Module, scheduler: DDIMScheduler, path: str, device: torch.device,
                 num_samples: int = 12, size: int = 96, num_steps: int = 25) -> None:  # fmt: skip
        self.network, self.scheduler, self.path, self.device = network, scheduler, Path(path), device
        self.num_samples, self.size, self.num_steps = num_samples, size, num_steps

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    @torch.inference_mode()
    def __call__(self, engine: Engine) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.num_samples, 1, self.size, self.size, generator=generator).to(self.device)
        self.scheduler.set_timesteps(self.num_steps)
        for t in self.scheduler.timesteps:
            eps = self.network(x, torch.full((self.num_samples,), int(t), device=self.device))
            x, _ = self.scheduler.step(eps, int(t), x)
        rows = x[:, 0].float().cpu().clamp(-1, 1).unflatten(0, (2, -1)).movedim(2, 1)
        with written_whole(self.path) as partial:
            image_file.imsave(partial, rows.flatten(2).flatten(0, 1).numpy(), cmap="gray", vmin=-1, vmax=1)


class HistoryFile:
    """One JSON line per validation: epoch, iteration, mean training loss since the last one, validation metrics.

    A line takes the place of those of its epoch and of later ones, which a training left that went on from before, or
    one that was in the folder. The losses since the last validation are its state.
    """

    def __init__(self, trainer: Engine, path: str) -> None:
        self.trainer, self.path, self.losses = trainer, Path(path), []

    def attach(self, engine: Engine) -> None:
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.keep_loss)
        engine.add_event_handler(Events.COMPLETED, self)

    def keep_loss(self, engine: Engine) -> None:
        output = engine.state.output
        # Not yet a number: on a GPU that would wait for the iteration to end.
        self.losses.append((output[0] if isinstance(output, list) else output)["loss"].detach())

    def __call__(self, engine: Engine) -> None:
        state = self.trainer.state
        line = {
            "epoch": state.epoch,
            "iteration": state.iteration,
        }
        if self.losses:  # there is none before the first epoch
            line["train_loss"] = float(np.mean(self._numbers()))
        line |= {k: round(float(v), 6) for k, v in engine.state.metrics.items()}
        self.losses = []
        lines = [*lines_before(state.epoch, self.path), json.dumps(line)]
        with written_whole(self.path) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": self._numbers()}

    def _numbers(self) -> list[float]:
        self.losses = [float(loss) for loss in self.losses]
        return list(self.losses)

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.losses = list(state["losses"])


def lines_before(epoch: int, path: Path) -> list[str]:
    """The lines of a history file that are of earlier epochs; what cannot be read is left out."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            if json.loads(line)["epoch"] < epoch:
                kept.append(line)
        except (ValueError, TypeError, KeyError):
            continue
    return kept
