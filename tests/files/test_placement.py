"""A marked point keeps its place through every header, by the reading of nibabel and of ITK."""

import itertools
import pickle
import warnings

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from interslice.files.check import check_volume, shear_of
from interslice.files.placement import Placement
from interslice.files.read import LoadVolumed
from interslice.files.source import source_of
from interslice.files.write import write_nifti

SHAPE = (20, 18, 6)
FINER = np.diag([1, 1, 0.25, 1.0])
FINER[2, 3] = -0.375  # four slices in the place of one


def grid(angles=(10, -8, 25), spacing=(0.9, 1.1, 5.0), signs=(1, 1, 1)):
    """(4, 4): an oblique grid, left-handed where one sign is -1."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, signs))
    affine[:3, 3] = -20, 11, -3
    return affine


def save(path, qform=None, sform=None, codes=(1, 1), unit="mm", pixdim=None, kind=nib.Nifti1Image):
    """Save noise with a header that states these matrices, as they are."""
    image = kind(np.random.default_rng(0).random(SHAPE, np.float32), None)
    image.set_qform(qform, 0 if qform is None else codes[0], update_affine=False)
    image.set_sform(sform, 0 if sform is None else codes[1], update_affine=False)
    form = sform if qform is None else qform
    image.header["pixdim"][1:4] = voxel_sizes(form) if pixdim is None else pixdim
    image.header.set_xyzt_units(unit, "sec")
    path.write_bytes(image.to_bytes())
    return path


def load(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


def written(source, path):
    """The file of a result on four times as many slices as `source`."""
    volume = load(source)
    finer = np.asarray(volume.affine) @ FINER
    result = MetaTensor(volume.as_tensor().repeat_interleave(4, dim=3), affine=finer)
    write_nifti(path, result, source_of(volume).nifti)
    return path


def itk_place(path, voxel):
    """RAS place of a voxel, as ITK reads a file."""
    image = itk.imread(str(path), itk.F)
    steps = np.asarray(image.GetDirection()) * np.array(image.GetSpacing())
    return np.array([-1, -1, 1]) * (np.array(image.GetOrigin()) + steps @ voxel)


def coarse(voxel):
    """Where a voxel of the result is, in voxels of its source."""
    return apply_affine(FINER, voxel)


ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (1, None), (None, 1), (None, 2), (2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::7])
def test_a_point_keeps_its_place(tmp_path, axes, signs, codes, kind):
    turned = grid() @ inv_ornt_aff(ornt_transform(io_orientation(np.eye(4)), list(zip(axes, signs))), SHAPE)
    forms = [None if code is None else turned for code in codes]
    source = save(tmp_path / "scan.nii", *forms, codes=codes, kind=kind)
    result = written(source, tmp_path / "result.nii")
    for voxel in ((3, 5, 8), (19, 17, 23)):
        place = apply_affine(nib.load(source).affine, coarse(voxel))
        np.testing.assert_allclose(apply_affine(nib.load(result).affine, voxel), place, atol=1e-3)
        if kind is nib.Nifti1Image:  # ITK reads no other
            np.testing.assert_allclose(itk_place(result, voxel), itk_place(source, coarse(voxel)), atol=1e-3)
    header = nib.load(result).header
    assert (header["qform_code"], header["sform_code"]) == tuple(code or 0 for code in codes)


def test_rounded_pixdim_does_not_move_the_volume(tmp_path):
    source = save(tmp_path / "scan.nii", None, grid(signs=(-1, 1, 1)), pixdim=(0.9, 1.1, 4.9999))
    np.testing.assert_array_equal(load(source).affine, nib.load(source).affine)


def test_two_spaces_go_out_as_two(tmp_path):
    scanner, template = grid(), grid((0, 0, 5), (1.0, 1.2, 5.5))
    source = save(tmp_path / "scan.nii", scanner, template, codes=(1, 4))
    with pytest.warns(UserWarning, match=r"sform \(code 4\) and qform \(code 1\) place voxels up to \d+\.\d mm apart"):
        result = nib.load(written(source, tmp_path / "result.nii"))
    np.testing.assert_allclose(result.get_qform(), scanner @ FINER, atol=1e-4)
    np.testing.assert_allclose(result.get_sform(), template @ FINER, atol=1e-4)
    assert (result.header["qform_code"], result.header["sform_code"]) == (1, 4)
    np.testing.assert_allclose(result.header.get_zooms(), (0.9, 1.1, 1.25), rtol=1e-5)


def test_without_an_orientation_none_is_claimed(tmp_path):
    source = save(tmp_path / "scan.nii", pixdim=(1, 1, 5))
    with pytest.warns(UserWarning, match="left and right are not known"):
        result = nib.load(written(source, tmp_path / "result.nii"))
    assert (result.header["qform_code"], result.header["sform_code"]) == (0, 0)
    np.testing.assert_allclose(result.header.get_zooms(), (1, 1, 1.25))


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1000), ("meter", 0.001)])
def test_lengths_become_millimetres(tmp_path, unit, factor):
    affine = np.diag([factor, factor, factor, 1]) @ grid()
    source = save(tmp_path / "scan.nii", affine, affine, unit=unit)
    with pytest.warns(UserWarning, match=f"lengths are in {unit}"):
        result = nib.load(written(source, tmp_path / "result.nii"))
    for form in (result.affine, result.get_qform(), result.get_sform()):
        np.testing.assert_allclose(form, grid() @ FINER, rtol=1e-4, atol=1e-4)
    assert result.header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize("code", [5, 7, 66, 255])
def test_a_code_of_units_that_the_standard_lacks_is_unknown(tmp_path, code):
    content = bytearray(save(tmp_path / "scan.nii", grid(), grid()).read_bytes())
    content[123] = code
    (tmp_path / "scan.nii").write_bytes(content)
    result = nib.load(written(tmp_path / "scan.nii", tmp_path / "result.nii"))
    np.testing.assert_allclose(result.affine, grid() @ FINER, atol=1e-4)


def test_spacing_that_pixdim_denies_is_said(tmp_path):
    source = save(tmp_path / "scan.nii", None, grid(), pixdim=(0.9, 1.1, 4.0))
    with pytest.warns(UserWarning, match=r"5\.0\] mm by the sform.* 4\.0\] mm by pixdim"):
        load(source)


def test_a_plain_header_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(save(tmp_path / "scan.nii", grid(), grid()))


def test_what_does_not_hang_on_the_grid_survives(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).random((*SHAPE, 1), np.float32), grid())
    image.header["descrip"], image.header["pixdim"][4] = b"TE=90;Time=1200", 2.5
    image.header.set_intent("z score", name="of a study")
    image.header.set_xyzt_units("mm", "msec")
    nib.save(image, tmp_path / "scan.nii")
    header = nib.load(written(tmp_path / "scan.nii", tmp_path / "result.nii")).header
    assert bytes(header["descrip"]).rstrip(b"\0") == b"TE=90;Time=1200" and header["pixdim"][4] == 2.5
    assert header.get_intent() == ("z score", (), "of a study") and header.get_xyzt_units() == ("mm", "msec")


def test_a_placement_goes_to_workers_whole(tmp_path):
    placement = source_of(load(save(tmp_path / "scan.nii", grid(), grid()))).nifti
    again = pickle.loads(pickle.dumps(placement))
    np.testing.assert_array_equal(again.sform, placement.sform)
    assert again.header == placement.header


@given(degrees=st.floats(0, 40), axis=st.sampled_from([0, 1]), turn=st.tuples(*[st.floats(-180, 180)] * 3))
@settings(deadline=None, max_examples=50)
def test_shear_is_measured_in_any_orientation(degrees, axis, turn):
    sheared = grid(turn)
    sheared[:3, 2] += np.tan(np.radians(degrees)) * 5 * sheared[:3, axis] / np.linalg.norm(sheared[:3, axis])
    volume = MetaTensor(np.random.default_rng(0).random((1, *SHAPE)), affine=sheared)
    np.testing.assert_allclose(shear_of(volume.affine), degrees, atol=1e-5)
    if degrees > 1.001:
        with pytest.raises(ValueError, match="degrees off a right angle"):
            check_volume(volume)
    elif degrees < 0.999:
        check_volume(volume)


def test_voxels_that_came_otherwise_are_in_the_scanner_s_space():
    image = Placement.scanner(grid()).image(np.zeros(SHAPE, np.float32), grid())
    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
