"""Where the time and memory of a run go; prints JSON.

    python -m scripts.benchmark                            the default run on the embedded sample
    python -m scripts.benchmark --task svct                another task's; of projectors: .studies.benchmark_projectors
    python -m scripts.benchmark --batch_sizes 1 2 4 8 16   and network throughput per batch size and memory format

One run is timed as a whole (reading, sampling, writing). Its network calls are timed twice: inside the run, and bare,
as the same number of calls on the same shapes right after it. `outside_network` is the share of the run that is not
network: what the sampler, the data step and the noise cost.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter

import torch
from monai.bundle import ConfigWorkflow

from bundle.files.last_words import plain_endings
from bundle.files.run_record import peak_memory_mb


class NetworkClock:
    """Times every call of a network and counts the shapes it was called with."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.seconds, self.shapes = 0.0, Counter()
        self.hooks = [network.register_forward_pre_hook(self._start), network.register_forward_hook(self._stop)]

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def _start(self, module, inputs) -> None:
        self.shapes[tuple(inputs[0].shape)] += 1
        self.started = now(inputs[0].device)

    def _stop(self, module, inputs, output) -> None:
        self.seconds += now(output.device) - self.started


def now(device: torch.device) -> float:
    """Seconds, after all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def bare_calls(network: torch.nn.Module, shapes: Counter, device: torch.device) -> float:
    """Seconds for the counted calls on random slices."""
    seconds = 0.0
    for shape, count in shapes.items():
        x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        t = torch.full((shape[0],), 100, device=device)
        network(x, t)
        start = now(device)
        for _ in range(count):
            network(x, t)
        seconds += now(device) - start
    return seconds


class StepClock:
    """Wraps a data-consistency step and times its calls."""

    def __init__(self, step) -> None:
        self.step, self.fitted, self.seconds = step, step, 0.0

    def fit(self, y, operator):
        """As the step that is timed: some fit each measurement."""
        self.fitted = self.step.fit(y, operator) if hasattr(self.step, "fit") else self.step
        return self

    def __call__(self, x0, y, operator, reverse_step):
        start = now(x0.device)
        result = self.fitted(x0, y, operator, reverse_step)
        self.seconds += now(x0.device) - start
        return result


def time_run(overrides: dict, task: str | None = None) -> dict:
    """Time one run of configs/inference.json, or of a task, with some ids overridden."""
    configs = ["configs/inference.json"] + ([f"configs/task_{task}.json"] if task else [])
    with tempfile.TemporaryDirectory() as folder:
        workflow = ConfigWorkflow(
            configs, workflow_type="inference", logging_file=False, output_dir=folder, **overrides
        )
        workflow.initialize()
        evaluator, device = workflow.evaluator, workflow.parser.get_parsed_content("device")
        clock = NetworkClock(evaluator.network)
        sampler = workflow.parser.get_parsed_content("sampler")
        sampler.data_consistency = step = StepClock(sampler.data_consistency)
        start = now(device)
        evaluator.run()
        whole = now(device) - start
    clock.detach()
    peak = peak_memory_mb()
    bare = bare_calls(evaluator.network, clock.shapes, device)
    return {
        "overrides": overrides,
        "whole_run_s": round(whole, 4),
        "network_in_run_s": round(clock.seconds, 4),
        "bare_network_s": round(bare, 2),
        "data_fidelity_s": round(step.seconds, 2),
        "data_fidelity_share": round(step.seconds / whole, 4),
        "outside_network": round(1 - clock.seconds / whole, 4),
        "bare_over_whole": round(bare / whole, 4),
        "network_calls": sum(clock.shapes.values()),
        "peak_memory_mb": round(peak, 1),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
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
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=[], help="also measure network throughput")
    parser.add_argument(
        "--bfloat16", action="store_true", help="also under bfloat16 autocast (slow on CPUs without it)"
    )
    parser.add_argument("--output", help="write the JSON here as well")
    parser.add_argument("--task", help="svct, csmri, ...: configs/task_TASK.json")
    args = parser.parse_args(argv)

    given = {"num_steps": args.num_steps, "preset": args.preset}
    overrides = {name: value for name, value in given.items() if value is not None}
    result = {"run": time_run(overrides, args.task)}
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
