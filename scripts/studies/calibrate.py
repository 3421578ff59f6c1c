"""Whether the spread of several draws is honest, for each noise field: voxel by voxel, and for means of slices.

    python -m scripts.studies.calibrate          write docs/calibration.json and docs/calibration.png

Draws pieces of the embedded, held-out volumes (see evidence_grid.py) several times with each noise field, and
compares the spread of the draws with the error of their mean (interslice.report.metrics). Voxels alone cannot tell
the fields apart where slices are separate; means over neighbouring slices can, since noise that slices share does not
average out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.report.metrics import calibration
from scripts.studies.evidence_grid import NOISES, PIECES, SAMPLES, TASKS, Bench, cut, task_kind

SHOWN = ("mri_axial", "mri_alternate", "svct_parallel")
SOLVER = "dds"
BLOCK = 8
"""Neighbouring slices whose mean is looked at."""


def slice_means(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Means over blocks of `BLOCK` neighbouring slices across `axis`; slices that fill no block are left out."""
    x = x.movedim(axis, -1)
    return x[..., : x.shape[-1] // BLOCK * BLOCK].unflatten(-1, (-1, BLOCK)).mean(-1)


def spread_of(draws: torch.Tensor, truth: torch.Tensor, axis: int) -> dict:
    """Calibration of voxels, and of means of slices, of draws (n, X, Y, Z)."""
    views = {"voxels": (draws, truth), "slice_means": (slice_means(draws, axis + 1), slice_means(truth, axis))}
    return {name: calibration(d.mean(0), d.std(0), t, len(d)) for name, (d, t) in views.items()}


def measure(tasks: list[str], num_draws: int, work_dir: Path) -> dict:
    """{task: {noise: {"voxels", "slice_means"}}}."""
    record: dict = {}
    with tqdm(total=len(tasks) * len(NOISES) * num_draws, desc="draws", unit="draw") as bar:
        for task in tasks:
            kind = task_kind(task)
            name, piece = next(iter(PIECES[kind].items()))
            bench = Bench(task, SOLVER, cut(SAMPLES[kind], piece, kind, work_dir / "volumes" / f"{kind}_{name}.nii.gz"))
            axis = TASKS[task][1]["slice_axis"]
            axis = bench.operator.slice_axes[0] if isinstance(axis, str) else axis
            for noise, field in NOISES.items():
                draws = []
                for seed in range(num_draws):
                    draws.append(bench.sample(field, seed))
                    bar.update()
                record.setdefault(task, {})[noise] = spread_of(torch.stack(draws), bench.truth, axis)
    return record


def draw(record: dict, path: Path) -> None:
    """Actual against nominal coverage: rows are voxels and means of slices, columns tasks."""
    figure = Figure(figsize=(3.4 * len(record), 6.4), layout="constrained")
    axes = figure.subplots(2, len(record), squeeze=False, sharex=True, sharey=True)
    for column, (task, fields) in zip(axes.T, record.items()):
        for panel, view in zip(column, ("voxels", "slice_means")):
            panel.plot([0.4, 1], [0.4, 1], color="grey", linewidth=1, linestyle="--", label="honest")
            for noise, views in fields.items():
                panel.plot(views[view]["nominal"], views[view]["coverage"], marker="o", markersize=3, label=noise)
            panel.set_title(f"{task}: {view.replace('_', ' ')}", fontsize=9)
            panel.grid(alpha=0.3)
    for panel in axes[-1]:
        panel.set_xlabel("nominal coverage")
    for panel in axes[:, 0]:
        panel.set_ylabel("share of the truth inside")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(SHOWN), choices=list(TASKS))
    parser.add_argument("--num_draws", type=int, default=8)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/grid"))
    parser.add_argument("--output", type=Path, default=Path("docs/calibration.json"))
    parser.add_argument("--picture_only", action="store_true", help="draw what the JSON holds")
    args = parser.parse_args(argv)
    if not args.picture_only:
        write_json(args.output, measure(args.tasks, args.num_draws, args.work_dir))
    draw(json.loads(args.output.read_text(encoding="utf-8")), args.output.with_suffix(".png"))
    print(f"wrote {args.output} and {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    with plain_endings():
        main()
