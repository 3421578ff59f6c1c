"""Several thick scans of a head that moved between them: one stack, two, three, and how well they are aligned.

    python -m scripts.studies.stacks --data_dir FOLDER                      docs/stacks.json
    python -m scripts.studies.stacks --data_dir FOLDER --picture            docs/stacks.png alone

Axial, coronal and sagittal scans of the shown people (shown.py) are simulated by other arithmetic than reconstructs
them (interslice.physics.stacks.simulate): slices of THICKNESS mm, NOISE of the maximum, each but the axial one turned
by up to TURN degrees about each axis and shifted by up to SHIFT mm along it. They are written as files and read as a
user's:

    axial, coronal       each alone by configs/inference.json; the coronal scan without its motion, to its advantage
    two, three           by configs/task_stacks.json, aligned from the files alone
    two, motion known    the same, told how the head moved: what alignment costs

Every method is compared with the part of the head that the axial scan covers, less MARGIN voxels on each side.
Registration: how far a place of that part is put from where it lies (mean, mm), and the angle (degrees). The JSON grows
run by run, and the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from nibabel.processing import resample_to_output

from interslice.files.alignment import write_poses
from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.physics.intensity import intensity_range
from interslice.physics.stacks import Stacks
from interslice.physics.stacks.motion import angle_of
from interslice.physics.stacks.simulate import scanned
from interslice.physics.stacks.stack import Stack
from interslice.planes import PLANES
from interslice.report.metrics import inter_slice, psnr, ssim
from interslice.report.picture import oriented_slice
from interslice.report.trajectory.pictures import save_small
from scripts.studies.bench import Measured, defaults
from scripts.studies.record import Record
from scripts.studies.shown import PEOPLE, find_people, middle

SIZE = (80, 110, 80)
"""Voxels of 1 mm of the part that is scanned: whole slices in each direction."""
THICKNESS, NOISE = 5.0, 0.02
TURN, SHIFT = 8.0, 5.0
MARGIN = 5
ALONE = ("axial", "coronal")
SEVERAL = {"two": ("axial", "coronal"), "three": ("axial", "coronal", "sagittal")}
KNOWN = "two, motion known"
CASES = (*ALONE, *SEVERAL, KNOWN)
REGISTRATION, DIFFUSION = "registration", "diffusion"
METHODS = {"alone": ("cubic_consistent", "total_variation"), "several": ("input", "total_variation")}
"""Baselines of the two configs."""


class Heads:
    """Runs of the study: person, case, method, seed."""

    def __init__(self, files: dict[str, Path], size: tuple[int, ...], work_dir: Path, ids: dict,
                 order: Iterable[str] = PEOPLE) -> None:  # fmt: skip
        self.files, self.size, self.work_dir, self.ids = files, size, work_dir, ids
        self.seeds = {person: seed for seed, person in enumerate(order)}
        self.head, self.bench = lru_cache(maxsize=1)(self._head), lru_cache(maxsize=1)(self._bench)

    def _head(self, person: str) -> tuple[np.ndarray, np.ndarray, tuple[slice, ...]]:
        """Voxels and affine of the head at 1 mm, and the part that is scanned."""
        image = nib.as_closest_canonical(nib.load(self.files[person]))
        if not np.allclose(image.header.get_zooms()[:3], 1.0, atol=1e-3):
            image = resample_to_output(image, (1.0,) * 3, order=3)
        voxels = np.asarray(image.dataobj, np.float32).clip(min=0)
        return voxels, image.affine, middle(voxels.shape, self.size)

    def truth(self, person: str) -> MetaTensor:
        """(1, X, Y, Z) the part that is scanned."""
        voxels, affine, part = self.head(person)
        corner = affine @ np.array([*(s.start for s in part), 1.0])
        affine = np.column_stack([affine[:, :3], corner])
        return MetaTensor(torch.from_numpy(np.ascontiguousarray(voxels[part]))[None], affine=torch.from_numpy(affine))

    def stacks(self, person: str, moved: bool) -> list[Stack]:
        """The geometry of the three scans, the true poses in them."""
        motion = {"turn": TURN, "shift": SHIFT, "seed": self.seeds[person]} if moved else {}
        scanner = Stacks(orientations=SEVERAL["three"], ratio=THICKNESS, **motion)
        return list(scanner.for_volume(self.truth(person)).stacks)

    def scan(self, person: str, folder: str, stack: Stack) -> Path:
        """The file of a scan."""
        name = f"sub-{person.replace('_', '')}_acq-{stack.name}_T1w"
        path = self.work_dir / person / folder / f"{name}.nii.gz"
        if not path.exists():
            voxels, affine, _ = self.head(person)
            measured = scanned(voxels, affine, stack)
            random = np.random.default_rng(list(PLANES).index(stack.name))
            measured = measured + random.normal(0, NOISE * float(voxels.max()), measured.shape)
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as partial:
                nib.save(nib.Nifti1Image(measured.astype(np.float32), stack.affine.numpy()), partial)
        return path

    def _bench(self, person: str, case: str) -> Measured:
        """The measurement of a case, read from its files and, of several, aligned."""
        if case in ALONE:
            stack = next(s for s in self.stacks(person, moved=False) if s.name == case)
            return Measured(["inference"], self.scan(person, f"{case} alone", stack), report=False, **self.ids)
        planes = SEVERAL[case.split(",")[0]]
        stacks = [s for s in self.stacks(person, moved=True) if s.name in planes]
        paths = [self.scan(person, "_".join(planes), stack) for stack in stacks]
        ids = {"reference": "axial", "report": False, **self.ids}
        if case == KNOWN:
            poses = self.work_dir / person / "poses.json"
            write_poses(poses, {path.name: stack.poses for path, stack in zip(paths, stacks)})
            ids["poses"] = str(poses)
        return Measured(["inference", "task_stacks"], paths[0].parent, **ids)

    def run(self, key: tuple) -> dict:
        """Figures of one method, or of the registration."""
        person, case, method, seed = key
        bench = self.bench(person, case)
        if method == REGISTRATION:
            return self._registration(person, bench)
        x = bench.sample(seed=seed) if method == DIFFUSION else bench.reconstruct(method)
        return self.compared(person, bench, x)

    def _registration(self, person: str, bench: Measured) -> dict:
        truth = self.truth(person)
        corners = [torch.linspace(0, n - 1, 7, dtype=torch.float64) for n in truth.shape[1:]]
        places = torch.cartesian_prod(*corners) @ truth.affine[:3, :3].T + truth.affine[:3, 3]
        found = {}
        for stack in bench.operator.stacks[1:]:
            true = next(s for s in self.stacks(person, moved=True) if f"acq-{s.name}_" in stack.name).poses[0]
            off = (stack.poses[0] - true)[:3] @ torch.cat([places, torch.ones(len(places), 1)], 1).mT
            turned, moved = angle_of(true), (true[:3, :3] @ places.mean(0) + true[:3, 3] - places.mean(0)).norm()
            found[stack.name.split("acq-")[1].split("_")[0]] = {
                "mm": round(float(off.norm(dim=0).mean()), 4),
                "degrees": round(angle_of(stack.poses[0] @ torch.linalg.inv(true)), 4),
                "of_mm": round(float(moved), 2), "of_degrees": round(turned, 2),
            }  # fmt: skip
        return found

    @staticmethod
    def restored(bench: Measured, x: torch.Tensor) -> torch.Tensor:
        """A result in the scan's intensities."""
        low, high = (bench.item["image"].applied_operations[-1]["extra_info"][k] for k in ("lower", "upper"))
        return low + (x + 1) / 2 * (high - low)

    def compared(self, person: str, bench: Measured, x: torch.Tensor) -> dict:
        """Metrics in the truth's intensities; full scale is that of the whole head."""
        x, truth = self.restored(bench, x), self.truth(person).as_tensor()[0]
        shape = [min(a, b) for a, b in zip(x.shape, truth.shape)]
        inner = tuple(slice(MARGIN, n - MARGIN) for n in shape)
        x, truth = x[inner], truth[inner]
        lower, upper = intensity_range(torch.from_numpy(self.head(person)[0]))
        full = upper - lower
        found = {"psnr": psnr(x, truth, full), "ssim": ssim(x, truth, full, 0.0)}
        found |= {f"error_{plane}": inter_slice(x, truth, full, axis)["error"] for plane, axis in PLANES.items()}
        return {name: float(f"{value:.5g}") for name, value in found.items()}


PICTURED = "t1_stroke"
"""A brain without a face."""
SHOWN = (("truth", "truth"), ("axial", DIFFUSION), ("two", "total_variation"), ("two", DIFFUSION), ("three", DIFFUSION))


def draw(heads: Heads, path: Path) -> None:
    """Coronal and sagittal views of one head, in one grey window."""
    volumes = {}
    for case, method in SHOWN:
        if case == "truth":
            volumes["truth"] = heads.truth(PICTURED).as_tensor()[0]
            continue
        bench = heads.bench(PICTURED, case)
        x = bench.sample() if method == DIFFUSION else bench.reconstruct(method)
        name = f"{case} stacks" if case in SEVERAL else f"{case} alone"
        volumes[f"{name}, {'diffusion' if method == DIFFUSION else 'total variation'}"] = heads.restored(bench, x)
    window = np.percentile(volumes["truth"], (1, 99.8))
    figure = Figure(figsize=(2.1 * len(volumes), 4.6), layout="constrained")
    for row, plane in zip(figure.subplots(2, len(volumes)), ("coronal", "sagittal")):
        for axes, (title, volume) in zip(row, volumes.items()):
            middle_slice = volume.shape[PLANES[plane]] // 2 - 6
            axes.imshow(
                oriented_slice(volume.numpy(), plane, middle_slice), cmap="gray", vmin=window[0], vmax=window[1]
            )
            axes.set_axis_off()
            if plane == "coronal":
                axes.set_title(title, fontsize=8)
    save_small(figure, path, colours=64)


def plan(people: list[str], cases: list[str], seeds: int):
    """Keys of all runs."""
    for person in people:
        for case in cases:
            if case in SEVERAL:
                yield person, case, REGISTRATION, 0
            yield from ((person, case, method, 0) for method in METHODS["alone" if case in ALONE else "several"])
            yield from ((person, case, DIFFUSION, seed) for seed in range(seeds))


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the volumes of the shown people")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE), choices=list(PEOPLE))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=3, default=list(SIZE), metavar="N")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/stacks"))
    parser.add_argument("--output", type=Path, default=Path("docs/stacks.json"))
    parser.add_argument("--picture", action="store_true", help="draw docs/stacks.png, and measure nothing")
    args = parser.parse_args(argv)
    people = [PICTURED] if args.picture else args.people
    heads = Heads(find_people(args.data_dir, people), tuple(args.size), args.work_dir, others)
    if args.picture:
        draw(heads, args.output.with_suffix(".png"))
        print(f"wrote {args.output.with_suffix('.png')}")
        return
    record = Record(args.output, {"size": args.size, "defaults": defaults("task_stacks")})
    record.fill(plan(args.people, args.cases, args.seeds), heads.run, "stacks")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
