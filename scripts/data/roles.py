"""No test person trains a prior: volumes of test roles are known by their content, not by their names.

A copy of a test volume in training/ or validation/ is refused if

1. its bytes are those of a test volume, or
2. it shares marks with one. A mark is a strict local maximum v of the volume with its 26 neighbours, told by a
   hash of

       round(LEVELS (w - min) / (max - min) + 1/pi),      w = neighbours, sorted within faces, edges and corners

   which no flip, no right-angle turn, no crop or padding, no linear change of intensity, no compression, and no other
   type that holds the values changes. Few marks are enough: those of two volumes that are not copies of each other
   never meet but by chance.

So copies are found that were re-saved in any format that this project reads, compressed, flipped, turned, cropped,
padded, rescaled or skull-stripped. Copies whose voxels were computed anew are not: resampled, registered, smoothed, or
rounded to far fewer grey levels. Folders of DICOM are not looked into.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import maximum_filter
from tqdm import tqdm

from interslice.files.find import SUFFIXES
from interslice.files.volume_read import VolumeReader
from scripts.data.fetch import sha256

TRAINED = ("training", "validation")
"""Roles that a training reads."""
TESTED = ("held_out", "thick")
"""Roles that none may: people who are shown, and real thick scans without truth."""
LEVELS = 48
DISTINCT = 18
"""Values that a neighbourhood must have: noise of a few grey levels looks alike everywhere."""
SHARE, FEWEST = 0.02, 20
"""A copy shares at least this part of its marks, and so many."""
SHELLS = {n: [o for o in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, o)) == n] for n in (1, 2, 3)}
"""Neighbours across faces, edges and corners."""


def marks(volume: np.ndarray) -> np.ndarray:
    """Sorted, distinct 64-bit marks of a volume (X, Y, Z)."""
    volume = np.squeeze(volume).astype(np.float32)
    if volume.ndim != 3 or min(volume.shape) < 3:
        return np.empty(0, np.uint64)
    ring = np.ones((3, 3, 3), bool)
    ring[1, 1, 1] = False
    inner = (slice(1, -1),) * 3
    peaks = np.argwhere((volume > maximum_filter(volume, footprint=ring))[inner]) + 1
    if not len(peaks):
        return np.empty(0, np.uint64)

    def shell(offsets: list[tuple[int, ...]]) -> np.ndarray:
        at = peaks[:, None] + np.array(offsets)
        return np.sort(volume[tuple(np.moveaxis(at, -1, 0))], axis=1)

    around = np.concatenate([shell(SHELLS[n]) for n in SHELLS], axis=1).astype(np.float64)
    low, high = around.min(1, keepdims=True), volume[tuple(peaks.T)][:, None]
    told = np.floor(LEVELS * (around - low) / (high - low) + 1 / np.pi).astype(np.uint64)
    ordered = np.sort(around, axis=1)
    told = told[(np.diff(ordered, axis=1) > 0).sum(1) + 1 >= DISTINCT]
    odd = np.random.default_rng(0).integers(1, 2**63, told.shape[1], dtype=np.uint64) | np.uint64(1)
    found = np.zeros(len(told), np.uint64)
    for column, factor in zip(told.T, odd):  # multiply and fold, modulo 2^64
        found = (found ^ column) * factor
        found ^= found >> np.uint64(29)
    return np.unique(found)


def marks_of(path: Path) -> np.ndarray:
    """Marks of a volume in a file; ValueError if it is damaged, or no volume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of where it lies, which is no matter here
        return marks(VolumeReader().read([str(path)]).voxels)


def is_copy(of: np.ndarray, others: np.ndarray) -> bool:
    """Whether marks tell that one volume has the voxels of another, or of a part of it."""
    shared = len(np.intersect1d(of, others, assume_unique=True))
    return shared >= max(FEWEST, SHARE * min(len(of), len(others)))


def check_roles(output_dir: Path, sources: Mapping[str, dict]) -> None:
    """Raise RuntimeError if a test volume, by content, lies in the training or validation folder.

    Args:
        sources: the list of sources; test volumes among them are known by their bytes even where they are absent.
    """
    tested = {f["sha256"]: f["name"] for s in sources.values() for f in s["files"] if f["role"] in TESTED}
    people = {path.name.split(".")[0]: path for role in TESTED for path in volumes_in(output_dir / role)}
    tested |= {sha256(path): name for name, path in people.items()}
    known = {name: marks_of(path) for name, path in people.items()}
    trained = [path for role in TRAINED for path in volumes_in(output_dir / role)]
    for path in tqdm(trained, desc="roles", unit="volume", leave=False):
        role = path.parent.name
        name = tested.get(sha256(path))
        if name is None and known:
            found = marks_of(path)
            name = next((name for name, those in known.items() if is_copy(found, those)), None)
        if name is not None:
            raise RuntimeError(
                f"{role}/{path.name} is a held-out volume, or was made from its voxels ({name}): remove it from the "
                f"{role} folder"
            )


def volumes_in(folder: Path) -> list[Path]:
    """Files of volumes in a folder, in order."""
    return [path for path in sorted(folder.glob("*")) if path.is_file() and path.name.lower().endswith(SUFFIXES)]
