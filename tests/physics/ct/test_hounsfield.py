"""Hounsfield units: CT passes, what plainly is something else is refused, and padding below air becomes air."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from interslice.files.root_cause import root_cause
from interslice.physics.ct.attenuation import CheckHounsfieldd
from tests.support.helpers import repeatable
from tests.support.scans import head_voxels, write_volume

READ = Compose([LoadImaged("image", ensure_channel_first=True), CheckHounsfieldd("image")])
CHECK = CheckHounsfieldd("image")


def ct_voxels(low=-1000, high=1200, shape=(10, 9, 8)):
    """Air, lung, fat, water, tissue and bone in turn, and the two values given."""
    values = np.resize([-1000.0, -700.0, -100.0, 0.0, 40.0, 80.0, 600.0], shape)
    values[0, 0, 0], values[1, 0, 0] = low, high
    return values.astype(np.float32)


NOT_CT = {
    "zero to one": (ct_voxels() + 1000) / 2200,
    "minus one to one": (ct_voxels() + 1000) / 1100 - 1,
    "MRI": head_voxels((20, 18, 20)),
    "MRI with noise around zero": head_voxels((20, 18, 20)) - 30,
    "shifted by 1024, as in a file without its intercept": np.linspace(0, 4000, 720).reshape(10, 9, 8).round(),
    "attenuation per mm": 0.02 * (1 + ct_voxels() / 1000),
    "all air": np.linspace(-1024, -900, 720).reshape(10, 9, 8),
    "beyond any metal": ct_voxels(high=65535),
}


@pytest.mark.parametrize(
    ("low", "high"), [(-1000, 1200), (-1024, 3071), (-990, 60), (-400, 80), (-1024, 30000)],
    ids=["body", "whole range of 12 bits", "chest without bone", "fat and lung only", "metal"],
)  # fmt: skip
def test_ct_passes_unchanged(tmp_path, low, high):
    voxels = ct_voxels(low, high).clip(low, high)
    path = write_volume(tmp_path / "ct.nii.gz", voxels, spacing=(1.5, 1.5, 2))
    loaded = READ({"image": str(path), "other": 7})
    np.testing.assert_array_equal(loaded["image"][0], voxels)
    assert loaded["other"] == 7
    assert loaded["image"].pixdim.tolist() == [1.5, 1.5, 2] and loaded["image"].meta["filename_or_obj"] == str(path)


@pytest.mark.parametrize("voxels", NOT_CT.values(), ids=NOT_CT)
def test_other_values_are_refused_with_the_file_the_range_and_the_fix(tmp_path, voxels):
    path = write_volume(tmp_path / "scan.nii.gz", voxels.astype(np.float32))
    with pytest.raises(RuntimeError) as caught:
        READ({"image": str(path)})
    told = root_cause(caught.value)
    low, high = float(voxels.astype(np.float32).min()), float(voxels.astype(np.float32).max())
    assert told.startswith(f"{path}: values from {low:g} to {high:g} are not Hounsfield units")
    assert "rescale the volume, or apply its rescale slope and intercept" in told


def test_the_fix_that_the_refusal_names_helps(tmp_path):
    """The same stored numbers, 24 to 2224, without and with the intercept in the header."""
    stored = (ct_voxels() + 1024).astype(np.uint16)
    path = write_volume(tmp_path / "scan.nii", stored)
    with pytest.raises(RuntimeError) as caught:
        READ({"image": str(path)})
    assert "values from 24 to 2224" in root_cause(caught.value)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(1, -1024)  # nibabel leaves the numbers and writes the intercept
    nib.save(image, path)
    np.testing.assert_array_equal(READ({"image": str(path)})["image"][0], ct_voxels())


@pytest.mark.parametrize("padding", [-1025, -2000, -3024, -32768])
def test_padding_below_air_becomes_minus_1024(padding):
    voxels = torch.from_numpy(ct_voxels())[None]
    voxels[0, :3] = padding
    given = MetaTensor(voxels.clone())
    passed = CHECK({"image": given})["image"]
    assert (passed[0, :3] == -1024).all()
    assert torch.equal(passed[0, 3:].as_tensor(), voxels[0, 3:])
    assert torch.equal(given.as_tensor(), voxels)  # what was given is left as it is


@repeatable
@given(low=st.floats(-32768, -201, width=32), high=st.floats(0, 39000, width=32))
def test_whatever_reaches_from_air_or_fat_to_water_passes_with_its_order(low, high):
    values = torch.linspace(low, high, 64).view(1, 4, 4, 4)
    passed = CHECK({"image": MetaTensor(values)})["image"].as_tensor()
    assert torch.equal(passed, values.clamp_min(-1024))


def test_each_of_several_keys_is_checked():
    good, bad = MetaTensor(torch.from_numpy(ct_voxels())[None]), MetaTensor(torch.rand(1, 4, 4, 4))
    bad.meta["filename_or_obj"] = "label.nii.gz"
    assert CheckHounsfieldd("image")({"image": good, "label": bad})["label"] is bad
    with pytest.raises(ValueError, match="^label.nii.gz: values from 0"):
        CheckHounsfieldd(["image", "label"])({"image": good, "label": bad})


@pytest.mark.parametrize("tensor", [MetaTensor, torch.Tensor])
def test_an_image_without_a_file_is_refused_by_the_same_words(tensor):
    with pytest.raises(ValueError, match="^the image: values from 0 to 1 are not Hounsfield units"):
        CHECK({"image": tensor(torch.linspace(0, 1, 64).view(1, 4, 4, 4))})
