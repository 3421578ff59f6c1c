"""Where the time and memory of a run go; prints JSON.

    python -m scripts.benchmark                            the default run on the embedded sample
    python -m scripts.benchmark --before                   and as version 0.4.0 did it, paired, some times in turn
    python -m scripts.benchmark --profile                  what the loop of the last draw calls, and copies
    python -m scripts.benchmark --task svct                another task's; of projectors: .studies.benchmark_projectors
    python -m scripts.benchmark --batch_sizes 1 2 4 8 16   and network throughput per batch size and memory format

A run is timed as a whole (reading, sampling, writing), and by its parts. Its network calls are timed twice: inside the
run, and bare, as the same number of calls on the same shapes right after it. `outside_network` is the share of the run
that is not network. On a GPU every part is waited for, before and after, so that the whole is a little slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import psutil
import torch
from monai.bundle import ConfigWorkflow

from interslice.files.last_words import plain_endings
from interslice.files.run_record import peak_memory_mb
from interslice.files.save_results import SaveResults
from interslice.noise.field import NoiseField
from interslice.report.page.write import WriteReport
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.sampling.volume_noise import VolumeNoise

BEFORE = {
    "slice_batch_size": 8, "precision": "$'tf32' if @device.type == 'cuda' else 'float32'", "skip_air": False,
    "write_cases#beside": False,
}  # fmt: skip
"""What version 0.4.0 did (convolutions on GPUs in torch's default precision); its noise was drawn on the CPU. What has
become faster of interpolation, compression and restoring is not undone."""


class Parts:
    """Seconds that parts of a run take, by name, and the shapes that its network was called with."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self.shapes = device, Counter(), Counter()

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, its calls counted to a part."""

        def call(*args, **kwargs):
            start = now(self.device)
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name] += now(self.device) - start

        return call

    @contextmanager
    def watching(self, workflow: ConfigWorkflow) -> Iterator[None]:
        """Within it, the parts of the workflow's run are timed."""
        network, sampler = workflow.evaluator.network, workflow.parser.get_parsed_content("sampler")
        dataset = workflow.evaluator.data_loader.dataset

        def noted(module, inputs):
            self.shapes[tuple(inputs[0].shape)] += 1

        with ExitStack() as stack:
            stack.callback(network.register_forward_pre_hook(noted).remove)
            for owner, attribute, name in (
                (dataset, "transform", "reading"), (network, "forward", "network"), (NoiseField, "draw", "noise"),
                (SaveResults, "write", "writing"), (WriteReport, "write", "page"),
            ):  # fmt: skip
                timed = self.timed(name, getattr(owner, attribute))
                of_class = owner not in (dataset, network)
                stack.enter_context(patch.object(owner, attribute, bound(timed) if of_class else timed))
            step = TimedStep(sampler.data_consistency, self)
            stack.enter_context(patch.object(sampler, "data_consistency", step))
            if sampler.start is not None:
                start = self.timed("start", sampler.start)
                start.by_parts = getattr(sampler.start, "by_parts", False)
                stack.enter_context(patch.object(sampler, "start", start))
            yield


def bound(function: Callable) -> Callable:
    """As a method of a class."""
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


class TimedStep:
    """A data-consistency step whose calls are timed."""

    def __init__(self, step, parts: Parts) -> None:
        self.step, self.parts = step, parts

    def fit(self, y, operator):
        """As the step that is timed: some fit each measurement."""
        return TimedStep(self.step.fit(y, operator) if hasattr(self.step, "fit") else self.step, self.parts)

    def __getattr__(self, name: str):
        return getattr(self.step, name)

    def __call__(self, *args):
        return self.parts.timed("data", self.step)(*args)


def now(device: torch.device) -> float:
    """Seconds, after all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def bare_calls(prior, network: torch.nn.Module, shapes: Counter, device: torch.device) -> float:
    """Seconds for the counted calls on random slices."""
    seconds = 0.0
    for shape, count in shapes.items():
        slices = torch.randn(shape[0], *shape[2:], device=device)
        prior._output(network, slices, 100)
        start = now(device)
        for _ in range(count):
            prior._output(network, slices, 100)
        seconds += now(device) - start
    return seconds


@contextmanager
def noise_of_the_host(device: torch.device) -> Iterator[None]:
    """Within it, noise is drawn on the CPU and sent, a few slices at a time, as before version 0.9.0."""
    slices = VolumeNoise.slices

    def sent(self, *args, **kwargs):
        for part, noise in slices(self, *args, **{k: v for k, v in kwargs.items() if k != "device"}):
            yield part, noise.to(device)

    with patch.object(VolumeNoise, "slices", sent):
        yield


def time_run(overrides: dict, task: str | None = None, before: bool = False) -> dict:
    """Time one run of configs/inference.json, or of a task, with some ids overridden.

    Args:
        before: as version 0.4.0 did it.
    """
    configs = ["configs/inference.json"] + ([f"configs/task_{task}.json"] if task else [])
    ids = overrides | (BEFORE if before else {})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workflow = ConfigWorkflow(configs, workflow_type="inference", logging_file=False, output_dir=folder, **ids)
        workflow.initialize()
        evaluator, device = workflow.evaluator, workflow.parser.get_parsed_content("device")
        workflow.parser.get_parsed_content("load_weights").load()
        if before:
            stack.enter_context(noise_of_the_host(device))
        parts = Parts(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        with parts.watching(workflow):
            start = now(device)
            evaluator.run()
            workflow.parser.get_parsed_content("write_cases").ended(wait=True)
            whole = now(device) - start
        peak = peak_memory_mb(device)
        bare = bare_calls(workflow.parser.get_parsed_content("prior"), evaluator.network, parts.shapes, device)
    seconds = {name: round(parts.seconds[name], 4) for name in sorted(parts.seconds)}
    return {
        "overrides": overrides,
        "way": "0.4.0" if before else "now",
        "whole_run_s": round(whole, 4),
        "parts_s": seconds | {"other": round(whole - sum(parts.seconds.values()), 4)},
        "bare_network_s": round(bare, 4),
        "outside_network": round(1 - parts.seconds["network"] / whole, 4),
        "bare_over_whole": round(bare / whole, 4),
        "network_calls": sum(parts.shapes.values()),
        "slices_per_call": max(shape[0] for shape in parts.shapes),
        "peak_memory_mb": round(peak, 1),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
    }


def summary(runs: list[dict]) -> dict:
    """Medians over runs of both ways, and their ratio pair by pair: "now" over "before"."""
    by_way = {way: [run for run in runs if run["way"] == way] for way in ("0.4.0", "now")}
    ratios = [b["whole_run_s"] / a["whole_run_s"] for a, b in zip(*by_way.values())]

    def medians(found: list[dict]) -> dict:
        names = {name for run in found for name in run["parts_s"]}
        parts = {n: round(statistics.median(run["parts_s"].get(n, 0.0) for run in found), 4) for n in sorted(names)}
        return {"whole_run_s": round(statistics.median(run["whole_run_s"] for run in found), 4), "parts_s": parts}

    return {
        "pairs": len(ratios),
        **{way: medians(found) for way, found in by_way.items()},
        "now over 0.4.0": {"median": round(statistics.median(ratios), 4), "each": [round(r, 4) for r in ratios]},
    }


def profile_run(overrides: dict, task: str | None = None, most: int = 12) -> dict:
    """What the loop of the last draw calls: the operations that take most, and copies between host and device."""
    found: list[torch.profiler.profile] = []
    sample = DiffusionInverseInferer.sample

    def profiled(self, run, draw=0):
        if draw < self.num_draws - 1:
            return sample(self, run, draw)
        with torch.profiler.profile() as profile:
            x = sample(self, run, draw)
            now(x.device)
        found.append(profile)
        return x

    with patch.object(DiffusionInverseInferer, "sample", profiled):
        device = time_run(overrides, task)["device"]
    events = found[-1].key_averages()
    on_gpu = torch.cuda.is_available()
    milliseconds = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1000 for e in events}
    calls = {e.key: e.count for e in events}
    longest = sorted(milliseconds, key=milliseconds.get, reverse=True)[:most]
    copies = {key: count for key, count in calls.items() if "memcpy" in key.lower() and "dtod" not in key.lower()}
    return {
        "device": device,
        "copies_between_host_and_device": copies,
        "longest": {key: {"calls": calls[key], "ms": round(milliseconds[key], 2)} for key in longest},
    }


@torch.no_grad()
def throughput(sizes: list[int], bfloat16: bool, height: int = 208, width: int = 80, repeats: int = 3) -> list[dict]:
    """Megavoxels per second of the shipped network on slices of one size, interleaved over the settings."""
    workflow = ConfigWorkflow("configs/inference.json", workflow_type="inference", logging_file=False)
    workflow.initialize()
    device = workflow.parser.get_parsed_content("device")
    network = workflow.parser.get_parsed_content("network_def").to(device).eval()
    settings = [(n, f, a) for n in sizes for f in ("channels_last", "contiguous_format") for a in {False, bfloat16}]
    seconds = dict.fromkeys(settings, float("inf"))
    for _ in range(repeats):
        for n, memory_format, autocast in settings:
            network.to(memory_format=getattr(torch, memory_format))
            x = torch.randn(n, 1, height, width, device=device).to(memory_format=getattr(torch, memory_format))
            t = torch.full((n,), 100, device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                network(x, t)
                start = now(device)
                network(x, t)
            seconds[n, memory_format, autocast] = min(seconds[n, memory_format, autocast], now(device) - start)
    return [
        {"batch": n, "memory_format": f, "bfloat16": a, "mvoxel_per_s": round(n * height * width / s / 1e6, 3)}
        for (n, f, a), s in seconds.items()
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_steps", type=int, help="steps of the run, instead of the configured ones")
    parser.add_argument("--preset", help="best, fast or sharp")
    parser.add_argument(
        "--before", type=int, nargs="?", const=3, default=0, metavar="PAIRS", help="and as 0.4.0 did it"
    )
    parser.add_argument("--profile", action="store_true", help="also trace the last draw")
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[], help="also measure network throughput")
    parser.add_argument(
        "--bfloat16", action="store_true", help="also under bfloat16 autocast (slow on CPUs without it)"
    )
    parser.add_argument("--output", help="write the JSON here as well")
    parser.add_argument("--task", help="svct, csmri, ...: configs/task_TASK.json")
    args = parser.parse_args(argv)

    given = {"num_steps": args.num_steps, "preset": args.preset}
    overrides = {name: value for name, value in given.items() if value is not None}
    starting = time.time() - psutil.Process().create_time()
    ways = [True, False] * args.before or [False]
    runs = [time_run(overrides, args.task, before) for before in ways]
    result = {"start_up_s": round(starting, 2), "run": runs[-1]}
    if args.before:
        result["paired"] = summary(runs)
    if args.profile:
        result["profile"] = profile_run(overrides, args.task)
    if args.batch_sizes:
        result["throughput"] = throughput(args.batch_sizes, args.bfloat16)
    text = json.dumps(result, indent=4)
    print(text)
    if args.output:
        with open(args.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    with plain_endings():
        main()
