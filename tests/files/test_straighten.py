"""Shear: a phantom that is known in world coordinates keeps its points when a sheared grid becomes a straight one."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from interslice.files.check import CheckVolumed, check_volume, shear_of
from interslice.files.read import LoadVolumed
from interslice.files.source import source_of
from interslice.files.straighten import ResampleSheard, straight_grid, straightened
from interslice.files.write import write_nifti
from tests.support.dicom_files import save, short, write_series
from tests.support.scans import INFERENCE

SHAPE, SPACING = (30, 34, 12), np.array([1.1, 0.9, 4.0])
POINTS = np.array([[5.0, -4, 6], [-4, 4, -6], [3, 5, 2]])
"""Centres of blobs (mm, RAS), 3 mm wide."""

pytestmark = pytest.mark.filterwarnings("ignore:.*degrees off a right angle; resampled")


def sheared(degrees=18.0, along=1, turn=(10, -8, 25), order=(0, 1, 2), signs=(1, 1, 1), shape=SHAPE):
    """(4, 4): slices shifted along axis `along`, the origin of the world in the middle; axes in any order."""
    steps = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag(SPACING * signs)
    steps[:, 2] += np.tan(np.radians(degrees)) * SPACING[2] * steps[:, along] / SPACING[along]
    affine = np.eye(4)
    affine[:3, :3] = steps[:, order]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape)[list(order)] - 1) / 2)
    return affine


def blob(affine, shape, point):
    """A blob about a world point, sampled at the voxels of a grid."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return 1000 * np.exp(-0.5 * (np.square(voxels @ affine[:3, :3].T + affine[:3, 3] - point).sum(-1) / 3**2))


def volume_of(affine, shape=SHAPE):
    voxels = sum(blob(affine, shape, p) for p in POINTS).astype(np.float32)
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(affine))


@given(
    degrees=st.floats(2, 35),
    along=st.sampled_from([0, 1]),
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
)
@settings(deadline=None, max_examples=25)
def test_the_phantom_stays_where_it_is(degrees, along, turn, order, signs):
    shape = tuple(np.array(SHAPE)[list(order)])
    affine = sheared(degrees, along, turn, order, signs)
    straight = straightened(volume_of(affine, shape))
    check_volume(straight)
    there = np.asarray(straight.affine)
    assert np.sign(np.linalg.det(there)) == np.sign(np.linalg.det(affine))  # the hand is kept
    np.testing.assert_allclose(abs(np.linalg.det(there)), abs(np.linalg.det(affine)))  # and the voxel's volume
    truth = np.asarray(volume_of(there, tuple(straight.shape[1:]))[0])
    inside = within(np.linalg.inv(affine) @ there, straight.shape[1:], shape)
    assert np.abs(np.asarray(straight[0]) - truth)[inside].max() < 30  # of 1000, at the edges of the scan


def within(back, shape, sheared_shape):
    """Which voxels of a grid of `shape` lie in the sheared one, to whose indices `back` takes them."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    old = voxels @ back[:3, :3].T + back[:3, 3]
    return ((old >= 0) & (old <= np.array(sheared_shape) - 1)).all(-1)


def test_slices_are_moved_within_their_planes_alone():
    """Whole numbers of pixels per slice: nothing is interpolated, nothing mixed."""
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[1, 2] = 2.0
    voxels = np.random.default_rng(0).random((5, 6, 4)).astype(np.float32)
    straight = straightened(MetaTensor(torch.from_numpy(voxels)[None], affine=affine))
    assert straight.shape == (1, 5, 12, 4) and straight.affine.tolist() == np.diag([1.0, 1.0, 4.0, 1.0]).tolist()
    for k in range(4):
        np.testing.assert_allclose(straight[0, :, 2 * k : 2 * k + 6, k], voxels[:, :, k], atol=1e-6)


@given(degrees=st.floats(1.5, 44), turn=st.tuples(*[st.floats(-180, 180)] * 3))
@settings(deadline=None, max_examples=50)
def test_the_straight_grid_holds_the_sheared_one(degrees, turn):
    affine = sheared(degrees, 0, turn)
    straight, shape = straight_grid(affine, SHAPE)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in SHAPE], indexing="ij")).reshape(3, -1)
    moved = (np.linalg.inv(straight) @ affine @ np.vstack([corners, np.ones(8)]))[:3]
    assert (moved >= -1e-5).all() and (np.array(shape) - 1 + 1e-5 >= moved.T).all()
    assert shear_of(torch.from_numpy(straight)) < 1e-5
    np.testing.assert_allclose(moved[2], corners[2], atol=1e-6)  # the slices are the same
    np.testing.assert_allclose(np.linalg.norm(straight[:3, :3], axis=0), SPACING)


def test_what_is_not_sheared_passes_as_it_is():
    volume = volume_of(sheared(0.5))
    assert ResampleSheard("image", True)({"image": volume})["image"] is volume
    tilted = volume_of(sheared())
    assert ResampleSheard("image")({"image": tilted})["image"] is tilted


def test_more_than_a_gantry_can_tilt_is_refused():
    with pytest.raises(ValueError, match="60.0 degrees off a right angle, and at most 45 are resampled"):
        straightened(volume_of(sheared(60)))


def test_a_mask_stays_one():
    mask = (volume_of(sheared()) > 300).float()
    assert set(np.unique(straightened(mask, order=0))) == {0.0, 1.0}


def read(path, enabled):
    steps = [LoadVolumed("image"), ResampleSheard("image", enabled), CheckVolumed("image")]
    return Compose(steps)({"image": str(path)})["image"]


def tilted_nifti(path):
    """As dcm2niix writes a tilted gantry: a sheared sform, and the qform that comes nearest."""
    affine = sheared()
    image = nib.Nifti1Image(np.asarray(volume_of(affine)[0]), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)  # nibabel leaves the shear out
    nib.save(image, path)
    return path


@pytest.mark.filterwarnings("ignore:.*place voxels up to")
def test_a_tilted_nifti_is_refused_and_read_when_asked(tmp_path):
    path = tilted_nifti(tmp_path / "tilt.nii")
    with pytest.raises(RuntimeError) as caught:
        read(path, "no")
    assert "18.0 degrees off a right angle" in str(caught.value.__cause__)
    assert "--resample_shear yes" in str(caught.value.__cause__)
    with pytest.warns(UserWarning, match="resampled onto straight slices, as asked"):
        volume = read(path, "yes")
    write_nifti(tmp_path / "result.nii", volume, source_of(volume).nifti)
    result = nib.load(tmp_path / "result.nii")
    assert (result.header["qform_code"], result.header["sform_code"]) == (0, 1)
    for point in POINTS:
        weight = result.get_fdata() * blob(result.affine, result.shape, point)
        there = blob(result.affine, result.shape, point) * sum(blob(result.affine, result.shape, p) for p in POINTS)
        places = [nib.affines.apply_affine(result.affine, center_of_mass(w)) for w in (weight, there)]
        np.testing.assert_allclose(*places, atol=0.02)


def test_a_tilted_dicom_series_is_read_when_asked(tmp_path):
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    voxels = np.rint(blob(affine, (24, 20, 6), (9.0, 12, 10))).astype(int)
    for k, ds in enumerate(write_series(tmp_path, voxels, affine)):
        ds.ImagePositionPatient = short([0, k, 4 * k])
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    volume = read(tmp_path, True)
    assert source_of(volume).dicom is not None and volume.meta["slice_thickness"] == 4
    straight = np.asarray(volume.affine)
    assert volume.shape == (1, 24, 25, 6) and shear_of(volume.affine) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(straight[:3, :3], axis=0), (1, 1, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*place voxels up to")
def test_the_option_is_one_of_the_command_line(tmp_path, run_bundle, tiny_overrides):
    path = tilted_nifti(tmp_path / "tilt.nii")
    refused = run_bundle("inference", INFERENCE, tiny_overrides(path))
    assert refused.returncode == 1 and "--resample_shear yes" in refused.stderr
    done = run_bundle("inference", INFERENCE, tiny_overrides(path, resample_shear="yes"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resampled onto straight slices" in done.stderr
    assert shear_of(torch.from_numpy(nib.load(next(tmp_path.rglob("*_recon.nii.gz"))).affine)) < 1e-4
