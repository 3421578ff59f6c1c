"""Inputs: which volumes a folder holds, and a clear refusal of each that cannot be reconstructed."""

import re
import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from bundle.inputs import (
    SUFFIXES,
    Cases,
    CheckOperatord,
    CheckVolumed,
    case_name,
    check_volume,
    list_volumes,
    root_cause,
    split_volumes,
)
from bundle.operators import ThroughPlaneSampling
from tests.conftest import cut_short, thick_voxels, write_volume
from tests.helpers import repeatable

READ = Compose([LoadImaged("image", ensure_channel_first=True), CheckVolumed("image")])


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def dicom(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(8))
    return path


def names(volumes):
    return [v["image"].rsplit("/", 1)[1] for v in volumes]


def refusal(path):
    """What the user is told about a file, without its name."""
    with pytest.raises(RuntimeError) as caught:
        READ({"image": str(path)})
    return root_cause(caught.value).replace(str(path), "FILE")


# -- finding volumes ------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_case_name_drops_the_image_suffix_and_nothing_else(suffix):
    assert case_name(f"folder/scan.v2{suffix}") == "scan.v2"
    assert case_name(f"folder/SCAN{suffix.upper()}") == "SCAN"
    assert case_name("folder/series.7") == "series.7"


def test_a_file_is_one_volume(tmp_path):
    path = touch(tmp_path, "a.nii.gz") / "a.nii.gz"
    assert list_volumes(path) == [{"image": str(path)}] == list_volumes(str(path))


def test_a_folder_is_sorted_and_leaves_other_and_hidden_files_out(tmp_path):
    touch(tmp_path, "b.nii.gz", "a.nii", "c.MHA", ".partial-7-d.nii.gz", "notes.txt", "e.json", "deep/f.nii.gz")
    assert names(list_volumes(tmp_path)) == ["a.nii", "b.nii.gz", "c.MHA"]


def test_a_dicom_folder_is_one_volume(tmp_path):
    for name in ("IM0002", "IM0001.dcm"):
        dicom(tmp_path / "series" / name)
    touch(tmp_path, "series/DICOMDIR.txt")
    assert list_volumes(tmp_path / "series") == [{"image": str(tmp_path / "series")}]


def test_dicom_folders_stand_beside_files(tmp_path):
    touch(tmp_path, "z.nii", "no_series/readme.txt")
    dicom(tmp_path / "a_series" / "1")
    assert names(list_volumes(tmp_path)) == ["z.nii", "a_series"]


def test_hidden_dicom_folders_are_left_out(tmp_path):
    touch(tmp_path, "z.nii")
    dicom(tmp_path / ".trash" / "1")
    assert names(list_volumes(tmp_path)) == ["z.nii"]


def test_missing_and_empty_sources_name_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: set dataset_dir"):
        list_volumes(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no volume in .*: expected \.nii"):
        list_volumes(touch(tmp_path, "notes.txt"))


def test_volumes_that_would_share_a_result_folder_are_refused(tmp_path):
    touch(tmp_path, "scan.nii", "scan.nii.gz", "other.nii")
    with pytest.raises(ValueError, match="more than one volume named scan: rename one"):
        list_volumes(tmp_path)


# -- training and validation ----------------------------------------------------------------------
@repeatable
@given(count=st.integers(2, 40), fraction=st.floats(0.01, 0.99))
def test_a_split_uses_each_volume_once_and_leaves_none_of_the_two_empty(tmp_path_factory, count, fraction):
    folder = touch(tmp_path_factory.mktemp("split"), *[f"{i:02d}.nii" for i in range(count)])
    training, validation = split_volumes(folder, fraction=fraction)
    assert training + validation == list_volumes(folder)
    assert training and validation


def test_a_split_holds_out_its_fraction(tmp_path):
    touch(tmp_path, *[f"{i:02d}.nii" for i in range(30)])
    training, validation = split_volumes(tmp_path, fraction=0.2)
    assert (len(training), len(validation)) == (24, 6)


def test_a_validation_folder_is_taken_as_it_is(tmp_path):
    touch(tmp_path, "training/only.nii", "validation/a.nii", "validation/b.nii")
    training, validation = split_volumes(tmp_path / "training", tmp_path / "validation")
    assert names(training) == ["only.nii"] and names(validation) == ["a.nii", "b.nii"]


def test_one_volume_cannot_serve_as_both(tmp_path):
    with pytest.raises(ValueError, match="holds one volume: .*validation_dir"):
        split_volumes(touch(tmp_path, "only.nii"))


# -- refusing volumes -----------------------------------------------------------------------------
def bad_voxels(value):
    voxels = thick_voxels()
    voxels[1, 2, 3] = value
    return voxels


BAD = {
    "2-D": (thick_voxels()[..., 0], r"got an image of 2 dimensions \(20, 18\); split it first"),
    "one slice": (thick_voxels()[..., :1], r"got \(20, 18, 1\): an axis has a single voxel"),
    "4-D": (np.stack([thick_voxels()] * 3, 3), "expected one channel, got 3; save each channel as its own volume"),
    "5-D": (np.stack([np.stack([thick_voxels()] * 2, 3)] * 2, 4), "of 4 dimensions .* split it first"),
    "NaN": (bad_voxels(np.nan), "1 voxels are NaN or infinite; replace them"),
    "Inf": (bad_voxels(-np.inf), "1 voxels are NaN or infinite; replace them"),
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
    [np.diag([1.0, 1.0, 0.0, 1.0]), np.diag([1.0, np.nan, 2.0, 1.0]), [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]],
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
    assert "complex" in refusal(write_volume(tmp_path / "scan.nii.gz", (thick_voxels() * (1 + 1j)).astype(np.complex64)))


@pytest.mark.parametrize(
    ("spacing", "passes"), [((1, 1, 4), True), ((1, 1, 1), False), ((1, 1, 12), False)], ids=["4x", "isotropic", "12x"]
)
def test_the_operator_has_a_say(spacing, passes):
    volume = MetaTensor(
        torch.from_numpy(thick_voxels())[None],
        affine=torch.diag(torch.tensor([*spacing, 1.0])),
        meta={"filename_or_obj": "scan.nii.gz"},
    )
    check = CheckOperatord("image", ThroughPlaneSampling())
    if passes:
        assert check({"image": volume})["image"] is volume
    else:
        with pytest.raises(ValueError, match=r"^scan\.nii\.gz: .*(set the axis|set the spacing)"):
            check({"image": volume})


# -- the volumes of a run -------------------------------------------------------------------------
def test_one_bad_volume_is_skipped_and_named_at_the_end(tmp_path, capsys):
    for name in ("a", "c"):
        write_volume(tmp_path / f"{name}.nii.gz", thick_voxels())
    bad = write_volume(tmp_path / "b.nii.gz", bad_voxels(np.nan))
    cases = Cases(tmp_path, READ)
    assert names(cases.usable) == ["a.nii.gz", "c.nii.gz"]
    assert str(bad) in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"1 of 3 volumes were skipped:\n .*b\.nii\.gz: .*NaN") as end:
        cases.finish()
    assert isinstance(end.value.code, str)  # which Python prints, and ends with status 1


def test_finish_is_silent_when_all_is_well(tmp_path):
    write_volume(tmp_path / "a.nii.gz", thick_voxels())
    assert Cases(tmp_path, READ).finish() is None


def test_no_usable_volume_ends_the_run_at_once(tmp_path):
    for name, voxels in (("a", BAD["NaN"][0]), ("b", BAD["constant"][0])):
        write_volume(tmp_path / f"{name}.nii.gz", voxels)
    with pytest.raises(ValueError, match=r"(?s)no usable volume:.*a\.nii\.gz: .*NaN.*b\.nii\.gz: .*constant"):
        Cases(tmp_path, READ)


def test_regions_are_found_by_file_name(tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", thick_voxels())
    region = write_volume(tmp_path / "regions" / "b.nii.gz", thick_voxels())
    assert [c.get("region") for c in Cases(tmp_path / "scans", READ, tmp_path / "regions").usable] == [None, str(region)]
