"""Cut the embedded CT sample from the held-out chest and measure it.

    python -m scripts.data.make_ct_sample --volume data_ct/held_out/lidc_idri_0001.nii.gz

writes `sample_data/ct/truth/lidc_idri_0001.nii.gz` (2.5 mm, HU) and the photon counts of 30 parallel views that
`configs/task_svct.json` reconstructs, `sample_data/ct/measured/lidc_idri_0001_30views.npz` and `.json`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from interslice.files.last_words import plain_endings
from interslice.physics.ct import Tomography
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.thick.through_plane import slice_weights

CORNER, SLICES = (42, 25), slice(46, 94)
"""In-plane voxel (RAS) at which the crop begins, and the slices that are kept."""
SIZE, SPACING = 128, 2.5
"""Pixels and pixel size in mm of the crop: 320 mm, each pixel the mean over its area."""
NUM_VIEWS, PHOTONS = 30, 1e5


def crop(path: Path) -> nib.Nifti1Image:
    """The sample: axial slices of the chest, averaged to 2.5 mm pixels, in HU from -1024 up."""
    image = nib.as_closest_canonical(nib.load(path)).slicer[CORNER[0] :, CORNER[1] :, SLICES]
    spacing = float(image.header.get_zooms()[0])
    volume = torch.from_numpy(image.get_fdata()).clamp_min(-1024)
    for axis in (0, 1):
        weights = slice_weights(volume.shape[axis], spacing, SIZE, SPACING, SPACING)
        volume = torch.tensordot(weights, volume, ([1], [axis])).movedim(0, axis)
    affine = image.affine @ np.diag([SPACING / spacing, SPACING / spacing, 1, 1])
    # The center of the first new pixel, counted in old pixels.
    first = (SPACING / spacing - 1) / 2
    affine[:3, 3] = (image.affine @ [first, first, 0, 1])[:3]
    return nib.Nifti1Image(volume.round().short().numpy(), affine)


def counts(image: nib.Nifti1Image) -> tuple[np.ndarray, dict]:
    """Photon counts (views, columns, rows) of the default sparse-view scan of a CT volume, and its description."""
    volume = MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32))[None], affine=image.affine)
    operator = Tomography(beam="parallel", num_views=NUM_VIEWS).for_volume(volume)
    projections = operator.forward(HounsfieldScale().attenuation(volume.as_tensor()))[0].double().numpy()
    random = np.random.default_rng(0)
    values = random.poisson(PHOTONS * np.exp(-projections)).astype(np.uint32)
    fields = {**json.loads(operator.geometry.to_json()), "air_counts": PHOTONS, "grid": asdict(operator.grid)}
    return values, fields


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("sample_data/ct"))
    args = parser.parse_args(argv)
    path = args.output_dir / "truth/lidc_idri_0001.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = crop(args.volume)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    values, description = counts(image)
    measured = args.output_dir / "measured/lidc_idri_0001_30views.npz"
    measured.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(measured, projections=values)
    measured.with_suffix(".json").write_text(json.dumps(description) + "\n")
    for written, shape in ((path, image.shape), (measured, values.shape)):
        print(f"wrote {written}: {shape}, {written.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    with plain_endings():
        main()
