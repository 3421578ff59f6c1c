"""How long a job takes: by what earlier runs have recorded, or else by its own first steps.

    seconds = (before the first step) + steps * (a step)

The steps are those of the reconstruction itself, which is left after two of them, or PATIENCE seconds after it began
the first.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from monai.data import MetaTensor

from interslice.physics.measurement import operator_of
from interslice.prior.batches import CPU_BATCH
from interslice.sampling.missing_directions import MissingDirections

STEPS = 2
"""Of a reconstruction, to be measured: planes that alternate differ."""
PATIENCE = 20.0
"""Seconds after which it is left in the midst of a step."""
TRIALS = 3


class Enough(Exception):
    """Leaves a reconstruction that has been measured."""


class StepClock:
    """An observer of the sampler: keeps the times at which steps end, and leaves it when there are enough."""

    def __init__(self) -> None:
        self.began = self.first = time.perf_counter()
        self.ended: list[float] = []
        self.calls = 0

    def begin(self, affine: torch.Tensor) -> None:
        self.first = time.perf_counter()

    def __call__(self, *step) -> None:
        self.ended.append(time.perf_counter())
        if len(self.ended) >= STEPS:
            raise Enough

    def call(self, *_) -> None:
        """Before every call of the network."""
        self.calls += 1
        if time.perf_counter() - self.first > PATIENCE:
            raise Enough


def seconds_of_sampling(inferer, sampler, network: torch.nn.Module, measurement: MetaTensor,
                        check) -> tuple[float | None, str]:  # fmt: skip
    """Seconds that a reconstruction takes, and how that was found; None where it cannot be tried.

    Args:
        inferer, sampler, network: of the run; the sampler is left as it was.
        measurement: (1, ...), prepared.
        check: of the memory (interslice.report.memory.CheckMemoryd), which knows where the volumes will lie.
    """
    operator, storage = operator_of(measurement), sampler.storage
    if storage is not None and storage.of(check.device, sum(check.estimate(measurement)[0].values())).place == "disk":
        return None, "its volumes would lie on the disk, and nothing is written"
    clock, was = StepClock(), (sampler.observer, sampler.progress, sampler.keeper)
    sampler.observer, sampler.progress, sampler.keeper = clock, False, None
    hook = network.register_forward_pre_hook(clock.call) if isinstance(network, torch.nn.Module) else None
    used = inferer.sampler_for(operator) if isinstance(inferer, MissingDirections) else sampler
    steps, network_was = used.num_steps * used.num_draws, network.training
    try:
        inferer(measurement.to(check.device)[None], network.eval())
    except Enough:
        pass
    finally:
        sampler.observer, sampler.progress, sampler.keeper = was
        network.train(network_was)
        if hook is not None:
            hook.remove()
    now = time.perf_counter()
    if not clock.ended:  # a share of the first step
        batches = math.ceil(max(operator.domain_shape) / CPU_BATCH)
        each = batches * (now - clock.first) / max(1, clock.calls)
        return clock.first - clock.began + steps * each, "by a part of its first step"
    each = (clock.ended[-1] - clock.first) / len(clock.ended)
    return clock.first - clock.began + steps * each, f"by {len(clock.ended)} of its {steps} steps"


def recorded_rate(output_dir: Path, record) -> float | None:
    """Seconds for each voxel of the result, of the newest run there of the same settings, on such a device."""
    same = (json.loads(json.dumps(record.settings)), str(record.device), torch.get_num_threads())
    newest = None
    for file in output_dir.glob("*/run.json"):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if (found["settings"], found["device"], found["threads"]) == same and not found.get("resumed_after"):
                rate, when = found["seconds"] / math.prod(found["output_shape"]), file.stat().st_mtime
                newest = max(newest or (when, rate), (when, rate))
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
    return None if newest is None else newest[1]


def seconds_of_training(network: torch.nn.Module, patch_size: int, batch_size: int) -> float:
    """Seconds of a step of training, of the network alone."""
    device = next(network.parameters()).device
    x = torch.randn(batch_size, 1, patch_size, patch_size, device=device)
    t = torch.full((batch_size,), 500, device=device)
    taken = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        network(x, t).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    network.zero_grad()
    return min(taken)


def in_words(seconds: float | None) -> str:
    """A time as a person says it: "about 40 s"."""
    if seconds is None or math.isnan(seconds):
        return "not known"
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return (
                f"about {seconds / size:.2g} {unit}" if seconds < 100 * size else f"about {seconds / size:.0f} {unit}"
            )
    return f"about {max(1, round(seconds))} s"
