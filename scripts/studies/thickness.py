"""How far off is the slice thickness that a scan tells of itself? Thick scans simulated of people, along every axis.

    python -m scripts.studies.thickness --data_dir FOLDER            docs/thickness.json

FOLDER holds isotropic volumes, such as those that the prior was trained on: what is asked uses no network. Every volume
is sampled along each axis by slices 4 mm apart, of thicknesses from 2 to 6 mm and all profiles, with and without noise
of 2 percent, and interslice.physics.thick.estimate is told the spacing and that the profile is a box.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.thick.estimate import estimated_thickness
from interslice.physics.thick.profile import PROFILES
from interslice.physics.thick.through_plane import slice_weights

PITCH, THICKNESSES, NOISES = 4.0, (2.0, 3.0, 4.0, 5.0, 6.0), (0.0, 0.02)
"""mm; mm; shares of the volume's maximum."""


def loaded(path: Path) -> tuple[np.ndarray, list[float]]:
    """Voxels in RAS and their size in mm."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.ascontiguousarray(image.dataobj, np.float32).squeeze(), [float(s) for s in image.header.get_zooms()[:3]]


def sampled(volume: np.ndarray, size: float, axis: int, thickness: float, profile: str, pitch: float) -> torch.Tensor:
    """Thick slices of a volume along an axis of voxels of `size` mm."""
    count = volume.shape[axis]
    number = int((count * size - thickness) // pitch) + 1
    weights = slice_weights(count, size, number, pitch, thickness, profile).float()
    return torch.matmul(torch.from_numpy(volume).movedim(axis, -1), weights.T).movedim(-1, axis).contiguous()


def errors(path: Path) -> list[dict]:
    """Per axis, profile, thickness and noise: the truth and what is estimated of one volume."""
    volume, spacing = loaded(path)
    rows = []
    for axis in range(3):
        for profile in PROFILES:
            for thickness in THICKNESSES if profile == "box" else (PITCH,):
                for noise in NOISES if profile == "box" and thickness == PITCH else (0.0,):
                    scan = sampled(volume, spacing[axis], axis, thickness, profile, PITCH)
                    if noise:
                        normal = np.random.default_rng(0).normal(0, noise * float(volume.max()), scan.shape)
                        scan = scan + torch.from_numpy(normal.astype(np.float32))
                    there = [PITCH if a == axis else s for a, s in enumerate(spacing)]
                    found = estimated_thickness(scan, axis, there)
                    rows.append({"axis": axis, "profile": profile, "thickness": thickness, "noise": noise,
                                 "estimate": None if found is None else round(found, 3)})  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/thickness.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    paths = sorted(args.data_dir.glob("*.nii.gz"))
    if not paths:
        raise ValueError(f"--data_dir {args.data_dir} holds no volumes (*.nii.gz)")
    people = {}
    for path in paths:
        people[path.name.removesuffix(".nii.gz")] = errors(path)
        print(f"{path.name}: done", flush=True)
        write_json(args.output, {"pitch": PITCH, "people": people})
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command begins anew"):
        main()
