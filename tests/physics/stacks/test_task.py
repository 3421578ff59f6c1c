"""configs/task_stacks.json end to end on tiny volumes: simulated stacks, with every solver that goes with them."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from interslice.physics.stacks import Stacks
from tests.support.scans import EVALUATE, INFERENCE, OBLIQUE, head_voxels, write_volume

TASK = "configs/task_stacks.json"
SHAPE = (20, 24, 20)
QUICK = {"baselines#total_variation#iterations": 10, "displayable_configs#ratio": 4}
SOLVERS = ("dds", "ddnm", "ddnm_plus", "diffpir", "dps", "red_diff", "daps", "mbir", "planes", "unconditional")


@pytest.fixture
def truth(tmp_path):
    return write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels(SHAPE), affine=OBLIQUE)


@pytest.mark.parametrize("order", ["task first", "evaluation first"])
def test_the_order_of_task_and_evaluation_does_not_matter(order):
    parser = ConfigParser()
    parser.read_config([INFERENCE, *([TASK, EVALUATE] if order == "task first" else [EVALUATE, TASK])])
    names = [type(t).__name__ for t in parser.get_parsed_content("preprocessing").transforms]
    assert [n for n in names if n in ("SimulateStacksd", "Measured", "ScaleStacksd", "CheckMemoryd")] == [
        "SimulateStacksd", "Measured", "ScaleStacksd", "CheckMemoryd",
    ]  # fmt: skip
    assert isinstance(parser.get_parsed_content("check").scanner, Stacks)


def test_simulated_stacks_are_reconstructed_where_the_volume_was(run_here, tiny_overrides, truth, tmp_path):
    run_here("inference", [INFERENCE, TASK, EVALUATE], tiny_overrides(truth, measurement_noise=0.02, **QUICK))
    case = tmp_path / "results" / "head"
    recon, voxels = nib.load(case / "head_recon.nii.gz"), head_voxels(SHAPE)
    np.testing.assert_allclose(recon.affine, OBLIQUE, atol=1e-4)
    assert recon.shape == SHAPE
    assert np.corrcoef(recon.get_fdata().ravel(), voxels.ravel())[0, 1] > 0.6  # in place, not mirrored
    metrics = json.loads((case / "metrics.json").read_text(encoding="utf-8"))
    assert {"input", "total_variation", "recon"} <= metrics.keys()
    assert metrics["total_variation"]["volume"]["psnr"] > metrics["input"]["volume"]["psnr"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_takes_stacks(solver, run_here, tiny_overrides, truth, tmp_path):
    configs = [INFERENCE, TASK, EVALUATE, f"configs/solver_{solver}.json"]
    run_here("inference", configs, tiny_overrides(truth, **QUICK))
    case = tmp_path / "results" / "head"
    assert np.isfinite(nib.load(case / "head_recon.nii.gz").get_fdata()).all()
