"""What shared noise leaves behind: how alike the errors of slices are, near and far, for stacks of many slices.

    python -m scripts.studies.imprint --data_dir FOLDER          docs/imprint.json

A field that all slices share may stamp one pattern on all of them. Strips of Colin 27 run along the slice axis, with
DDS, one draw: across the thick slices (axis 0, where no slice tells the scan of another), and along them (axis 2, where
the scan fixes their means). Each is sampled from two seeds, x and x'. Of stacks s_1 ... s_n

    correlation at d      mean over i of  <s_i, s_(i + d)> / (|s_i| |s_(i + d)|)
    common share          |mean of s_i|^2 / mean of |s_i|^2,       1 / n for slices that have nothing in common

of the error, s = x - truth, and of the noise's own part in it, s = (x - x') / sqrt 2, which no anatomy enters.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import torch

from interslice.files.last_words import plain_endings
from scripts.studies.bench import Bench
from scripts.studies.evidence_grid import NOISES
from scripts.studies.record import Record, sha256
from scripts.studies.shown import PEOPLE, find_people, prepare

PERSON = "colin27"
AXES = {0: (None, 32, 20), 2: (32, 20, None)}
"""Slice axis: size of a strip, in voxels, its length left open."""
COUNTS = (150, 75, 30)
STARTS = (600, 200, 1000)
STEP = 60
DISTANCES = (1, 5, 20, 50, 100)
"""In slices, which are 1 mm apart."""


def correlations(s: torch.Tensor) -> dict[str, float]:
    """The above, of a stack (n, H, W), at the distances that it holds."""
    flat = s.flatten(1)
    unit = flat / flat.norm(dim=1, keepdim=True)
    near = {str(d): float((unit[:-d] * unit[d:]).sum(1).mean()) for d in DISTANCES if d < len(s)}
    return near | {"common_share": float(flat.mean(0).square().sum() / flat.square().sum(1).mean())}


def plan(noises: list[str]):
    """Keys: slice axis, number of slices, start, noise; fewer slices than the most at the first start alone."""
    for start in STARTS:
        for axis in AXES:
            for count in COUNTS if start == STARTS[0] else COUNTS[:1]:
                yield from ((axis, count, start, noise) for noise in noises)


class Strips:
    """Runs of the study."""

    def __init__(self, source: Path, checkpoint: str, work_dir: Path, others: dict) -> None:
        self.source, self.checkpoint, self.work_dir, self.others = source, checkpoint, work_dir, others
        self.bench = lru_cache(maxsize=1)(self._bench)

    def _bench(self, axis: int, count: int, start: int) -> Bench:
        size = tuple(n or count for n in AXES[axis])
        path, scale = prepare(self.source, f"axis{axis}_{count}", PEOPLE[PERSON].brain_only, size, self.work_dir)
        ids = {
            "slice_axis": axis,
            "num_draws": 1,
            "start": None,
            "finish": None,
            "report": False,
            "checkpoint": self.checkpoint,
        }
        steps = {"start_fraction": start / 1000, "num_steps": max(1, round(start / STEP))}
        return Bench(["solver_dds"], path, **scale, **ids, **steps, **self.others)

    def run(self, key: tuple) -> dict:
        """Correlations of the error and of the noise's part, their sizes in units of full scale, and the metrics."""
        axis, count, start, noise = key
        bench = self.bench(axis, count, start)
        a, b = (bench.sample(NOISES[noise], seed) for seed in (0, 1))
        error, drawn = (a - bench.truth).movedim(axis, 0), ((a - b) / 2**0.5).movedim(axis, 0)
        kept = {"error": correlations(error), "drawn": correlations(drawn), "metrics": bench.measure(a)}
        kept["rms"] = {
            "error": float(error.square().mean().sqrt()) / 2,
            "drawn": float(drawn.square().mean().sqrt()) / 2,
        }
        return {name: {k: float(f"{v:.4g}") for k, v in part.items()} for name, part in kept.items()}


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the volumes of the shown people")
    parser.add_argument("--checkpoint", default="models/model.pt")
    parser.add_argument("--noises", nargs="+", default=["independent", "identical", "slerp", "matern"], choices=NOISES)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/imprint"))
    parser.add_argument("--output", type=Path, default=Path("docs/imprint.json"))
    args = parser.parse_args(argv)
    source = find_people(args.data_dir, [PERSON])[PERSON]
    record = Record(args.output, {"prior": sha256(Path(args.checkpoint)), "step": STEP})
    strips = Strips(source, args.checkpoint, args.work_dir, others)
    record.fill(plan(args.noises), strips.run, "imprint")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
