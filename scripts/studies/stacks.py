"""Several thick scans of a head that moved between them: one stack, two, three, and how well they are aligned.

    python -m scripts.studies.stacks --data_dir FOLDER                      docs/stacks.json

Axial, coronal and sagittal scans of the shown people (shown.py) are simulated by other arithmetic than reconstructs
them (stack_scans.py): slices of THICKNESS mm, NOISE of the maximum, each but the axial one turned by up to TURN degrees
about each axis and shifted by up to SHIFT mm along it. They are written as files and read as a user's are:

    axial, coronal      each alone by configs/inference.json; the coronal scan without its motion, to its advantage
    two, three          by configs/task_stacks.json, aligned from the files alone
    two, poses given    the same, the true motion given: what alignment costs

Every baseline of the configs and the diffusion are compared with the part of the head that the axial scan covers.
Registration: how far a place of the brain is put from where it lies (mean, mm), and the angle (degrees). The JSON grows
run by run, and the same command goes on.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from bundle.files.last_words import plain_endings
from bundle.files.whole import written_whole
from bundle.files.write import write_json
from bundle.physics.intensity import intensity_range
from bundle.report.metrics import evaluate
from scripts.studies.bench import Measured
from scripts.studies.record import Record
from scripts.studies.shown import PEOPLE, brain, find_people, middle
from scripts.studies.stack_scans import Motion, scan

SIZE = (80, 110, 80)
"""Voxels of the part that the axial scan covers: whole slices of each direction."""
THICKNESS, NOISE = 5.0, 0.02
TURN, SHIFT = 8.0, 5.0
SINGLE = ("axial", "coronal")
SEVERAL = {"two": ("axial", "coronal"), "three": ("axial", "coronal", "sagittal")}
GIVEN = "two, poses given"
CASES = (*SINGLE, *SEVERAL, GIVEN)
DIFFUSION = "diffusion"
BASELINE = {"single": "total_variation", "several": "total_variation"}


def motion_of(person: str, plane: str) -> Motion:
    """Drawn anew for each person and direction; the axial scan lies as the head does."""
    if plane == "axial":
        return Motion()
    random = np.random.default_rng([list(PEOPLE).index(person), ord(plane[0])])
    turn, shift = random.uniform(-TURN, TURN, 3), random.uniform(-SHIFT, SHIFT, 3)
    return Motion(tuple(np.round(turn, 2).tolist()), tuple(np.round(shift, 2).tolist()))


def cubes(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """In RAS+ order at 1 mm, so that truth and results share a grid."""
    image = nib.as_closest_canonical(image)
    if np.allclose(image.header.get_zooms(), 1.0, atol=1e-3):
        return image
    from nibabel.processing import resample_to_output

    return resample_to_output(image, (1.0,) * 3, order=3)


class Heads:
    """Runs of the study: person, case, method, seed."""

    def __init__(self, files: dict[str, Path], size: tuple[int, ...], work_dir: Path, ids: dict) -> None:
        self.files, self.size, self.work_dir, self.ids = files, size, work_dir, ids
        self.head = lru_cache(maxsize=1)(self._head)
        self.bench = lru_cache(maxsize=1)(self._bench)

    def _head(self, person: str) -> tuple[nib.Nifti1Image, tuple[slice, ...]]:
        head = cubes(nib.load(self.files[person]))
        return head, middle(head.shape, self.size)

    def _scan(self, person: str, plane: str, motion: Motion, folder: str) -> Path:
        path = self.work_dir / person / folder / f"sub-{person.replace('_', '')}_acq-{plane}_T1w.nii.gz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            head, part = self.head(person)
            seed = sorted(SEVERAL["three"]).index(plane)
            with written_whole(path) as partial:
                nib.save(scan(head, part, plane, THICKNESS, motion, NOISE, seed), partial)
        return path

    def _bench(self, person: str, case: str) -> Measured:
        """The measurement of a case, read from its files and, of several, aligned."""
        ids = {"report": False, **self.ids}
        if case in SINGLE:
            return Measured(["inference"], self._scan(person, case, Motion(), "alone"), **ids)
        planes = SEVERAL["two" if case == GIVEN else case]
        paths = [self._scan(person, plane, motion_of(person, plane), case) for plane in planes]
        if case == GIVEN:
            ids["poses"] = str(self._true_poses(person, paths))
        return Measured(["inference", "task_stacks"], paths[0].parent, **ids)

    def motions(self, person: str, case: str) -> dict[str, np.ndarray]:
        """True T of each stack, by the name of its file."""
        head, _ = self.head(person)
        planes = SEVERAL["two" if case == GIVEN else case]
        return {
            f"sub-{person.replace('_', '')}_acq-{plane}_T1w": motion_of(person, plane).matrix(head) for plane in planes
        }
