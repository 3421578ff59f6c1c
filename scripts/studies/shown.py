"""The people that results are shown on: whole volumes that no prior was trained or tuned on.

Files are told by their content, SHA-256, whatever folder they lie in. Each also gets a mask of the brain: where the
scan holds the brain alone, what is not 0; in a whole head, what lies `DEPTH` mm or more below the head's surface,
which leaves out the cortex at the surface and lets in some skull base. It divides "brain" from "outside" in the tables
and is no segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from interslice.files.whole import written_whole
from interslice.physics.foreground import foreground_threshold
from interslice.physics.intensity import intensity_range
from interslice.usage import UsageError
from scripts.studies.record import sha256

CROP = (40, 112, 90)
DEPTH = 15.0


@dataclass(frozen=True)
class Person:
    """A scan: what it is, the digest of its file, and whether it holds the brain alone."""

    title: str
    sha256: str
    brain_only: bool


PEOPLE = {
    "colin27": Person(
        "Colin 27, T1", "a009051127f64dc3dd554d5f5b589870ea72106d9642c21b4e7093e478cfc309", brain_only=False
    ),
    "t1_seg3d": Person(
        "Seg3D head, T1", "56ac78228a4744aff9e3124977e4f35a3813a8ccd8719449321b8d1ef3b7e03a", brain_only=False
    ),
    "t1_stroke": Person(
        "stroke, T1", "8e28e653578a2cd21d15064da5b089db16a205887c76baed8a65d01e8f2ab79e", brain_only=True
    ),
    "t2_stroke": Person(
        "stroke, T2", "7cc2d618998228998fb1a9abf3ccfa8ed844aa99d84c9c6bf26b763a44406c89", brain_only=True
    ),
    "flair_stroke": Person(
        "stroke, FLAIR", "a50cf2bbc22875644fa7f49b3a7d58f0287427a6e37faed9d420ce3495346666", brain_only=True
    ),
}
"""The last three are scans of one patient."""


def find_people(folder: Path, names: list[str]) -> dict[str, Path]:
    """The files of these people in a folder.

    Raises:
        UsageError: one is not there, or not as it was published.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: --data_dir names one with the volumes of the shown people")
    files = sorted(p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz")))
    found = {sha256(p): p for p in files}
    missing = [name for name in names if PEOPLE[name].sha256 not in found]
    if missing:
        raise UsageError(
            f"{folder} does not hold {', '.join(missing)} as published (of {len(files)} volumes none has the SHA-256 "
            "of scripts/studies/shown.py): fetch them, or leave them out with --people"
        )
    return {name: found[PEOPLE[name].sha256] for name in names}


def brain(voxels: np.ndarray, spacing: tuple[float, ...], brain_only: bool) -> np.ndarray:
    """The mask (X, Y, Z) of the rule above."""
    if brain_only:
        return voxels > 0
    head = voxels > foreground_threshold(voxels)
    for axis in range(3):  # slice by slice: the skull base is open below
        filled = np.stack([binary_fill_holes(part) for part in np.moveaxis(head, axis, 0)])
        head = head | np.moveaxis(filled, 0, axis)
    return distance_transform_edt(head, spacing) >= DEPTH


def middle(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of at most this size in the middle."""
    kept = [min(n, k) for n, k in zip(shape, size)]
    return tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(shape, kept))


def prepare(source: Path, name: str, brain_only: bool, size: tuple[int, ...] | None, folder: Path) -> tuple[Path, dict]:
    """Write the middle of a volume, or all of it, and its brain under `folder`; the file, and the id of its scale.

    A part keeps the intensity scale of the whole volume, which is the one that a prior is used with.
    """
    image = nib.as_closest_canonical(nib.load(source))
    voxels = np.asarray(image.dataobj, np.float32)
    cut = middle(voxels.shape, size or voxels.shape)
    path = folder / "volumes" / f"{name}.nii.gz"
    mask = brain(voxels, image.header.get_zooms(), brain_only)
    contents = ((path, voxels), (folder / "regions" / path.name, mask.astype(np.uint8)))
    for target, content in contents:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as partial:
            nib.save(nib.Nifti1Image(content, image.affine).slicer[cut], partial)
    lower, upper = intensity_range(torch.from_numpy(voxels))
    limits = {"a_min": lower, "a_max": upper, "b_min": -1.0, "b_max": 1.0, "allow_missing_keys": True}
    return path, {"scale": {"_target_": "ScaleIntensityRanged", "keys": ["image", "label"], **limits}}
