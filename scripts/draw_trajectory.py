"""Draw how the embedded sample is reconstructed, step by step, with one noise field after the other.

    python -m scripts.draw_trajectory                    MRI, four noise fields: docs/trajectory.png, .gif, _pca.png
    python -m scripts.draw_trajectory --task svct --noise independent slerp --output runs/trajectory

The sampler starts from much noise, takes one draw and keeps one slice axis, so that its steps can be seen: this is the
process, and not the setting for the best result. The numbers go to trajectory.json and into trajectory.md, if that is
there, in the same folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from interslice.files.find import list_volumes
from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.physics.intensity import intensity_range
from interslice.report.trajectory.paths import agreement, distance
from interslice.report.trajectory.pictures import (
    NAMES,
    Film,
    Films,
    film,
    path_panels,
    process,
    save_small,
    spread,
    write_film,
)
from interslice.report.trajectory.write import across
from interslice.sampling.trajectory import KINDS, Observed, Slab, Trajectory
from scripts.studies.tables import fill, page_of, table


@dataclass
class Task:
    """What is drawn: overlays, sample, voxels of its middle that are reconstructed, mm shown of these, window, name."""

    configs: list[str]
    sample: Path
    crop: tuple[int, int, int]
    side: float
    window: tuple[float, float]
    name: str


TASKS = {
    "mri": Task([], Path("sample_data/mri/truth"), (112, 112, 80), 96.0, (-1.0, 0.5), "thick slices, 5x"),
    "svct": Task(
        ["configs/task_svct.json"], Path("sample_data/ct/truth"), (128, 128, 32), 200.0, (-1.0, 0.4), "30 views"
    ),
}
TITLES = {
    "independent": "independent", "identical": "identical", "slerp": "slerp", "ou": "OU",
    "matern": "Matérn", "mixed": "mixed", "piecewise": "piecewise slerp",
}  # fmt: skip
"""Name of a noise field (`--noise`) -> its title."""


@dataclass
class Run:
    """One reconstruction: what was kept of it, and the truth of these slabs."""

    record: Observed
    truth: dict[str, torch.Tensor]


def middle(volume: Path, size: tuple[int, int, int], folder: Path) -> dict:
    """Write the middle of a volume into `folder`; ids that make it the input, in MRI on the whole volume's scale."""
    image = nib.load(volume)
    kept = [min(n, k) for n, k in zip(image.shape, size)]
    first = [(n - k) // 2 for n, k in zip(image.shape, kept)]
    path = folder / volume.name
    nib.save(image.slicer[tuple(slice(f, f + k) for f, k in zip(first, kept))], path)
    lower, upper = intensity_range(torch.from_numpy(image.get_fdata()))
    scale = {"a_min": lower, "a_max": upper, "b_min": -1.0, "b_max": 1.0, "allow_missing_keys": True}
    return {
        "dataset_dir": str(path),
        "region_dir": None,
        "scale": {"_target_": "ScaleIntensityRanged", "keys": ["image", "label"], **scale},
    }


def watch(task: Task, noise: str, neighbours: int, overrides: dict) -> Run:
    """Reconstruct the sample's simulated measurement with one noise field, and watch."""
    configs = ["configs/inference.json", "configs/evaluate.json", *task.configs]
    trajectory = Trajectory(neighbours=neighbours)
    with tempfile.TemporaryDirectory() as folder:
        data = middle(Path(list_volumes(task.sample)[0]["image"]), task.crop, Path(folder))
        if task.configs:
            data.pop("scale")  # Hounsfield units need none
        workflow = ConfigWorkflow(
            configs, workflow_type="inference", logging_file=False, output_dir=folder, noise=noise,
            **{"report": False} | data | {"postprocessing": {"_target_": "Compose", "transforms": []}} | overrides,
        )  # fmt: skip
        workflow.initialize()
        workflow.parser.get_parsed_content("sampler").observer = trajectory
        workflow.evaluator.run()
        truth = workflow.evaluator.state.output[0]["label"]
    (record,) = trajectory.records
    return Run(record, {plane: same_voxels(truth, slab) for plane, slab in record.slabs.items()})


def same_voxels(truth: torch.Tensor, slab: Slab) -> torch.Tensor:
    """The voxels of the truth (1, X, Y, Z) that lie where those of a slab do, on a grid with the same spacing."""
    corner = (torch.linalg.inv(truth.affine) @ slab.affine)[:3, 3].round().int().tolist()
    return truth.as_tensor()[0][tuple(slice(c, c + n) for c, n in zip(corner, slab.x0_hat[0].shape))].cpu()


def pictures(runs: dict[str, Run], side: float, window: tuple[float, float]) -> Films:
    """x_t of one plane and x0_hat of all, ending with the truth, per noise field; `side` mm in the middle."""

    def row(plane: str, kind: str) -> dict[str, Film]:
        films = {}
        for noise, run in runs.items():
            slab = run.record.slabs[plane]
            f = film(slab, kind, window)
            truth = film(Slab(**vars(slab) | {"x_t": [], "x0_hat": [run.truth[plane]]}), "x0_hat", window)
            images = np.concatenate([f.images, in_window(truth.images, truth.window, f.window)])
            films[TITLES[noise]] = Film(central(images, slab, side), f.window, f.aspect)
        return films

    planes = list(next(iter(runs.values())).record.slabs)
    seen = across(next(iter(runs.values())).record).plane
    other = next((p for p in ("coronal", "axial", "sagittal") if p != seen), seen)
    return {f"{other} {NAMES['x_t']}": row(other, "x_t")} | {f"{p} {NAMES['x0_hat']}": row(p, "x0_hat") for p in planes}


def in_window(images: np.ndarray, window: tuple[float, float], other: tuple[float, float]) -> np.ndarray:
    """Values that look in the window `other` as `images` do in `window`."""
    return other[0] + (images - window[0]) * (other[1] - other[0]) / (window[1] - window[0])


def central(images: np.ndarray, slab: Slab, side: float) -> np.ndarray:
    """The middle of pictures (K, rows, columns), at most `side` mm wide and high."""
    across_mm, up_mm = (s for a, s in enumerate(slab.affine[:3, :3].norm(dim=0).tolist()) if a != slab.axis)
    keep = []
    for size, spacing in zip(images.shape[1:], (up_mm, across_mm)):
        kept = min(size, round(side / spacing))
        keep.append(slice((size - kept) // 2, (size - kept) // 2 + kept))
    return images[:, keep[0], keep[1]]


def numbers(runs: dict[str, Run]) -> dict:
    """Per noise field and kind: agreement and distance of the moves of neighbouring slices (see paths.py).

    Of x0_hat also how far the slices themselves lie apart, and the error of their difference, both as root-mean-square
    over a slice, mean over neighbours and steps, over how far those of the truth lie apart.
    """
    result = {}
    for noise, run in runs.items():
        slab = across(run.record)
        result[noise] = {
            kind: {"agreement": agreement(slab.paths(kind).numpy()), "distance": distance(slab.paths(kind).numpy())}
            for kind in KINDS
        }
        truth = run.truth[slab.plane].movedim(slab.axis, 0).flatten(1).diff(dim=0)[:, None]
        differences = slab.paths("x0_hat").diff(dim=0)
        result[noise]["x0_hat"]["apart_over_truth"] = size(differences) / size(truth)
        result[noise]["x0_hat"]["error_over_truth"] = size(differences - truth) / size(truth)
    return result


def size(vectors: torch.Tensor) -> float:
    """Mean root-mean-square of vectors (..., P)."""
    return float(vectors.square().mean(-1).sqrt().mean())


def numbers_table(measured: dict) -> str:
    """The same as Markdown; distances over those of the first field."""
    first, *_ = measured.values()
    rows = [
        [TITLES[noise]]
        + [
            f"{value / first[kind][name] if name == 'distance' else value:.2f}"
            for kind, values in kinds.items()
            for name, value in values.items()
        ]
        for noise, kinds in measured.items()
    ]
    header = [f"{kind}: {name.split('_')[0]}" for kind, values in first.items() for name in values]
    return table(["noise", *header], rows)


def draw(output: Path, runs: dict[str, Run], task: Task, columns: int) -> list[Path]:
    """Write the pictures and the numbers; their paths."""
    films, record = pictures(runs, task.side, task.window), next(iter(runs.values())).record
    captions = [f"step {step + 1}, $t$ = {t}" for step, t, _ in record.steps] + ["truth"]
    shown = [*spread(len(captions) - 1, columns - 1), len(captions) - 1]
    chosen = {p: {n: Film(f.images[shown], f.window, f.aspect) for n, f in row.items()} for p, row in films.items()}
    files = [output / f"trajectory{end}" for end in (".png", ".gif", "_pca.png", ".json")]
    with written_whole(files[0]) as partial:
        headers = [captions[i].replace(", ", "\n") for i in shown]
        save_small(process(chosen, headers, f"The sampling process: {task.name}"), partial, colours=48)
    with written_whole(files[1]) as partial:
        write_film(partial, films, captions)
    slabs = {TITLES[noise]: across(run.record) for noise, run in runs.items()}
    slab = next(iter(slabs.values()))
    with written_whole(files[2]) as partial:
        paths = {NAMES[kind]: {noise: s.paths(kind).numpy() for noise, s in slabs.items()} for kind in KINDS}
        title = f"How {slab.count} neighbouring {slab.plane} slices move: {task.name}"
        save_small(path_panels(paths, slab.positions, title), partial)
    measured = numbers(runs)
    files[3].write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    page = page_of(output, "trajectory.md")
    if page.exists() and fill(page, "trajectory", numbers_table(measured)):
        files.append(page)
    return files


def main(argv: list[str] | None = None, task: Task | None = None, **overrides) -> None:
    """`task` and `overrides`, ids of the configs, are for tests on tiny volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), default="mri")
    parser.add_argument("--noise", nargs="+", choices=list(TITLES), default=["independent", "identical", "slerp", "ou"])
    parser.add_argument("--num_steps", type=int, default=8)
    parser.add_argument("--start_fraction", type=float, default=0.5)
    parser.add_argument("--slice_axis", default="auto", help="auto, alternate, or 0, 1, 2")
    parser.add_argument("--neighbours", type=int, default=9, help="slices whose paths are compared")
    parser.add_argument("--columns", type=int, default=6, help="of the table of pictures, the truth among them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    args = parser.parse_args(argv)

    args.output.mkdir(parents=True, exist_ok=True)
    axis = int(args.slice_axis) if args.slice_axis.isdigit() else args.slice_axis
    settings = {
        "num_steps": args.num_steps, "start_fraction": args.start_fraction, "num_draws": 1, "slice_axis": axis,
        "seed": args.seed, "finish": None,
    } | overrides  # fmt: skip
    task = task or TASKS[args.task]
    runs = {noise: watch(task, noise, args.neighbours, settings) for noise in args.noise}
    for path in draw(args.output, runs, task, args.columns):
        print(f"wrote {path}")


if __name__ == "__main__":
    with plain_endings():
        main()
