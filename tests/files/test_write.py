"""Outputs: written whole or not at all, in the scanner's orientation, position and intensities."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientationd

from interslice.files.case_folder import WriteCases
from interslice.files.findings import Findings
from interslice.files.restore import Restored
from interslice.files.save_results import SaveResults
from interslice.files.write import check_writable, write_json, write_nifti
from interslice.physics import Measured, operator_of
from interslice.physics.measurement import reconstructed
from interslice.physics.thick import ScalePercentilesd, ThroughPlaneSampling
from tests.support.scans import INFERENCE, OBLIQUE, thick_voxels, write_volume

# Axes of a scan with 4 mm slices: as it is, flipped, tilted, and with the thick axis first.
THICK = np.diag([1.0, 1.0, 4.0, 1.0])
GEOMETRIES = {
    "straight": (THICK, (0, 1, 2)),
    "flipped": (np.diag([-1.0, -1.0, -1.0, 1.0]) @ THICK, (0, 1, 2)),
    "oblique": (OBLIQUE @ THICK, (0, 1, 2)),
    "sagittal": (OBLIQUE @ THICK @ np.eye(4)[[1, 2, 0, 3]], (2, 0, 1)),
}
every_geometry = pytest.mark.parametrize(("affine", "order"), GEOMETRIES.values(), ids=GEOMETRIES)


def oblique_result(shape=(5, 6, 7)):
    voxels = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    return MetaTensor(voxels, affine=torch.from_numpy(OBLIQUE @ np.diag([0.7, 0.8, 1.3, 1.0])))


def files(folder):
    return sorted(p.name for p in folder.iterdir())


# -- whole or not at all --------------------------------------------------------------------------
def test_json_is_written_whole(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"seed": 1})
    with pytest.raises(TypeError):
        write_json(path, {"seed": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"seed": 1}
    assert files(tmp_path) == ["run.json"]


def test_json_is_read_by_strict_readers(tmp_path):
    """NaN and Infinity are no JSON: the PSNR of an exact result, or of an empty region, is null."""
    write_json(tmp_path / "metrics.json", {"psnr": float("inf"), "regions": [{"psnr": float("nan")}], "ssim": 0.5})
    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: name)
    assert content == {"psnr": None, "regions": [{"psnr": None}], "ssim": 0.5}


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_an_unwritable_place_is_named_with_the_fix(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"output_dir .*file.* cannot be written .*: choose another --output_dir"):
        check_writable(tmp_path / "file" / below)
    with pytest.raises(OSError, match="choose another --output_dir"):
        WriteCases(str(tmp_path / "file" / below), [SaveResults()], None)  # when the config is read, not hours later


def test_a_format_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="output_format must be one of .*dicom.*, got 'dcm'"):
        SaveResults(output_format="dcm")


def test_a_writable_place_is_not_made_before_there_is_something_to_write(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b" and files(tmp_path) == []


# -- geometry and intensities ---------------------------------------------------------------------
def test_nifti_keeps_values_affine_and_units(tmp_path):
    result = oblique_result()
    write_nifti(tmp_path / "a.nii.gz", result)
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), result[0].numpy())
    assert image.header.get_xyzt_units()[0] == "mm"
    for affine in (image.get_sform(coded=True)[0], image.get_qform(coded=True)[0]):
        np.testing.assert_allclose(affine, result.affine, atol=1e-5)


def test_results_are_named_after_their_input(tmp_path):
    result = oblique_result()
    image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "elsewhere/scan.v2.nii.gz"})
    result.meta["findings"] = Findings().with_map("std", result)
    SaveResults().write({"image": image, "pred": result}, tmp_path)
    assert files(tmp_path) == ["scan.v2_recon.nii.gz", "scan.v2_std.nii.gz"]


def world(affine, shape):
    """World coordinates (3, X, Y, Z) of every voxel."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    return np.einsum("ij,jxyz->ixyz", np.asarray(affine, float), index)[:3]


@every_geometry
def test_restored_moves_no_voxel_and_undoes_the_scale(tmp_path, affine, order):
    """A result on the fine grid whose values are its world positions still tells them after the way back."""
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels().transpose(order), affine)
    preprocessing = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            Measured("image", ThroughPlaneSampling()),
            ScalePercentilesd("image"),
        ]
    )
    measurement = preprocessing({"image": str(path)})["image"]
    scale = measurement.applied_operations[-1]["extra_info"]
    operator = operator_of(measurement)
    fine = operator.domain_affine(measurement.affine)
    scaled = torch.from_numpy(world(fine, operator.domain_shape).sum(0)).float()
    restored = Restored("pred", preprocessing)({"pred": reconstructed(scaled, measurement)})["pred"]

    assert nib.aff2axcodes(restored.affine.numpy()) == nib.aff2axcodes(affine)
    slope = (scale["upper"] - scale["lower"]) / 2
    raw = slope * (world(restored.affine, restored.shape[1:]).sum(0) + 1) + scale["lower"]
    np.testing.assert_allclose(restored[0], raw, atol=1e-4 * np.abs(raw).max())
    assert sorted(restored.shape[1:]) == sorted(operator.domain_shape) != sorted(measurement.shape[1:])


@every_geometry
def test_a_run_writes_a_result_whose_slices_average_to_the_scan(tmp_path, run_here, tiny_overrides, affine, order):
    """The whole way, file to file: four fine voxels lie where one thick voxel lay, and their mean is its value."""
    path = write_volume(tmp_path / "scans" / "scan.nii.gz", thick_voxels().transpose(order), affine)
    run_here("inference", INFERENCE, tiny_overrides(path))
    scan, recon = nib.load(path), nib.load(tmp_path / "results" / "scan" / "scan_recon.nii.gz")
    thick = order.index(2)
    ratio = [4 if a == thick else 1 for a in range(3)]
    blocks = recon.get_fdata().reshape([n for a in range(3) for n in (scan.shape[a], ratio[a])])
    np.testing.assert_allclose(blocks.mean((1, 3, 5)), scan.get_fdata(), atol=2e-3 * scan.get_fdata().max())
    centre = np.array([3.0, 4.0, 2.0])
    np.testing.assert_allclose(
        nib.affines.apply_affine(recon.affine, centre * ratio + (np.array(ratio) - 1) / 2),
        nib.affines.apply_affine(scan.affine, centre),
        atol=1e-3,
    )


def test_the_run_record_tells_how_the_result_was_made(tmp_path, run_here, tiny_overrides, thick_file):
    run_here("inference", INFERENCE, tiny_overrides(thick_file, seed=7, slice_axis=0, slice_batch_size=5))
    record = json.loads((tmp_path / "results" / "thick" / "run.json").read_text(encoding="utf-8"))
    assert record["source"] == str(thick_file)
    assert (record["input_shape"], record["output_shape"]) == ([20, 18, 6], [20, 18, 24])
    assert record["output_spacing_mm"] == [1, 1, 1]
    assert record["settings"]["seed"] == 7 and record["settings"]["num_steps"] == 2
    assert record["network_calls"] == 2 * 4  # two steps over at most 20 sagittal slices, five at a time
    assert record["device"] == "cpu" and record["seconds"] >= 0 and record["peak_memory_mb"] > 0
    assert record["versions"].keys() >= {"python", "torch", "monai", "numpy", "nibabel"}
