"""The grid behind the claims: task x solver x noise field x volume x seed, single draws, each run kept in a file.

    python -m scripts.studies.evidence_grid      run what is missing, then write docs/results_grid.json
    python -m scripts.studies.evidence_grid --tasks mri_axial      a part of it; parts may run beside each other
    python -m scripts.studies.evidence_grid --tune FOLDER_MRI FOLDER_CT      choose the weights of total variation

Volumes are pieces of the two embedded samples, small enough for a CPU; a seed is the key of the sampling noise (photon
noise belongs to the volume). The post-hoc baseline smooths the result of independent noise, with weights tuned on other
volumes (docs/tuning_grid.json). An interrupted grid goes on where it stopped; a GPU is used if there is one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output
from tqdm import tqdm

from interslice.files.find import list_volumes
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.noise.field import IdenticalNoise, IndependentNoise, SlerpNoise
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from interslice.physics.baselines import smooth
from scripts.studies import bench

FEW_STEPS = {"num_steps": 4, "num_draws": 1, "finish": None}
"""No mean of draws and no final smoothing: they would hide what the noise does."""
CT = {"start_fraction": 0.1, "slice_axis": "auto", "photons": 1e5}
"""A start with enough noise to tell the fields apart: the default, 0.01, is nearly that of total variation."""
LIMITED_ARC = {"num_views": 100, "arc": 100.0}
MRI = {"start_fraction": 0.2, "start": None}
TASKS = {
    "mri_sagittal": ([], {"slice_axis": 0, **MRI}),
    "mri_coronal": ([], {"slice_axis": 1, **MRI}),
    "mri_axial": ([], {"slice_axis": 2, **MRI}),
    "mri_alternate": ([], {"slice_axis": "alternate", **MRI}),
    "svct_parallel": (["task_svct"], CT),
    "svct_cone": (["task_svct"], {"beam": "cone", **CT}),
    "lact_parallel": (["task_svct"], {**LIMITED_ARC, **CT}),
}
"""Name: overlays, and ids. Slices across the thick axis are "mri_axial"; each keeps its axis but for "alternate"."""
SOLVERS = ("dds", "ddnm", "diffpir")
NOISES = {
    "independent": IndependentNoise(),
    "identical": IdenticalNoise(),
    "slerp": SlerpNoise(),
    "ou": OrnsteinUhlenbeckNoise(20.0),
    "matern": MaternNoise(20.0),
}
SEEDS = 5
PIECES = {
    "mri": {"frontal": ((52, 116), (112, 176), (15, 65)), "posterior": ((52, 116), (40, 104), (15, 65))},
    "ct": {"upper": ((0, 128), (0, 128), (30, 46)), "lower": ((0, 128), (0, 128), (6, 22))},
}
"""Voxel ranges of the embedded volumes; those of CT are resampled to `CT_SPACING` in-plane."""
CT_SPACING = 3.36
SAMPLES = {"mri": "sample_data/mri/truth/colin27_t1.nii.gz", "ct": "sample_data/ct/truth/lidc_idri_0001.nii.gz"}
TV_WEIGHTS = (0.003, 0.01, 0.02, 0.04, 0.08, 0.16)


def cut(source: str, piece, kind: str, target: Path) -> Path:
    """Write a piece of a volume, resampled for CT, to `target`, unless it is there."""
    if not target.exists():
        image = nib.load(source).slicer[tuple(slice(*part) for part in piece)]
        if kind == "ct":
            image = resample_to_output(image, (CT_SPACING, CT_SPACING, float(image.header.get_zooms()[2])), order=1)
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine), target)
    return target


class Bench(bench.Bench):
    """One task, solver and volume, ready to be sampled with any noise field and seed."""

    def __init__(self, task: str, solver: str, volume: Path, **others) -> None:
        overlays, ids = TASKS[task]
        super().__init__([*overlays, f"solver_{solver}"], volume, **{**FEW_STEPS, **ids, **others})


def runs(tasks: list[str], solvers: list[str], seeds: int) -> Iterator[tuple[str, str, str, str, int]]:
    """Every (task, solver, piece, noise, seed) of the grid."""
    for task in tasks:
        yield from product([task], solvers, PIECES[task_kind(task)], NOISES, range(seeds))


def task_kind(task: str) -> str:
    """Which sample a task takes."""
    return "mri" if task.startswith("mri") else "ct"


def run_grid(work_dir: Path, tasks: list[str], solvers: list[str], seeds: int, weights: dict) -> None:
    """Run what has no file yet."""
    missing = [r for r in runs(tasks, solvers, seeds) if not run_file(work_dir, *r).exists()]
    at, built = None, None
    for task, solver, piece, noise, seed in tqdm(missing, desc="grid", unit="run"):
        if built != (task, solver, piece):
            kind = task_kind(task)
            volume = cut(SAMPLES[kind], PIECES[kind][piece], kind, work_dir / "volumes" / f"{kind}_{piece}.nii.gz")
            at, built = Bench(task, solver, volume), (task, solver, piece)
        x = at.sample(NOISES[noise], seed)
        record = {noise: at.measure(x)}
        if noise == "independent":
            record["independent_tv"] = at.measure(smooth(x, weights[task][solver]))
        if seed == 0 and noise == "independent":
            record |= {name: at.measure(at.reconstruct(name)) for name in at.baselines}
        write_json(run_file(work_dir, task, solver, piece, noise, seed), record)


def run_file(work_dir: Path, task: str, solver: str, piece: str, noise: str, seed: int) -> Path:
    """Where a run is kept."""
    return work_dir / task / solver / piece / f"{noise}_{seed}.json"


def collect(work_dir: Path, seeds: int) -> dict:
    """{task: {solver: {piece: {method: {seed: metrics}}}}} of all finished runs."""
    record: dict = {}
    for task, solver, piece, noise, seed in runs(list(TASKS), list(SOLVERS), seeds):
        path = run_file(work_dir, task, solver, piece, noise, seed)
        if path.exists():
            place = record.setdefault(task, {}).setdefault(solver, {}).setdefault(piece, {})
            for method, metrics in json.loads(path.read_text(encoding="utf-8")).items():
                place.setdefault(method, {})[str(seed)] = metrics
    return record


def tuning_piece(source: str, kind: str) -> list[tuple[int, int]]:
    """The middle of a volume, of the size of the grid's pieces; the whole width of a body, which must not be cut."""
    half = (32, 32, 25) if kind == "mri" else (10**4, 10**4, 8)
    return [(max(0, n // 2 - h), n // 2 + h) for n, h in zip(nib.load(source).shape, half)]


def tune(work_dir: Path, folders: dict[str, str], tasks: list[str], solvers: list[str]) -> dict:
    """The weight of post-hoc total variation with the best PSNR on another volume, per task and solver."""
    weights: dict = {}
    for task, solver in tqdm(list(product(tasks, solvers)), desc="tuning", unit="weight"):
        kind = task_kind(task)
        source = list_volumes(folders[kind])[0]["image"]
        volume = cut(source, tuning_piece(source, kind), kind, work_dir / "volumes" / f"{kind}_tuning.nii.gz")
        at = Bench(task, solver, volume)
        x = at.sample(IndependentNoise(), 0)
        scores = {w: at.measure(smooth(x, w))["psnr"] for w in TV_WEIGHTS}
        weights.setdefault(task, {})[solver] = max(scores, key=scores.get)
    return weights


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/grid"))
    parser.add_argument("--tune", nargs=2, metavar=("MRI", "CT"), help="folders of volumes to tune on; then stop")
    args = parser.parse_args(argv)
    tuned = Path("docs/tuning_grid.json")
    if args.tune:
        found = tune(args.work_dir, dict(zip(("mri", "ct"), args.tune)), args.tasks, args.solvers)
        known = json.loads(tuned.read_text(encoding="utf-8")) if tuned.exists() else {}
        write_json(tuned, known | found)
        print(f"wrote {tuned}")
        return
    run_grid(args.work_dir, args.tasks, args.solvers, args.seeds, json.loads(tuned.read_text(encoding="utf-8")))
    write_json(Path("docs/results_grid.json"), collect(args.work_dir, args.seeds))
    print("wrote docs/results_grid.json")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run in --work_dir"):
        main()
