"""Every config that is shipped, end to end on tiny volumes, and what MONAI's tools require of them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from interslice.prior.weights import load_weights
from tests.support.dicom_files import write_series as write_mr_series
from tests.support.scans import (
    CHANNELS,
    EVALUATE,
    GROUPS,
    INFERENCE,
    ROOT,
    TRAIN,
    chest_voxels,
    head_voxels,
    random_network,
    thick_voxels,
    write_volume,
)

TRAINED_HERE = {
    "network_def#channels": list(CHANNELS),
    "network_def#norm_num_groups": GROUPS,
    "device": "$torch.device('cpu')",
    "patch_size": 16,
    "batch_size": 2,
    "max_epochs": 1,
    "epoch_length": 2,
    "validate#cut#num_patches": 8,
    "sample_grid#size": 16,
    "sample_grid#num_steps": 2,
}


def the_case(folder):
    (case,) = folder.iterdir()
    return case


NOISE_FIELDS = {
    "independent": "IndependentNoise",
    "identical": "IdenticalNoise",
    "mixed": "MixedNoise",
    "slerp": "SlerpNoise",
    "piecewise": "PiecewiseSlerpNoise",
    "ou": "OrnsteinUhlenbeckNoise",
    "matern": "MaternNoise",
    "auto": "AutoLength",
}
"""What `--noise` takes, and the classes that the names stand for."""


@pytest.mark.parametrize("noise", NOISE_FIELDS)
def test_inference_writes_an_isotropic_volume_that_agrees_with_the_scan(
    noise, run_here, tiny_overrides, thick_file, tmp_path
):
    run_here("inference", INFERENCE, tiny_overrides(thick_file, noise=noise))
    case = the_case(tmp_path / "results")
    recon, thick = nib.load(case / "thick_recon.nii.gz"), nib.load(thick_file)
    assert recon.shape == (20, 18, 24)
    np.testing.assert_allclose(recon.header.get_zooms(), 1, rtol=1e-5)
    means = recon.get_fdata().reshape(20, 18, 6, 4).mean(3)
    np.testing.assert_allclose(means, thick.get_fdata(), atol=1e-3 * thick.get_fdata().max())
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["noise_field"].split("(")[0] == NOISE_FIELDS[noise]
    assert {"seconds", "network_calls", "peak_memory_mb", "device", "versions", "settings", "source"} <= record.keys()
    assert sorted(p.name for p in case.iterdir()) == ["run.json", "thick_recon.nii.gz"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["scan", "thick slices", "task_svct", "task_csmri"])
def test_every_task_has_a_page(task, run_here, tiny_overrides, thick_file, tmp_path):
    if task == "scan":
        configs, scan = [], thick_file
    else:
        configs = [EVALUATE] if task == "thick slices" else [f"configs/{task}.json", EVALUATE]
        voxels = chest_voxels() if task == "task_svct" else head_voxels((20, 18, 26))
        scan = write_volume(tmp_path / "truth.nii.gz", voxels)
    run_here("inference", [INFERENCE, *configs], tiny_overrides(scan, report="true"))
    page = (the_case(tmp_path / "results") / "report.html").read_text(encoding="utf-8")
    assert "not for diagnosis" in page and str(tmp_path) not in page
    assert ("How close to the truth" in page) == (task != "scan")
    assert ('"unit": "HU"' in page) == (task == "task_svct")


@pytest.mark.slow
@pytest.mark.parametrize(("length", "read"), [("10.0", "10.0"), ("[40.0,5.0]", "(40.0, 5.0)")])
def test_lengths_of_noise_are_set_on_the_command_line(length, read, run_bundle, tiny_overrides, thick_file, tmp_path):
    """One number, or two for a schedule, as docs/reference/noise.md says."""
    overrides = tiny_overrides(thick_file, noise="ou") | {"noise_field#length": length}
    done = run_bundle("inference", INFERENCE, overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((the_case(tmp_path / "results") / "run.json").read_text(encoding="utf-8"))
    assert read in record["settings"]["noise_field"]


@pytest.mark.slow
@pytest.mark.parametrize("compare", [False, "True"])
def test_evaluation_measures_every_method(compare, run_here, tiny_overrides, tmp_path):
    truth = write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels((20, 18, 26)))
    write_volume(tmp_path / "regions" / "head.nii.gz", (head_voxels((20, 18, 26)) > 700).astype(np.uint8))
    overrides = tiny_overrides(truth, compare=compare, region_dir=str(tmp_path / "regions"))
    run_here("inference", [INFERENCE, EVALUATE], overrides)
    case = the_case(tmp_path / "results")
    metrics = json.loads((case / "metrics.json").read_text(encoding="utf-8"))
    methods = {"input", "cubic", "cubic_consistent", "smoothest", "total_variation", "recon"}
    assert metrics.keys() == methods | ({"independent", "identical", "slerp", "independent_tv"} if compare else set())
    for name in methods - {"cubic"}:
        assert metrics[name]["data_residual"] < 1e-5
    assert set(metrics["recon"]["regions"]) == {"inside", "outside"}
    assert nib.load(case / "head_recon.nii.gz").shape == (20, 18, 25)  # five thick slices; the rest is not covered
    assert (case / "report.png").stat().st_size > 10_000
    if compare:
        assert metrics["slerp"] == metrics["recon"] != metrics["identical"]


def test_the_same_seed_gives_the_same_file_and_another_seed_another(run_here, tiny_overrides, thick_file, tmp_path):
    voxels = []
    for run, seed in enumerate((3, 3, 4)):
        run_here("inference", INFERENCE, tiny_overrides(thick_file, seed=seed, output_dir=str(tmp_path / str(run))))
        voxels.append(nib.load(the_case(tmp_path / str(run)) / "thick_recon.nii.gz").get_fdata())
    assert np.array_equal(voxels[0], voxels[1]) and not np.allclose(voxels[0], voxels[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_adaptation_writes_weights_beside_the_case_that_inference_takes(
    kind, run_here, tiny_overrides, tiny_weights, tmp_path
):
    # The sharp planes of a 4 mm scan are its thick slices.
    voxels = head_voxels((24, 20, 24)).reshape(24, 20, 6, 4).mean(3)
    if kind == "nifti":
        scan = write_volume(tmp_path / "scan.nii.gz", voxels, spacing=(1, 1, 4))
    else:
        scan = tmp_path / "scan"
        write_mr_series(scan, np.round(voxels).astype(int), np.diag([1.0, 1.0, 4.0, 1.0]))
    overrides = TRAINED_HERE | {
        "dataset_dir": str(scan),
        "output_dir": str(tmp_path / "out"),
        "checkpoint": str(tiny_weights),
    }
    run_here("adaptation", [TRAIN, "configs/adapt.json"], overrides)
    adapted = tmp_path / "out" / "scan" / "scan_prior.pt"
    before, after = random_network(), load_weights(random_network(1), adapted)
    changes = [float((a - b).abs().max()) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert 0 < max(changes) < 0.1  # moved, but from the given weights
    run_here("inference", INFERENCE, tiny_overrides(scan, checkpoint=str(adapted)))


def test_the_server_reads_what_it_needs_without_the_rest(tiny_overrides, thick_file, monkeypatch):
    """Serving tools use these five items alone, with no handlers, initialize or metadata."""
    monkeypatch.chdir(ROOT)
    workflow = ConfigWorkflow(INFERENCE, workflow_type="inference", logging_file=False, **tiny_overrides(thick_file))
    parser = workflow.parser
    data = parser.get_parsed_content("preprocessing")({"image": str(thick_file)})
    network = parser.get_parsed_content("network_def").to(parser.get_parsed_content("device"))
    data["pred"] = parser.get_parsed_content("inferer")(inputs=data["image"][None], network=network)[0]
    restored = parser.get_parsed_content("postprocessing").transforms[0](data)["pred"]
    assert tuple(restored.shape) == (1, 20, 18, 24)
    np.testing.assert_allclose(restored.pixdim, 1, rtol=1e-5)


def test_every_config_is_run_by_a_test():
    tested = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("*.py"))
    for path in Path(ROOT / "configs").glob("*.json"):
        assert path.stem in tested, path


def write_series(folder, voxels, spacing):
    """A DICOM MR series, one file per slice, under names in another order than the slices."""
    itk = pytest.importorskip("itk")
    folder.mkdir()
    uid = "1.2.826.0.1.3680043.8.498.1"
    for k in range(voxels.shape[2]):
        image = itk.image_from_array(np.ascontiguousarray(voxels[:, :, k].T)[None].astype(np.int16))
        position = [-20.0, 15.0, 40.0 + k * spacing[2]]
        image.SetSpacing(list(spacing))
        image.SetOrigin(position)
        tags = {
            "0008|0060": "MR", "0020|000d": f"{uid}.1", "0020|000e": f"{uid}.2", "0020|0013": str(k + 1),
            "0020|0032": "\\".join(map(str, position)), "0020|0037": r"1\0\0\0\1\0", "0018|0050": str(spacing[2]),
        }  # fmt: skip
        dictionary = image.GetMetaDataDictionary()
        for tag, value in tags.items():
            dictionary[tag] = value
        writer = itk.GDCMImageIO.New()
        writer.KeepOriginalUIDOn()
        itk.imwrite(image, str(folder / f"{(7 * k) % voxels.shape[2]:03d}.dcm"), imageio=writer)


def test_a_dicom_series_is_read_in_place(run_here, tiny_overrides, tmp_path):
    thick = np.round(thick_voxels())
    write_series(tmp_path / "series", thick, (1.0, 1.0, 4.0))
    run_here("inference", INFERENCE, tiny_overrides(tmp_path / "series"))
    recon = nib.load(tmp_path / "results" / "series" / "series_recon.nii.gz")
    assert recon.shape == (20, 18, 24)
    # DICOM positions are in LPS, NIfTI's in RAS; fine voxel 0 begins where thick slice 0 begins.
    np.testing.assert_allclose(recon.affine @ [0, 0, 0, 1], [20, -15, 40 - 1.5, 1], atol=1e-4)
    np.testing.assert_allclose(recon.get_fdata().reshape(20, 18, 6, 4).mean(3), thick, atol=1.0)
