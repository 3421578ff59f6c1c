"""Workflow objects, as other programs use them: from any current directory, in a fresh process."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from tests.support.scans import INFERENCE, ROOT, head_voxels, write_volume
from tests.test_configs import TRAINED_HERE

WORKFLOW = """
import json, sys
from pathlib import Path
from monai.bundle import ConfigWorkflow, create_workflow

root, overrides = sys.argv[1], json.loads(Path("overrides.json").read_text())
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Runs code in a folder of its own, with no path to the bundle but `root`: `elsewhere(code, overrides, root)`."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(code, overrides, root=str(ROOT)):
        (folder / "overrides.json").write_text(json.dumps(overrides))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", WORKFLOW + code, root],
            cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return run


@pytest.mark.slow
def test_inference_from_elsewhere_gives_what_the_root_gives(elsewhere, run_here, tiny_overrides, thick_file, tmp_path):
    run_here("inference", INFERENCE, tiny_overrides(thick_file, output_dir=str(tmp_path / "here")))
    code = """
workflow = ConfigWorkflow(
    root + "/configs/inference.json", workflow_type="inference", bundle_root=root, output_dir="results", **overrides
)
workflow.initialize()
assert workflow.check_properties() == []
assert workflow.bundle_root == root and workflow.version == workflow.parser["_meta_#version"]
assert type(workflow.network_def).__name__ == "SliceUNet" and type(workflow.inferer).__name__ == "ForegroundInferer"
assert [Path(item["image"]).name for item in workflow.dataset_data] == ["thick.nii.gz"]
assert tuple(workflow.dataset[0]["image"].shape) == (1, 20, 18, 6)
assert workflow.evaluator.inferer is workflow.inferer
assert workflow.preprocessing and workflow.postprocessing and workflow.handlers
assert not any(Path("results").rglob("*_recon*"))
workflow.run()
workflow.finalize()
assert Path(sys.modules["interslice"].__file__).parents[1].samefile(root)
"""
    overrides = tiny_overrides(thick_file)
    del overrides["output_dir"]
    folder = elsewhere(code, overrides)
    there, here = (f / "thick" / "thick_recon.nii.gz" for f in (folder / "results", tmp_path / "here"))
    # Another process may compute with another number of threads, which rounds otherwise.
    np.testing.assert_allclose(nib.load(there).get_fdata(), nib.load(here).get_fdata(), atol=0.01)
    assert sorted(p.name for p in folder.iterdir()) == ["overrides.json", "results"]


@pytest.mark.slow
def test_properties_can_be_set_and_the_root_may_be_relative(elsewhere, tiny_overrides, tmp_path):
    """A program that serves scans one after the other changes `dataset_dir` and initialises again."""
    for name, shape in (("one", (8, 8, 6)), ("two", (10, 8, 6))):
        voxels = head_voxels((*shape[:2], 24)).reshape(*shape, 4).mean(3)
        write_volume(tmp_path / "elsewhere" / name / f"{name}.nii.gz", voxels, spacing=(1, 1, 4))
    code = """
workflow = create_workflow(
    config_file=root + "/configs/inference.json", workflow_type="inference", bundle_root=root, **overrides
)
for name, width in (("one", 8), ("two", 10)):
    workflow.dataset_dir = name
    workflow.initialize()
    assert workflow.dataset[0]["image"].shape[1] == width
    workflow.run()
    workflow.finalize()
"""
    overrides = tiny_overrides("nowhere", output_dir="results")
    folder = elsewhere(code, overrides, os.path.relpath(ROOT, tmp_path / "elsewhere"))
    shapes = {p.name: nib.load(p).shape for p in (folder / "results").rglob("*_recon.nii.gz")}
    assert shapes == {"one_recon.nii.gz": (8, 8, 24), "two_recon.nii.gz": (10, 8, 24)}


@pytest.mark.slow
def test_training_from_elsewhere(elsewhere, tmp_path):
    for seed in (0, 1):
        write_volume(tmp_path / "heads" / f"head{seed}.nii.gz", head_voxels((24, 20, 24), seed))
    code = """
workflow = create_workflow(
    config_file=root + "/configs/train.json", workflow_type="train", bundle_root=root, output_dir="prior", **overrides
)
assert workflow.check_properties() == []
assert workflow.max_epochs == 1 and workflow.val_interval == 1
assert [Path(item["image"]).name for item in workflow.train_dataset_data] == ["head0.nii.gz"]
assert type(workflow.train_inferer).__name__ == "DiffusionInferer"
assert type(workflow.network_def).__name__ == "SliceUNet"
assert workflow.trainer.network is workflow.parser.get_parsed_content("network")
workflow.run()
workflow.finalize()
"""
    overrides = TRAINED_HERE | {"dataset_dir": str(tmp_path / "heads")}
    folder = elsewhere(code, overrides)
    assert (folder / "prior" / "model.pt").is_file()
    assert sorted(p.name for p in folder.iterdir()) == ["overrides.json", "prior"]


@pytest.mark.slow
def test_the_command_line_runs_from_elsewhere(tiny_overrides, thick_file, tmp_path):
    words = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(ROOT / INFERENCE)]
    overrides = tiny_overrides(thick_file, output_dir="results", bundle_root=str(ROOT))
    words += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results" / "thick" / "thick_recon.nii.gz").is_file()
