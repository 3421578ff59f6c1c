"""Series of volumes: what is one, which volumes are taken, and each is read by itself, from NIfTI and DICOM."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.testing import data_path

from interslice.files.dicom_search import search
from interslice.files.dicom_time import time_stacks
from interslice.files.limits import Limits
from interslice.files.read import LoadVolumed
from interslice.files.scan import Refusal
from interslice.files.series import Series, chosen_of, times_of, widest
from tests.support.dicom_files import AFFINE, VOXELS, write_time_points
from tests.support.helpers import repeatable
from tests.support.scans import THICK, write_series


# -- which volumes ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value, found", [
    ("all", (0, 1, 2, 3, 4)), (3, (3,)), ([4, 0, 0], (0, 4)), ("4,0", (0, 4)), ("1:3", (1, 2)),
    (":2", (0, 1)), ("1::2", (1, 3)),
])  # fmt: skip
def test_times_name_volumes_as_python_does(value, found):
    assert chosen_of(times_of(value), 5) == found


@pytest.mark.parametrize("value", [5, [0, 7], "5:9"])
def test_volumes_that_are_not_there_are_refused(value):
    with pytest.raises(Refusal, match="it holds 5 volumes, from 0 to 4, and --times names others"):
        chosen_of(times_of(value), 5)


@repeatable
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)).map(sorted), min_size=1))
def test_the_range_of_a_series_holds_that_of_each_volume(ranges):
    low, high = widest(ranges)
    assert all(low <= a and b <= high for a, b in ranges)
    assert low in [a for a, _ in ranges] and high in [b for _, b in ranges]


# -- reading ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz", "bold.hdr"])
def test_each_volume_is_read_by_itself(tmp_path, name):
    voxels = write_series(tmp_path / name)
    load = LoadVolumed("image", limits=Limits(max_gigabytes=1e-5))  # one volume, and not all
    series = load.volumes_of(str(tmp_path / name))
    assert isinstance(series, Series) and series.count == 4
    for point in [*series.points(), series.points()[1]]:
        image = load({"image": point})["image"]
        assert np.array_equal(image[0], voxels[..., point.index])
        assert np.allclose(image.affine, THICK) and image.meta["source"].time is point
    with pytest.raises(ValueError, match="at most 1e-05 GB are read"):
        load({"image": str(tmp_path / name)})


def test_a_compressed_file_is_unpacked_once(tmp_path, monkeypatch):
    voxels = np.random.default_rng(0).integers(0, 100, (64, 48, 20, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, THICK), tmp_path / "bold.nii.gz")
    load = LoadVolumed("image")
    series = load.volumes_of(str(tmp_path / "bold.nii.gz"))
    unpacked, real = [], gzip._GzipReader.read

    def counted(self, *args):
        unpacked.append(len(piece := real(self, *args)))
        return piece

    monkeypatch.setattr(gzip._GzipReader, "read", counted)
    for point in series.points():
        assert np.array_equal(load({"image": point})["image"][0], voxels[..., point.index])
    assert voxels.nbytes <= sum(unpacked) < 1.3 * voxels.nbytes


def test_one_volume_in_four_dimensions_is_a_volume(tmp_path):
    write_series(tmp_path / "one.nii.gz", np.ones(1))
    assert LoadVolumed("image").volumes_of(str(tmp_path / "one.nii.gz")) == str(tmp_path / "one.nii.gz")


@pytest.mark.parametrize("intent, words", [
    (2003, r"its 4 volumes are the channels of a picture in colours \(intent RGB vector\), and no time points"),
    (1007, r"each voxel is a vector of 4 numbers \(intent vector\), and its volumes are no time points"),
])  # fmt: skip
def test_colours_and_vectors_are_told_from_time(tmp_path, intent, words):
    write_series(tmp_path / "odd.nii.gz", intent=intent)
    with pytest.raises(ValueError, match=words):
        LoadVolumed("image").volumes_of(str(tmp_path / "odd.nii.gz"))


def test_a_real_series_is_read():
    """The 4-D example of nibabel: two echo-planar volumes of a head, 128 x 96 x 24."""
    path = f"{data_path}/example4d.nii.gz"
    load = LoadVolumed("image")
    series = load.volumes_of(path)
    assert series.count == 2
    whole = nib.load(path)
    image = load({"image": series.points()[1]})["image"]
    assert np.array_equal(image[0], whole.get_fdata()[..., 1]) and np.allclose(image.affine, whole.affine)


# -- DICOM --------------------------------------------------------------------------------------------------
def stack_in(folder):
    (stack,) = search(folder).stacks
    return stack


@pytest.mark.parametrize("by", ["TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber"])
def test_time_points_of_dicom_are_ordered_by_what_is_stated(tmp_path, by):
    series = np.stack([VOXELS, 2 * VOXELS, 3 * VOXELS], -1)

    def edit(ds, k, t):
        for other in {"TemporalPositionIdentifier", "AcquisitionNumber"} - {by}:
            delattr(ds, other)
        if by != "InstanceNumber":
            ds.InstanceNumber = 1000 - ds.InstanceNumber

    write_time_points(tmp_path / "bold", series, AFFINE, edit)
    stacks = time_stacks(stack_in(tmp_path / "bold"))
    assert len(stacks) == 3
    for t, stack in enumerate(stacks):
        assert np.array_equal(stack.voxels(), series[..., t]) and np.allclose(stack.affine, AFFINE, atol=1e-4)


def test_a_place_with_an_image_too_many_makes_no_series(tmp_path):
    write_time_points(tmp_path / "bold", np.stack([VOXELS, VOXELS + 1], -1), AFFINE)
    next(iter(sorted((tmp_path / "bold").iterdir()))).unlink()
    stack = stack_in(tmp_path / "bold")
    assert time_stacks(stack) == (stack,)
