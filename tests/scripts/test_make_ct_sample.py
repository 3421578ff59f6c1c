"""The embedded CT sample: means over 2.5 mm pixels that lie where its affine says."""

import json

import nibabel as nib
import numpy as np
import pytest

from scripts.data import make_ct_sample

GRADIENT, CENTRE, LEVEL = np.array([7.0, -5.0, 11.0]), np.array([0.0, -10.0, -165.0]), -150.0
"""HU per mm along R, A and S, a point in mm, and the HU there."""


def hounsfield(world):
    """A linear function of the position (..., 3) in mm."""
    return LEVEL + (world - CENTRE) @ GRADIENT


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    """A volume with the grid of the held-out chest (LAS) whose values are `hounsfield` of their position, rounded."""
    affine = np.array([[-0.703125, 0, 0, 167.0], [0, 0.703125, 0, -187.0], [0, 0, 2.5, -340.0], [0, 0, 0, 1]])
    shape = (512, 512, 133)
    assert nib.aff2axcodes(affine) == ("L", "A", "S")
    terms = [GRADIENT[a] * (affine[a, a] * np.arange(n) + affine[a, 3] - CENTRE[a]) for a, n in enumerate(shape)]
    plane = (LEVEL + terms[0][:, None] + terms[1]).astype(np.float32)
    voxels = np.empty(shape, np.int16, order="F")
    for z, height in enumerate(terms[2].astype(np.float32)):
        voxels[..., z] = np.rint(plane + height)
    path = tmp_path_factory.mktemp("chest") / "chest.nii"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    yield path
    path.unlink()  # 70 MB


@pytest.fixture(scope="module")
def sample(chest):
    return make_ct_sample.crop(chest)


def test_the_sample_has_isotropic_voxels_of_2_5_mm_in_ras(sample):
    assert sample.shape == (128, 128, 48) and sample.get_data_dtype() == np.int16
    np.testing.assert_allclose(sample.affine[:3, :3], 2.5 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(sample.header.get_zooms(), 2.5)


def test_each_value_is_that_of_the_place_its_affine_states(sample):
    """The mean of a linear function over a pixel is its value at the centre; half a source pixel off is 2 HU."""
    voxels = sample.get_fdata()
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in voxels.shape], indexing="ij"), -1)
    expected = hounsfield(nib.affines.apply_affine(sample.affine, indices))
    reach = 1.25 * np.abs(GRADIENT[:2]).sum() + 1  # within a pixel
    above, below = expected > -1024 + reach, expected < -1024 - reach
    assert above.mean() > 0.5 and below.mean() > 0.1
    np.testing.assert_allclose(voxels[above], expected[above], atol=1.01)  # two roundings
    assert abs(np.mean(voxels[above] - expected[above])) < 0.1
    assert (voxels[below] == -1024).all()
    assert voxels.min() == -1024


def test_values_below_air_are_raised_before_they_are_averaged(sample):
    """A pixel on the border of the scanner's padding is not pulled below its air: nowhere less than the function."""
    voxels = sample.get_fdata()
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in voxels.shape], indexing="ij"), -1)
    expected = hounsfield(nib.affines.apply_affine(sample.affine, indices))
    border = np.abs(expected + 1024) < 2.5
    assert border.sum() > 50 and (voxels[border] > -1023).all()


def test_the_crop_lies_inside_the_chest(chest, sample):
    whole = nib.as_closest_canonical(nib.load(chest))
    corners = nib.affines.apply_affine(sample.affine, [[-0.5] * 3, [n - 0.5 for n in sample.shape]])
    first, last = nib.affines.apply_affine(np.linalg.inv(whole.affine), corners)
    np.testing.assert_allclose(first, [42 - 0.5, 25 - 0.5, 46 - 0.5], atol=1e-4)  # the corner that the script names
    assert (last < np.array(whole.shape) - 0.5).all()


def test_the_script_writes_the_sample_where_it_is_told(monkeypatch, chest, sample, tmp_path):
    monkeypatch.setattr(make_ct_sample, "crop", lambda path: sample if path == chest else None)
    make_ct_sample.main(["--volume", str(chest), "--output_dir", str(tmp_path)])
    written = nib.load(tmp_path / "truth/lidc_idri_0001.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), sample.get_fdata())
    np.testing.assert_allclose(written.affine, sample.affine)
    assert written.header.get_xyzt_units()[0] == "mm"
    measured = tmp_path / "measured/lidc_idri_0001_30views.npz"
    angles = json.loads(measured.with_suffix(".json").read_text())["angles"]
    assert len(np.load(measured)["projections"]) == len(angles) == 30
