"""Bad input, from the command line's view: a clear message, no sampling, no result, and a status that scripts see."""

import re

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.prior.slices import SlicePrior
from tests.support.scans import (
    EVALUATE,
    INFERENCE,
    Marker,
    cut_short,
    head_voxels,
    random_network,
    thick_voxels,
    whole_message,
    write_volume,
)


@pytest.fixture
def no_sampling(monkeypatch):
    def called(*_):
        raise AssertionError("sampling began")

    monkeypatch.setattr(SlicePrior, "__call__", called)


@pytest.fixture
def refused(run_here, tiny_overrides, tmp_path, no_sampling):
    """Runs a config that has to fail before the network is called; returns all that is said."""

    def run(dataset_dir, config=INFERENCE, **others):
        with pytest.raises(Exception) as failed:  # noqa: B017 - the bundle runner wraps errors in its own
            run_here("inference", config, tiny_overrides(dataset_dir, **others))
        assert not list(tmp_path.rglob("*_recon.nii.gz"))
        message = whole_message(failed.value)
        assert "sampling began" not in message
        return message

    return run


def with_nan():
    voxels = thick_voxels()
    voxels[3, 4, 2] = np.nan
    return voxels


VOLUMES = {
    "2-D": (thick_voxels()[..., 0], 1, "image of 2 dimensions .*; split it first"),
    "vectors": (thick_voxels()[..., None, None] * [1, 2, 3], 1, r"a vector of 3 numbers \(dim\[5\]\).*no time points"),
    "5-D": (thick_voxels()[..., None, None] * np.ones((2, 3)), 1, r"it has 5 dimensions .*at most 4 are read"),
    "NaN": (with_nan(), 4, "1 voxel is NaN or infinite; replace them"),
    "constant": (np.full((8, 8, 8), 5.0, np.float32), 4, "every voxel is 5; a constant volume cannot be reconstructed"),
    "isotropic": (thick_voxels(), 1, r"no thick axis found: spacing \(1.0, 1.0, 1.0\) mm.*set the axis"),
}


@pytest.mark.parametrize(("voxels", "thickness", "message"), VOLUMES.values(), ids=VOLUMES)
def test_volumes(tmp_path, refused, voxels, thickness, message):
    path = write_volume(tmp_path / "scans" / "bad.nii.gz", voxels, spacing=(1, 1, thickness))
    assert re.search(rf"no usable volume:\n  {re.escape(str(path))}: .*{message}", refused(path))


def test_a_spacing_out_of_range(tmp_path, refused):
    path = write_volume(tmp_path / "scans" / "thick.nii.gz", thick_voxels(), spacing=(1, 1, 12))
    message = refused(path, **{"operator#spacing": 1.0})
    assert "slices 12 mm apart, to reconstruct at 1 mm: ratio 12 is outside 1.5 to 10; set the spacing" in message


def test_a_volume_thinner_than_two_slices(tmp_path, refused):
    path = write_volume(tmp_path / "scans" / "thin.nii.gz", head_voxels((20, 18, 3)))
    message = refused(path, [INFERENCE, EVALUATE])
    assert re.search(
        r"3 mm thick along axis 2, less than two slices of 5 mm, 5 mm apart, .*lower the ratio \(5\)", message
    )


def test_a_missing_volume(tmp_path, refused):
    assert f"{tmp_path}/none.nii.gz does not exist: set dataset_dir" in refused(tmp_path / "none.nii.gz")


def test_a_truncated_volume(tmp_path, refused):
    path = cut_short(write_volume(tmp_path / "scans" / "short.nii.gz", head_voxels((40, 36, 10)), spacing=(1, 1, 4)))
    assert re.search(rf"no usable volume:\n  {re.escape(str(path))}: .*(ended before the end|truncated)", refused(path))


SETTINGS = {
    "operator#axis": (7, 'axis must be 0, 1, 2 or "auto", got 7'),
    "operator#ratio": (20, "ratio 20 is outside 1.5 to 10"),
    "operator#profile": ("triangle", r"profile must be one of box, gaussian, sinc, or a file"),
    "operator#gap": (4, "a gap of 4 mm leaves no slice between centres 4 mm apart: lower the gap"),
    "operator#gap ": (
        -200.0,
        r"a thickness of 204 mm \(gap -200 mm\) is more than 4 times the distance",
    ),
    "operator#thickness ": (200, "a thickness of 200 mm is more than 4 times the distance of the slices, 4 mm: set"),
    "operator#thickness": (-1, "thickness must be a number of mm above 0, got -1"),
    "eta": (1.5, "eta must be a number from 0, up to 1, got 1.5"),
    "num_steps": (0, "(?i)num_steps .* got 0"),
    "start_fraction": (0, "(?i)start_fraction .* got 0"),
    "num_draws": (0, "num_draws must be a whole number from 1, got 0"),
    "slice_axis": ("z", r"slice_axis must be 0, 1, 2, .* got 'z'"),
    "slice_batch_size": (0, "slice_batch_size must be a whole number from 1, got 0; or .auto. to have it chosen"),
    "sigma_rule": ("none", r"sigma_rule must be one of ddim, fixed_share, got 'none'"),
}


@pytest.mark.parametrize(("key", "value", "message"), [(k, *v) for k, v in SETTINGS.items()], ids=SETTINGS)
def test_settings(thick_file, refused, key, value, message):
    assert re.search(message, refused(thick_file, **{key.strip(): value}))


@pytest.mark.parametrize("degrees", [0.1, 0.9])
def test_axes_that_dicom_cannot_have_are_refused_before_the_work(degrees, tmp_path, refused):
    """They are reconstructed as NIfTI; as DICOM the run would fail when all is done."""
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[0, 2] = 4 * np.tan(np.deg2rad(degrees))
    path = write_volume(tmp_path / "scans" / "leaning.nii.gz", thick_voxels(), affine)
    for output_format in ("dicom", "both"):
        message = refused(path, output_format=output_format)
        assert f"leaning.nii.gz: the axes of the volume are {degrees:.2f} degrees off right angles" in message
        assert "write --output_format nifti, or resample the volume" in message


def test_axes_off_by_rounding_are_written_as_dicom(tmp_path, run_here, tiny_overrides):
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[0, 2] = 4 * np.tan(np.deg2rad(0.04))
    path = write_volume(tmp_path / "scans" / "straight.nii.gz", thick_voxels(), affine)
    run_here("inference", INFERENCE, tiny_overrides(path, output_format="dicom"))
    assert len(list((tmp_path / "results" / "straight" / "straight_recon").glob("*.dcm"))) == 24


def test_weights_that_are_missing(tmp_path, thick_file, refused):
    path = tmp_path / "none.pt"
    assert f"weights {path} do not exist: set checkpoint" in refused(thick_file, checkpoint=str(path))


def test_weights_that_are_truncated(tmp_path, thick_file, refused):
    torch.save(random_network().state_dict(), tmp_path / "model.pt")
    message = refused(thick_file, checkpoint=str(cut_short(tmp_path / "model.pt")))
    assert re.search(r"model\.pt cannot be read, the file may be truncated", message)


def test_weights_that_hold_code(tmp_path, thick_file, refused):
    torch.save({"model": Marker(tmp_path / "marker")}, tmp_path / "model.pt")
    message = refused(thick_file, checkpoint=str(tmp_path / "model.pt"))
    assert "hold more than tensors and are not loaded, because they could run code" in message
    assert not (tmp_path / "marker").exists()


def test_weights_of_another_architecture(tmp_path, thick_file, refused):
    torch.save(random_network(channels=(16, 16)).state_dict(), tmp_path / "model.pt")
    message = refused(thick_file, checkpoint=str(tmp_path / "model.pt"), **{"network_def#channels": [8, 16]})
    assert "belong to another architecture than network_def" in message


def test_weights_of_another_task(tmp_path, thick_file, refused):
    """The network would run, on intensities that it has never seen."""
    torch.save(
        random_network(scale={"kind": "hounsfield", "low": -1000.0, "high": 1000.0}).state_dict(), tmp_path / "ct.pt"
    )
    message = refused(thick_file, checkpoint=str(tmp_path / "ct.pt"))
    assert "ct.pt were trained on Hounsfield units, as CT is, and this task brings volumes scaled by their" in message


def test_an_output_dir_that_cannot_be_written(tmp_path, thick_file, refused):
    """A file stands where the folder should be; permissions do not bind root."""
    (tmp_path / "file").touch()
    message = refused(thick_file, output_dir=str(tmp_path / "file" / "results"))
    assert re.search(r"output_dir .*file/results cannot be written .*: choose another --output_dir", message)


# -- by command line ------------------------------------------------------------------------------
@pytest.mark.slow
def test_one_bad_volume_among_three(tmp_path, run_bundle, tiny_overrides):
    for name in ("first", "third"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    bad = write_volume(tmp_path / "scans" / "second.nii.gz", with_nan(), spacing=(1, 1, 4))
    finished = run_bundle("inference", INFERENCE, tiny_overrides(tmp_path / "scans"))
    assert finished.returncode == 1, finished.stderr
    written = sorted(tmp_path.rglob("*_recon.nii.gz"))
    assert [p.parent.name for p in written] == ["first", "third"]
    assert all(np.isfinite(nib.load(p).get_fdata()).all() for p in written)
    end = finished.stderr.rstrip().splitlines()[-2:]
    assert end[0].startswith("1 of 3 volumes have no result:")
    assert str(bad) in end[1] and "NaN" in end[1]


@pytest.mark.slow
def test_a_bad_setting_by_command_line(tmp_path, run_bundle, tiny_overrides, thick_file):
    finished = run_bundle("inference", INFERENCE, tiny_overrides(thick_file) | {"operator#axis": 7})
    assert finished.returncode != 0
    assert 'axis must be 0, 1, 2 or "auto", got 7' in finished.stderr
    assert not list(tmp_path.rglob("*_recon.nii.gz"))
