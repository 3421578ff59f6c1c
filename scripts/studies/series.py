"""What one noise for all volumes of a series, or one each, does to differences over time and to means.

    python -m scripts.studies.series --data_dir FOLDER      docs/series.json and its table in docs/how_to/carried.md

A piece of a head, in slices of 5 mm, measured again and again: with noise of its own each time, and in every second
volume brighter by CHANGE in a ball. Nothing else changes. The heads are of the training set: methods are compared with
each other here, and not with other programs. Of each method, over the subject, in percent of the range of intensities:

    over time    standard deviation over volumes of one condition: what a still head seems to do
    difference   RMS error of mean(changed) - mean(unchanged), against the true change
    found        share of the change that is found in the ball's middle, by regression of the difference on it
    single, mean RMS error of a volume, and of the mean over all unchanged ones, against the truth

The noise of the measurement is the same for all methods.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.files.series import Series, TimePoint
from interslice.files.source import Source
from interslice.sampling.time_noise import TIME_NOISE
from scripts.studies.bench import Bench
from scripts.studies.record import Record, sha256
from scripts.studies.tables import fill, table

HEADS = {"t1": "t1_studyforrest.nii.gz", "t2": "t2_niimath_m2307.nii.gz"}
HALF = (32, 32, 30)
"""Voxels of the piece from its middle."""
VOLUMES, RATIO = 8, 5.0
CHANGE, RADIUS = 0.05, 8.0
"""Of the range of intensities; mm."""
NOISES = (0.0, 0.02)
"""Of the measurement, shares of the range of intensities."""
AIR = -0.8
PERCENT = 50.0
"""Of the range, which the prior's values have 2 of."""


def piece_of(volume: Path, target: Path, half: tuple[int, int, int] = HALF) -> Path:
    """The middle of a volume, as a file."""
    image = nib.as_closest_canonical(nib.load(volume))
    cut = tuple(slice(max(0, n // 2 - h), n // 2 + h) for n, h in zip(image.shape, half))
    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(image.slicer[cut].dataobj, np.float32), image.slicer[cut].affine), target)
    return target


def ball(shape: tuple[int, ...], spacing: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z), 1 in the middle of a ball and 0 from its border on, falling smoothly."""
    axes = [(torch.arange(n) - 0.45 * n) * float(s) for n, s in zip(shape, spacing)]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    return (1 - (radius / RADIUS).square()).clamp(min=0)


def run(volume: Path, noise: float, volumes: int, others: dict) -> dict:
    """The figures of every method, for one head and one noise of the measurement."""
    bench = Bench([], volume, **{"displayable_configs#ratio": RATIO, "report": False} | others)
    truth, operator = bench.truth, bench.operator
    change = 2 * CHANGE * ball(truth.shape, bench.affine[:3, :3].norm(dim=0)) * (truth > AIR)
    clean = [operator.forward(truth + change * (t % 2)) for t in range(volumes)]
    generator = torch.Generator().manual_seed(0)
    measured = [y + 2 * noise * torch.randn(y.shape, generator=generator) for y in clean]
    found = {}
    for how in TIME_NOISE:
        sampler = bench.inferer
        while hasattr(sampler, "inferer"):
            sampler = sampler.inferer
        sampler.time_noise, sampler.progress = how, False
        found[how] = [sampled(bench, y, t, volumes) for t, y in enumerate(measured)]
    found["cubic"] = [bench.baselines["cubic_consistent"](y, operator) for y in measured]
    return {name: figures(torch.stack(x), truth, change) for name, x in found.items()}


def sampled(bench: Bench, y: torch.Tensor, t: int, volumes: int) -> torch.Tensor:
    """(X, Y, Z), the result of one volume of the series."""
    image = bench.image.clone()
    image.data = y[None]
    image.meta["source"] = Source(time=TimePoint(Series("series", volumes, tuple(range(volumes))), t))
    return bench.inferer(image[None], bench.network).as_tensor()[0, 0].float()


def figures(x: torch.Tensor, truth: torch.Tensor, change: torch.Tensor) -> dict:
    """Of the volumes (T, X, Y, Z) of a method; see above."""
    subject = truth > AIR
    still, changed = x[::2][:, subject], x[1::2][:, subject]
    truth, change = truth[subject], change[subject]
    difference = changed.mean(0) - still.mean(0)

    def rms(values: torch.Tensor) -> float:
        return PERCENT * float(values.square().mean().sqrt())

    within = {"still": still.var(0, unbiased=True), "changed": changed.var(0, unbiased=True)}
    return {
        "over_time": round(PERCENT * float(torch.stack(list(within.values())).mean().sqrt()), 4),
        "difference": round(rms(difference - change), 4),
        "found": round(float(difference @ change / change.square().sum()), 4),
        "single": round(rms(still - truth), 4),
        "mean": round(rms(still.mean(0) - truth), 4),
    }


TITLES = {"same": "one noise for all", "own": "one each", "cubic": "cubic, in agreement with the data"}


def tables_of(results: dict) -> str:
    """The table of docs/how_to/carried.md."""
    header = ["head", "noise of the scan", "method", "over time", "difference", "found", "single", "mean"]
    rows = [
        [head, f"{100 * float(noise):g} %", TITLES[name], *(f"{of[k]:.2f}" for k in ("over_time", "difference")),
         f"{of['found']:.0%}", *(f"{of[k]:.2f}" for k in ("single", "mean"))]
        for head, by_noise in results.items() for noise, methods in by_noise.items() for name, of in methods.items()
    ]  # fmt: skip
    return table(header, rows)


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help=f"folder with {', '.join(HEADS.values())}")
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS)
    parser.add_argument("--noises", nargs="+", type=float, default=list(NOISES))
    parser.add_argument("--volumes", type=int, default=VOLUMES)
    parser.add_argument("--half", nargs=3, type=int, default=HALF)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/series"))
    parser.add_argument("--output", type=Path, default=Path("docs/series.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/how_to/carried.md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    heads = {name: args.data_dir / HEADS[name] for name in args.heads}
    settings = {"preset": args.preset, "volumes": args.volumes, "half": args.half, "change": CHANGE, "ratio": RATIO}
    record = Record(args.output, settings, {name: sha256(path) for name, path in heads.items()})

    def one(key: tuple) -> dict:
        name, noise = key
        piece = piece_of(heads[name], args.work_dir / f"{name}.nii.gz", tuple(args.half))
        return run(piece, noise, args.volumes, {"preset": args.preset} | others)

    record.fill([(name, noise) for name in heads for noise in args.noises], one, "series")
    if args.page.exists():
        fill(args.page, "series", tables_of(record.content["results"]))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
