"""Checks: a volume that cannot be reconstructed is refused with its name, the value and the fix; others pass."""

import gzip
import re
import struct
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from interslice.files.check import CheckVolumed, check_size, check_volume
from interslice.files.read import LoadVolumed
from interslice.files.root_cause import root_cause
from interslice.physics import Measured, operator_of
from interslice.physics.thick import ThroughPlaneSampling
from tests.support.scans import cut_short, thick_voxels, write_volume

READ = Compose([LoadVolumed("image"), CheckVolumed("image")])


def refusal(path):
    """What the user is told about a file, without its name."""
    with pytest.raises(RuntimeError) as caught:
        READ({"image": str(path)})
    return root_cause(caught.value).replace(str(path), "FILE")


def bad_voxels(value):
    voxels = thick_voxels()
    voxels[1, 2, 3] = value
    return voxels


BAD = {
    "2-D": (thick_voxels()[..., 0], r"got an image of 2 dimensions \(20, 18\); split it first"),
    "one slice": (thick_voxels()[..., :1], r"got \(20, 18, 1\): an axis has a single voxel"),
    "4-D": (
        np.stack([thick_voxels()] * 3, 3),
        "expected one volume, got 3 \\(times or channels\\); save each as its own file",
    ),
    "5-D": (np.stack([np.stack([thick_voxels()] * 2, 3)] * 2, 4), "it has 5 dimensions .* split it first"),
    "NaN": (bad_voxels(np.nan), "1 voxel is NaN or infinite; replace them"),
    "Inf": (bad_voxels(-np.inf), "1 voxel is NaN or infinite; replace them"),
    "one bit flipped": (bad_voxels(2.9e38), r"1 voxel is beyond 1e\+15, up to 2.9e\+38: repair them, or divide"),
    "constant": (np.full((8, 7, 6), 3.0, np.float32), "every voxel is 3; a constant volume"),
}


@pytest.mark.parametrize(("voxels", "message"), BAD.values(), ids=BAD)
def test_bad_volumes_are_refused_with_the_file_the_value_and_the_fix(tmp_path, voxels, message):
    told = refusal(write_volume(tmp_path / "bad.nii.gz", voxels))
    assert re.search(f"^FILE: .*{message}", told), told


@pytest.mark.parametrize("voxels", [thick_voxels(), thick_voxels()[..., None], thick_voxels().astype(np.int16)])
def test_good_volumes_pass_unchanged(tmp_path, voxels):
    loaded = READ({"image": str(write_volume(tmp_path / "good.nii.gz", voxels, spacing=(1, 1, 4)))})["image"]
    assert loaded.shape == (1, 20, 18, 6)
    np.testing.assert_array_equal(loaded[0], voxels.reshape(20, 18, 6))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.diag([1.0, np.nan, 2.0, 1.0]),
        [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    ],
    ids=["zero spacing", "NaN spacing", "two axes in one plane"],
)
def test_impossible_geometry_is_refused(affine):
    volume = MetaTensor(torch.from_numpy(thick_voxels())[None], affine=torch.as_tensor(np.array(affine, float)))
    with pytest.raises(ValueError, match="spacing .* mm is not positive in each direction; repair the header"):
        check_volume(volume)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_header_without_finite_spacing_is_refused(tmp_path, value):
    """Zero and negative pixdim never get here: nibabel reads them as 1 and as their absolute value."""
    path = write_volume(tmp_path / "scan.nii", thick_voxels(), spacing=(1, 1, 4))
    header = bytearray(path.read_bytes())
    struct.pack_into("<hh", header, 252, 0, 0)  # neither qform nor sform: the spacing comes from pixdim
    struct.pack_into("<f", header, 88, value)
    path.write_bytes(header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert "is not positive in each direction; repair the header" in refusal(path)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_truncated_file_is_refused_as_such(tmp_path, head, name):
    told = refusal(cut_short(write_volume(tmp_path / name, head)))
    assert re.search("truncated|ended before the end|damaged", told), told


@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_a_complex_volume_is_refused_and_does_not_lose_its_phase(tmp_path):
    voxels = (thick_voxels() * (1 + 1j)).astype(np.complex64)
    assert "complex" in refusal(write_volume(tmp_path / "scan.nii.gz", voxels))


@pytest.mark.parametrize(
    ("spacing", "settings", "passes"),
    [((1, 1, 4), {}, True), ((1, 1, 1), {}, False), ((1, 1, 12), {"spacing": 1}, False)],
    ids=["4x", "isotropic", "12x"],
)
def test_the_operator_has_a_say(spacing, settings, passes):
    volume = MetaTensor(
        torch.from_numpy(thick_voxels())[None],
        affine=torch.diag(torch.tensor([*spacing, 1.0])),
        meta={"filename_or_obj": "scan.nii.gz"},
    )
    check = Measured("image", ThroughPlaneSampling(**settings))
    if passes:
        assert operator_of(check({"image": volume})["image"]).range_shape == tuple(volume.shape[1:])
    else:
        with pytest.raises(ValueError, match=r"^scan\.nii\.gz: .*(set the axis|set the spacing)"):
            check({"image": volume})


def with_pixdim(path, stated, sform):
    """A volume 4 mm apart along z by the sform, if it has one, and `stated` by pixdim."""
    whole = write_volume(path.with_name("whole.nii"), thick_voxels(), spacing=(1, 1, 4))
    content = bytearray(whole.read_bytes())
    struct.pack_into("<f", content, 76 + 3 * 4, stated)
    if not sform:
        struct.pack_into("<hh", content, 252, 1, 0)
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    whole.unlink()
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("stated", "sform"), [(-4.0, True), (-4.0, False), (0.0, True), (-9.0, True)])
def test_a_pixdim_that_is_not_asked_is_said(tmp_path, stated, sform, suffix):
    """Below 0 it is its absolute value, as for nibabel and FSL; the sform has a spacing of its own."""
    used = "the sform is used" if sform else "its absolute value is used, as by nibabel and FSL"
    with pytest.warns(UserWarning, match=f"spacing by pixdim is .* mm, not positive in each direction; {used}"):
        volume = READ({"image": str(with_pixdim(tmp_path / f"scan{suffix}", stated, sform))})["image"]
    assert volume.pixdim.tolist() == [1, 1, 4]


@pytest.mark.parametrize(("stated", "sform"), [(0.0, False), (float("nan"), True), (float("inf"), True)])
def test_a_spacing_that_readers_would_make_up_is_refused(tmp_path, stated, sform):
    """nibabel reads a pixdim of 0 as 1, which is not what the scanner meant."""
    told = refusal(with_pixdim(tmp_path / "scan.nii", stated, sform))
    assert "is not positive in each direction; repair the header" in told


@pytest.mark.parametrize(("spacing", "cause"), [
    ((0.001, 0.001, 0.005), "metres or centimetres"), ((0.012, 0.012, 0.05), "metres or centimetres"),
    ((1000, 1000, 5000), "micrometres"), ((45, 45, 120), "micrometres"),
])  # fmt: skip
def test_sizes_of_no_scan_are_refused_and_the_unit_is_named(tmp_path, spacing, cause):
    told = refusal(write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=spacing))
    stated = re.escape(" x ".join(f"{s:.3g}" for s in spacing))
    assert re.search(f"FILE: voxels of {stated} mm, .* are none of a scan .* {cause} that the header calls mm", told)


@pytest.mark.parametrize(("spacing", "shape"), [
    ((0.1, 0.1, 0.5), (20, 18, 6)), ((0.02, 0.02, 0.05), (60, 60, 6)), ((10, 10, 25), (20, 18, 6)),
    ((1, 1, 5), (500, 500, 400)), ((0.5, 0.5, 0.75), (20, 18, 2)),
])  # fmt: skip
def test_sizes_of_mice_and_of_whole_bodies_pass(spacing, shape):
    check_size(spacing, shape)


def test_the_longest_side_has_limits_too():
    with pytest.raises(ValueError, match="0.84 mm in all, .* metres or centimetres"):
        check_size((0.012, 0.012, 0.02), (70, 70, 20))
    with pytest.raises(ValueError, match="6e\\+03 mm in all, .* micrometres"):
        check_size((2.0, 2.0, 5.0), (500, 500, 1200))
