"""Quality against time on a CPU: how far more passes, draws and parameters bring a scan, and what shorter numbers save.

    python -m scripts.studies.quality_time                         docs/quality_time.json and .png
    python -m scripts.studies.quality_time --before OLD.pt         and the default of version 0.4.0 with its own prior

The embedded sample, which trained nothing. Each run gives two points: the first draw alone, and the pair of opposite
draws. Time is that of the processor, in one thread, for the reconstruction with all that belongs to it; reading and
writing are left out. What else the machine does changes it little, and the seconds of a clock, with two threads, are
about half of it on two idle cores.

Version 0.4.0 took three steps, the mean of four independent draws, the operator's own start and exact data, which the
present ids say (BEFORE); what its loop did between has been made the same or faster since.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from interslice.files.last_words import plain_endings
from interslice.sampling import NullSpace
from scripts.studies.bench import Bench
from scripts.studies.precision import SAMPLE
from scripts.studies.record import Record, sha256

STEPS = (1, 2, 3, 5, 10)
NETWORKS = ("small", "large")
PRECISIONS = ("float32", "bfloat16")
OWN = "version 0.4.0"
BEFORE = {"num_steps": 3, "start_fraction": 0.2, "num_draws": 4, "antithetic": False, "start": None,
          "precision": "float32", "slice_batch_size": 8}  # fmt: skip
KEPT = ("psnr", "psnr_inside", "ssim", "error_coronal")
"""What is kept of the metrics."""


class EndOfFirst:
    """An observer of the sampler: the first draw, and the time when it was done."""

    def __init__(self, num_steps: int) -> None:
        self.last, self.volume, self.seconds = num_steps - 1, None, 0.0

    def begin(self, affine: torch.Tensor) -> None:
        """Nothing is asked of the affine."""

    def __call__(self, draw: int, step: int, t: int, axis: int, x_t: torch.Tensor, x0: torch.Tensor) -> None:
        if (draw, step) == (0, self.last):
            self.volume, self.seconds = x0.clone(), time.process_time()


def measure(bench: Bench, seed: int, first: EndOfFirst | None = None) -> dict[str, dict]:
    """Metrics and seconds by the number of draws: of all, and of the first alone where there is one to look for it."""
    begin = time.process_time()
    volume = bench.sample(seed=seed)
    end = time.process_time()
    found = {str(2 if first else BEFORE["num_draws"]): (volume, end - begin)}
    if first is not None:
        found["1"] = first.volume, first.seconds - begin
    return {
        draws: {k: v for k, v in bench.measure(x).items() if k in KEPT} | {"seconds": float(f"{seconds:.3g}")}
        for draws, (x, seconds) in found.items()
    }


def plan(networks: list[str], precisions: list[str], steps: list[int], seeds: int, before: bool):
    """Keys: network, precision, steps, seed; the quick ones first."""
    if before:
        yield from ((OWN, BEFORE["precision"], BEFORE["num_steps"], seed) for seed in range(seeds))
    yield from ((n, p, s, seed) for n in networks for p in precisions for seed in range(seeds) for s in sorted(steps))


class Runs:
    """Runs of the study."""

    def __init__(self, volume: Path, before: Path | None, others: dict) -> None:
        self.volume, self.before, self.others = volume, before, others

    def run(self, key: tuple) -> dict:
        """What `measure` gives."""
        network, precision, steps, seed = key
        if network == OWN:
            ids = {"checkpoint": str(self.before), **BEFORE, "data_consistency": NullSpace()}
            return measure(Bench([], self.volume, report=False, **ids | self.others), seed)
        first = EndOfFirst(steps)
        ids = {"model": network, "precision": precision, "num_steps": steps, "num_draws": 2, "start_fraction": 0.2}
        return measure(Bench([], self.volume, report=False, inferer="@sampler", observer=first, **ids | self.others),
                       seed, first)  # fmt: skip

    def baselines(self) -> dict[str, dict]:
        """Of what needs no network."""
        bench = Bench([], self.volume, report=False, **self.others)
        names = ("cubic_consistent", "total_variation")
        return {n: {k: v for k, v in bench.measure(bench.reconstruct(n)).items() if k in KEPT} for n in names}


def points(record: dict) -> list[dict]:
    """One per network, precision, draws and steps: means over seeds."""
    found = []
    for network, of_network in record["results"].items():
        for precision, of_precision in of_network.items() if network != "baselines" else ():
            for steps, seeds in of_precision.items():
                for draws in sorted(next(iter(seeds.values())), key=int):
                    runs = [run[draws] for run in seeds.values()]
                    means = {k: sum(run[k] for run in runs) / len(runs) for k in runs[0]}
                    found.append({"network": network, "precision": precision, "steps": int(steps),
                                  "draws": int(draws), "seeds": len(runs), **means})  # fmt: skip
    return found


def draw(record: dict, path: Path) -> None:
    """PSNR over time, a line per network, precision and draws."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes, lines = figure.subplots(), {}
    for point in points(record):
        lines.setdefault((point["network"], point["precision"], point["draws"]), []).append(point)
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(n for n, *_ in lines))}
    for (network, precision, draws), line in lines.items():
        line = sorted(line, key=lambda p: p["steps"])
        place = [p["seconds"] for p in line], [p["psnr"] for p in line]
        if network == OWN:
            axes.plot(*place, "k*", markersize=13, label=f"{network}: {line[0]['steps']} steps, {draws} draws")
            continue
        style = {"color": colours[network], "linestyle": "-" if precision == "bfloat16" else "--"}
        label = f"{network}, {precision}, {'pair' if draws == 2 else 'one draw'}"
        axes.plot(*place, marker="o" if draws == 2 else ".", fillstyle="none", label=label, **style)
        if precision == "bfloat16" and draws == 2:
            for point in line:
                axes.annotate(f"{point['steps']}", (point["seconds"], point["psnr"]), xytext=(0, 6),
                              textcoords="offset points", ha="center", fontsize=7)  # fmt: skip
    for name, found in record["results"].get("baselines", {}).items():
        axes.axhline(found["psnr"], color="grey", linewidth=0.8)
        axes.annotate(name.replace("_", " "), (1, found["psnr"]), xycoords=("axes fraction", "data"), fontsize=7,
                      ha="right", va="bottom")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("seconds of the processor, one thread (number: steps)")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, default=SAMPLE)
    parser.add_argument("--before", type=Path, help="weights of version 0.4.0")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/quality_time.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = {"volume": args.volume.name, "sha256": sha256(args.volume)}
    record = Record(args.output, settings, {OWN: sha256(args.before)} if args.before else None)
    runs = Runs(args.volume, args.before, others)
    if record.get(["baselines"]) is None:
        record.add(["baselines"], runs.baselines())
    keys = plan(args.networks, args.precisions, args.steps, args.seeds, args.before is not None)
    record.fill(keys, runs.run, "quality and time")
    draw(json.loads(args.output.read_text(encoding="utf-8")), args.output.with_suffix(".png"))
    print(f"wrote {args.output} and {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
