"""configs/task_csmri.json end to end on tiny volumes: simulated k-space, files, settings, and what is refused."""

import json

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from interslice.physics.kspace import CartesianSampling
from tests.physics.kspace.test_kspace import header
from tests.support.helpers import scan
from tests.support.scans import EVALUATE, INFERENCE, head_voxels, whole_message, write_volume

TASK = "configs/task_csmri.json"
SHAPE = (40, 36, 6)
AFFINE = np.array([[-2.0, 0, 0, 40], [0, 2.0, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1.0]])  # right to left
QUICK = {"baselines#total_variation#iterations": 10, "num_coils": 4}


@pytest.fixture
def truth(tmp_path):
    return write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels(SHAPE), affine=AFFINE)


def the_case(folder):
    (case,) = folder.iterdir()
    return case


@pytest.mark.parametrize("order", ["task first", "evaluation first"])
def test_the_order_of_task_and_evaluation_does_not_matter(order):
    parser = ConfigParser()
    parser.read_config([INFERENCE, *([TASK, EVALUATE] if order == "task first" else [EVALUATE, TASK])])
    names = [type(t).__name__ for t in parser.get_parsed_content("preprocessing").transforms]
    names = [name for name in names if name not in ("CarryMaskd", "Guided", "AsAcquiredd")]
    assert names[-5:] == ["SimulateKspaced", "Measured", "CheckOutputd", "ScaleKspaced", "CheckMemoryd"]
    assert parser.get_parsed_content("dataset_dir") == "./sample_data/mri/truth"
    operator = parser.get_parsed_content("check").scanner
    assert isinstance(operator, CartesianSampling) and operator.center_fraction == pytest.approx(0.08)


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", [4, 8])
def test_simulated_kspace_is_reconstructed_where_the_volume_was(
    acceleration, run_here, tiny_overrides, truth, tmp_path
):
    overrides = tiny_overrides(truth, acceleration=acceleration, **QUICK)
    run_here("inference", [INFERENCE, TASK, EVALUATE], overrides)
    case = the_case(tmp_path / "results")
    recon = nib.load(case / "head_recon.nii.gz")
    np.testing.assert_allclose(recon.affine, AFFINE, atol=1e-4)
    voxels = head_voxels(SHAPE)
    assert recon.shape == SHAPE and correlation(recon.get_fdata(), voxels) > 0.4  # in place, not mirrored
    assert np.median(recon.get_fdata()[voxels > 500]) == pytest.approx(np.median(voxels[voxels > 500]), rel=0.3)
    metrics = json.loads((case / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics) == ["input", "least_squares", "total_variation", "recon"]
    assert metrics["least_squares"]["data_residual"] < metrics["input"]["data_residual"]
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["acceleration"] == acceleration
    assert f"{acceleration}" in record["scan"].split("-fold")[0] and "4 coils" in record["scan"]
    assert (case / "report.png").stat().st_size > 10_000


def write_scan(path, slices=6):
    """A fastMRI file of a complete head, undersampled by zeros, of any scanner's units; returns its image."""
    voxels = head_voxels((40, 36, 9))[..., 4 - slices // 2 :][..., :slices] * 1e-6
    builder = CartesianSampling(num_coils=4, acceleration=2, center_fraction=0.3, field_of_view=1)
    y = builder.for_volume(scan(torch.from_numpy(voxels))).forward(torch.from_numpy(voxels))
    kspace = torch.view_as_complex(y).transpose(0, 1).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"], file["ismrmrd_header"] = kspace, header(36, 40)
    return voxels


@pytest.mark.slow
@pytest.mark.parametrize("slices", [6, 1])
def test_a_measured_file_is_reconstructed_in_its_own_units(slices, run_here, tiny_overrides, tmp_path):
    """With the data step alone the result is near the image."""
    image = write_scan(tmp_path / "scans" / "scan.h5", slices)
    overrides = tiny_overrides(tmp_path / "scans", start_fraction=0.001, num_steps=1, **QUICK)
    overrides |= {"data_consistency#iterations": 30, "data_consistency#rho": 1e-4}
    run_here("inference", [INFERENCE, TASK], overrides)
    (path,) = the_case(tmp_path / "results").glob("*_recon.nii.gz")
    recon = nib.load(path)
    np.testing.assert_allclose(recon.header.get_zooms(), [3, 2, 5], rtol=1e-5)
    error = recon.get_fdata() - image
    assert np.sqrt(np.square(error).mean()) < 0.25 * image.std()


def refused(run_here, configs, overrides):
    with pytest.raises(Exception) as error:
        run_here("inference", configs, overrides)
    return whole_message(error.value)


def test_without_a_file_the_message_says_what_to_do(run_here, tiny_overrides, tmp_path):
    """The default folder holds the sample of another task."""
    overrides = tiny_overrides("sample_data/mri/measured")
    message = refused(run_here, [INFERENCE, TASK], overrides)
    assert "expected .h5, .hdf5, .mrd files" in message and "configs/evaluate.json simulates" in message
    message = refused(run_here, [INFERENCE, TASK], tiny_overrides("sample_data/mri/measured/colin27_t1_5mm.nii.gz"))
    assert "not k-space" in message and "--dataset_dir" in message and "configs/evaluate.json" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acceleration": 0.5}, "acceleration must be a number from 1, got 0.5"),
        ({"acceleration": 32}, "lower acceleration"),
        ({"kspace_noise": -1.0}, "kspace_noise must be a share of the volume's maximum from 0, below 1, got"),
        ({"pattern": "spiral"}, "pattern must be one of"),
    ],
)
def test_bad_settings_are_refused_before_any_sampling(settings, message, run_here, tiny_overrides, truth, tmp_path):
    overrides = tiny_overrides(truth, **(QUICK | settings))
    assert message in refused(run_here, [INFERENCE, TASK, EVALUATE], overrides)
    assert not list((tmp_path / "results").rglob("*.nii.gz"))


def test_a_bad_file_is_left_out_and_the_others_are_named(run_here, tiny_overrides, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.h5").write_bytes(b"not HDF5")
    message = refused(run_here, [INFERENCE, TASK], tiny_overrides(tmp_path / "scans"))
    assert "no usable volume" in message and "a.h5" in message and "is it damaged" in message
