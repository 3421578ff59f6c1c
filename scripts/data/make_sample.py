"""Cut the embedded sample from the held-out head and sample it with thick slices.

    python -m scripts.data.make_sample --volume data/held_out/colin27_t1.nii.gz --mask ch2bet.nii.gz

writes `sample_data/mri/truth/colin27_t1.nii.gz` (1 mm), `sample_data/mri/measured/colin27_t1_5mm.nii.gz` (5 mm slices)
and, given a brain-extracted volume of that grid, `sample_data/mri/regions/colin27_t1.nii.gz` (1 brain, 0 elsewhere).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.physics.thick import ThroughPlaneSampling

BOX = (slice(6, 174), slice(4, 212), slice(45, 125))
"""Voxels of Colin 27 that are kept: 168 x 208 x 80 mm, from the temporal lobes to the upper cortex."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--mask", type=Path, help="brain-extracted volume of the same grid")
    parser.add_argument("--output_dir", type=Path, default=Path("sample_data/mri"))
    parser.add_argument("--ratio", type=float, default=5.0)
    args = parser.parse_args(argv)

    image = nib.load(args.volume)
    truth = image.slicer[BOX]
    save(args.output_dir / "truth/colin27_t1.nii.gz", np.asarray(truth.dataobj), truth.affine, np.uint8)

    operator = ThroughPlaneSampling(ratio=args.ratio).for_grid(truth.shape, truth.header.get_zooms())
    thick = operator.forward(torch.from_numpy(truth.get_fdata())[..., : operator.domain_shape[2]])
    affine = operator.range_affine(torch.from_numpy(truth.affine)).numpy()
    save(
        args.output_dir / "measured/colin27_t1_5mm.nii.gz", thick.round().numpy(), affine, np.uint8
    )  # integers, as scanners store

    if args.mask:
        brain = nib.load(args.mask).slicer[BOX].get_fdata() > 0
        save(args.output_dir / "regions/colin27_t1.nii.gz", brain.astype(np.uint8), truth.affine, np.uint8)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray, dtype: type) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    print(f"wrote {path}: {voxels.shape}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    with plain_endings():
        main()
