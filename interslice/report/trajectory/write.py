"""Writes what a trajectory kept: the folder `trajectory` of a case, see docs/explanation/trajectory.md.

<plane>_x_t.nii.gz, <plane>_x0_hat.nii.gz   (X, Y, Z, steps), few slices across the plane's axis; prior's range
steps.json                                  which steps, noise levels and slices these are
process.png, process.gif, paths.png         the same as pictures
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from monai.data import MetaTensor

from interslice.files.case_folder import Writer
from interslice.files.findings import findings_of
from interslice.files.values import rising_pair
from interslice.files.whole import written_whole
from interslice.files.write import write_json, write_nifti
from interslice.report.trajectory.pictures import (
    NAMES,
    Film,
    film,
    path_panels,
    process,
    save_small,
    spread,
    write_film,
)
from interslice.sampling.trajectory import KINDS, Observed, Slab, Trajectory

COLUMNS = 8
"""Steps that a table of pictures shows at most."""


class Sampler(Protocol):
    """What is asked of the sampler whose steps are observed."""

    timesteps: Sequence[int]
    num_draws: int
    alpha_bars: torch.Tensor


class WriteTrajectory(Writer):
    """Writes the slices that the trajectory kept of a case.

    Args:
        trajectory: the observer of `sampler`.
        sampler: interslice.sampling.inferers.DiffusionInverseInferer.
        window: grey values of black and white, in the prior's range.

    Raises:
        ValueError: the sampler has no such step or draw.
    """

    def __init__(self, trajectory: Trajectory, sampler: Sampler,
                 window: tuple[float, float] = (-1.0, 1.0)) -> None:  # fmt: skip
        trajectory.check(len(sampler.timesteps), sampler.num_draws)
        self.window = rising_pair("window", window)
        self.trajectory, self.alpha_bars = trajectory, sampler.alpha_bars

    def start(self) -> None:
        self.trajectory.clear()

    def take(self, result: dict) -> dict:
        if not self.trajectory.records:
            raise RuntimeError(
                "the trajectory saw no reconstruction of this case: the sampler's observer must be it, "
                '"sampler#observer": "@observer"'
            )
        # An evaluation that compares noise fields samples again: those records come after the results' own.
        return result | {"trajectory": self.trajectory.records.pop(0)}

    def write(self, result: dict, folder: Path) -> None:
        self._write_case(folder / "trajectory", result["trajectory"], findings_of(result["pred"]).noise)

    def _write_case(self, folder: Path, record: Observed, noise: str | None) -> None:
        write_json(folder / "steps.json", describe_steps(record, self.alpha_bars, self.trajectory.draw, noise))
        for plane, slab in record.slabs.items():
            for kind in KINDS:
                write_nifti(folder / f"{plane}_{kind}.nii.gz", MetaTensor(slab.series(kind)[None], affine=slab.affine))
        films = {p: {NAMES[k]: film(s, k, self.window) for k in KINDS} for p, s in record.slabs.items()}
        captions = [f"step {step + 1}, $t$ = {t}" for step, t, _ in record.steps]
        shown = spread(len(captions), COLUMNS)
        rows = {p: {k: Film(f.images[shown], f.window, f.aspect) for k, f in row.items()} for p, row in films.items()}
        headers = [captions[i].replace(", ", "\n") for i in shown]
        with written_whole(folder / "process.png") as partial:
            save_small(process(rows, headers, noise or ""), partial)
        with written_whole(folder / "process.gif") as partial:
            write_film(partial, films, captions, inch=2.0)
        slab = across(record)
        if len(record.steps) > 1 and slab.count > 1:
            paths = {NAMES[kind]: {f"{slab.plane} slices": slab.paths(kind).numpy()} for kind in KINDS}
            with written_whole(folder / "paths.png") as partial:
                save_small(path_panels(paths, slab.positions, noise or ""), partial)


def across(record: Observed) -> Slab:
    """The slab whose slices the network saw in the first step kept, or else the first slab."""
    return next((s for s in record.slabs.values() if s.axis == record.steps[0][2]), next(iter(record.slabs.values())))


def describe_steps(record: Observed, alpha_bars: torch.Tensor, draw: int, noise: str | None) -> dict:
    """What steps.json says: of each step its timestep, noise level and slice axis; of each plane its slices."""
    levels = [float(alpha_bars[t]) for _, t, _ in record.steps]
    return {
        "noise": noise,
        "draw": draw,
        "values": "the prior's range; x_t = sqrt(alpha_bar) x0 + noise_std * noise",
        "sampled_shape": list(record.shape),
        "sampled_affine": record.affine.tolist(),
        "steps": [
            {
                "step": step, "t": t, "slice_axis": axis, "alpha_bar": round(level, 6),
                "noise_std": round(math.sqrt(1 - level), 6),
            }
            for (step, t, axis), level in zip(record.steps, levels)
        ],
        "planes": {
            plane: {
                "axis": slab.axis,
                "slices": [slab.first + i for i in range(slab.count)],
                "shown": slab.first + slab.chosen,
            }
            for plane, slab in record.slabs.items()
        },
    }  # fmt: skip
