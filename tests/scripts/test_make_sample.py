"""The embedded sample: a crop that stays in place, and thick slices that are its means."""

import nibabel as nib
import numpy as np

from scripts.data import make_sample
from tests.support.scans import write_volume


def test_the_sample_is_a_crop_and_the_means_of_its_slices(tmp_path):
    whole = np.zeros((181, 217, 181), np.uint8)
    whole[::3, ::2, :] = np.arange(181, dtype=np.uint8)  # the value is the height
    affine = np.array([[1.0, 0, 0, -90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
    path = write_volume(tmp_path / "head.nii.gz", whole, affine)
    mask = write_volume(tmp_path / "brain.nii.gz", (whole > 100).astype(np.uint8), affine)
    make_sample.main(["--volume", str(path), "--mask", str(mask), "--output_dir", str(tmp_path), "--ratio", "5"])
    truth, thick = nib.load(tmp_path / "truth/colin27_t1.nii.gz"), nib.load(tmp_path / "measured/colin27_t1_5mm.nii.gz")
    voxels = truth.get_fdata()
    np.testing.assert_array_equal(voxels, whole[make_sample.BOX])
    np.testing.assert_allclose(thick.get_fdata(), voxels.reshape(*voxels.shape[:2], -1, 5).mean(3), atol=0.5)
    np.testing.assert_allclose(thick.header.get_zooms(), (1, 1, 5))
    at = nib.affines.apply_affine
    np.testing.assert_allclose(at(thick.affine, [0, 0, 3]), at(truth.affine, [0, 0, 17]))
    np.testing.assert_allclose(at(truth.affine, [0, 0, 0]), at(affine, [b.start for b in make_sample.BOX]))
    region = nib.load(tmp_path / "regions/colin27_t1.nii.gz")
    np.testing.assert_array_equal(region.get_fdata(), voxels > 100)
