"""What slice-consistent noise is made for: network slices stacked along the thick axis, one draw, noise kept (DDS).

    python -m scripts.studies.stacked_slices --data_dir FOLDER --crop       docs/stacked_slices.json, then the picture
    python -m scripts.studies.stacked_slices --data_dir FOLDER --output runs/whole.json        whole volumes
    python -m scripts.studies.stacked_slices --tune VOLUME                  the weights of post-hoc total variation
    python -m scripts.studies.stacked_slices --picture_only                 draw what the last run left

Every slice of the thick scan is five thin ones, which the network sees one by one; the scan fixes their mean, and
nothing but the noise field tells them of each other. The shown people (shown.py), each from several starts with every
field; the step length is the same for all starts. Beside them stand interpolation and, on the result of independent
noise, total variation after the fact with a weight tuned on another volume for each start (docs/tuning_stacked.json).
The JSON grows run by run, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.noise.field import IndependentNoise
from interslice.physics.baselines import smooth
from interslice.report.picture import oriented_slice
from interslice.report.trajectory.pictures import save_small
from scripts.studies.bench import Bench, baseline_names
from scripts.studies.evidence_grid import NOISES
from scripts.studies.record import Record, sha256
from scripts.studies.shown import CROP, PEOPLE, find_people, prepare

STARTS = (600, 200, 400, 1000)
"""Timesteps of 1000, the one of the picture first."""
STEP = 30
"""Timesteps from one step to the next: 20 steps from t = 600."""
ORDER = ("independent", "identical", "slerp", "matern", "ou")
BASELINES = ("input", "cubic_consistent", "total_variation")
"""Those that the configs have."""
TV_WEIGHTS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
TUNED = Path("docs/tuning_stacked.json")
PICTURED, PICTURE_CROP = "t1_stroke", (96, 32, 80)
"""A brain without a face, wide enough for a coronal view."""
SHOWN = {
    "truth": "truth", "input": "thick slices", "independent": "independent", "independent_tv": "then total variation",
    "identical": "identical", "slerp": "slerp",
}  # fmt: skip
WORDS = "the same command goes on after the last complete run"


def ids(start: int, checkpoint: str, others: dict) -> dict:
    """Ids of one run of DDS from a timestep: one draw, axial slices, no final smoothing."""
    return {
        "checkpoint": checkpoint, "slice_axis": 2, "num_draws": 1, "start": None, "finish": None, "report": False,
        "start_fraction": start / 1000, "num_steps": max(1, round(start / STEP)), **others,
    }  # fmt: skip


def tune(volume: Path, checkpoint: str, size, work_dir: Path, starts, **others) -> dict[str, float]:
    """Per start, the weight of total variation after independent noise with the best PSNR on another volume."""
    path, scale = prepare(volume, "tuning", True, size, work_dir)
    weights = {}
    for start in starts:
        bench = Bench(["solver_dds"], path, **scale, **ids(start, checkpoint, others))
        x = bench.sample(IndependentNoise())
        scores = {w: bench.measure(smooth(x, w))["psnr"] for w in TV_WEIGHTS}
        weights[str(start)] = max(scores, key=scores.get)
    return weights


class Stacks:
    """Runs of the study: person, start, noise, seed."""

    def __init__(self, files: dict[str, Path], size, checkpoint: str, work_dir: Path, solver: str, weights: dict,
                 others: dict) -> None:  # fmt: skip
        self.files, self.size, self.checkpoint, self.work_dir = files, size, checkpoint, work_dir
        self.solver, self.weights, self.others = solver, weights, others
        self.bench = lru_cache(maxsize=1)(self._bench)

    def _bench(self, person: str, start: int) -> Bench:
        path, scale = prepare(self.files[person], person, PEOPLE[person].brain_only, self.size, self.work_dir)
        return Bench([f"solver_{self.solver}"], path, **scale, **ids(start, self.checkpoint, self.others))

    def volumes(self, person: str, start: int, noise: str, seed: int) -> dict[str, torch.Tensor]:
        """The result of one run, with total variation after it where the noise is independent."""
        x = self.bench(person, start).sample(NOISES[noise], seed)
        return {noise: x} | ({"independent_tv": smooth(x, self.weights[str(start)])} if noise == "independent" else {})

    def run(self, key: tuple) -> dict:
        """Metrics per method; start 0 is none, with a baseline in place of a noise."""
        person, start, noise, seed = key
        bench = self.bench(person, start or STARTS[0])
        if not start:
            return {noise: bench.measure(bench.reconstruct(noise))}
        return {name: bench.measure(x) for name, x in self.volumes(person, start, noise, seed).items()}


def plan(people: list[str], starts: list[int], noises: list[str], seeds: int):
    """Keys of all runs, those of the first start of all people first."""
    yield from ((person, 0, name, 0) for person in people for name in BASELINES if name in baseline_names())
    for seed in range(seeds):
        for start in starts:
            yield from ((person, start, noise, seed) for person in people for noise in noises)


def keep_picture(stacks: Stacks, target: Path) -> None:
    """Middle coronal slices of what the picture shows, and the voxel size, unless they are there."""
    if target.exists():
        return
    bench = stacks.bench(PICTURED, STARTS[0])
    shown = {"truth": bench.truth, "input": bench.reconstruct("input")}
    for noise in ("independent", "identical", "slerp"):
        shown |= stacks.volumes(PICTURED, STARTS[0], noise, 0)
    slices = {name: oriented_slice(np.asarray(x), "coronal", x.shape[1] // 2) for name, x in shown.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **slices, spacing=bench.affine[:3, :3].norm(dim=0).numpy())


def draw(source: Path, path: Path) -> None:
    """The slices side by side, in one grey window."""
    kept = np.load(source)
    across, _, up = kept["spacing"]
    window = np.percentile(kept["truth"], (1, 99.8))
    rows, columns = kept["truth"].shape
    width = 2.1
    figure = Figure(figsize=(width * len(SHOWN), width * rows * up / (columns * across) + 0.35), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(SHOWN)), SHOWN.items()):
        axes.imshow(kept[name], cmap="gray", vmin=window[0], vmax=window[1], aspect=up / across)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    save_small(figure, path, colours=64)


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder with the volumes of the shown people")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE), choices=list(PEOPLE))
    parser.add_argument("--crop", type=int, nargs="*", metavar="N", help=f"the middle alone, of {CROP} voxels")
    parser.add_argument("--checkpoint", default="models/model.pt")
    parser.add_argument("--solver", default="dds", choices=["dds", "ddnm", "diffpir"])
    parser.add_argument("--starts", type=int, nargs="+", default=list(STARTS), help="timesteps of 1000")
    parser.add_argument("--noises", nargs="+", default=list(ORDER), choices=list(ORDER))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/stacked"))
    parser.add_argument("--output", type=Path, default=Path("docs/stacked_slices.json"))
    parser.add_argument("--tune", type=Path, metavar="VOLUME", help="a brain of the tuning side; then stop")
    parser.add_argument("--picture_only", action="store_true")
    args = parser.parse_args(argv)
    size = None if args.crop is None else tuple(args.crop) or CROP
    picture = args.work_dir / "picture.npz"
    if args.tune:
        known = json.loads(TUNED.read_text(encoding="utf-8")) if TUNED.exists() else {}
        write_json(TUNED, known | tune(args.tune, args.checkpoint, size, args.work_dir, args.starts, **others))
        print(f"wrote {TUNED}")
        return
    if not args.picture_only:
        if args.data_dir is None:
            parser.error("--data_dir is needed")
        files = find_people(args.data_dir, args.people)
        weights = json.loads(TUNED.read_text(encoding="utf-8"))
        common = args.checkpoint, args.work_dir, args.solver, weights, others
        settings = {"size": size, "prior": sha256(Path(args.checkpoint)), "solver": args.solver, "step": STEP}
        record = Record(args.output, settings)
        stacks = Stacks(files, size, *common)
        record.fill(plan(args.people, args.starts, args.noises, args.seeds), stacks.run, "stacked slices")
        print(f"wrote {args.output}")
        if PICTURED in files:
            wide = None if size is None else PICTURE_CROP
            keep_picture(Stacks(files, wide, args.checkpoint, args.work_dir / "picture", *common[2:]), picture)
    if picture.exists():
        draw(picture, args.output.with_suffix(".png"))
        print(f"wrote {args.output.with_suffix('.png')}")


if __name__ == "__main__":
    with plain_endings(WORDS):
        main()
