"""Alignment in a run of configs/task_stacks.json: once for a case, in its record, and from a file of poses."""

import json

import nibabel as nib
import numpy as np
import pytest

from interslice.files.alignment import read_poses
from interslice.physics.stacks import AlignStacksd
from tests.physics.stacks.moved import AFFINE, blobs
from tests.support.scans import EVALUATE, INFERENCE, write_volume

TASK = "configs/task_stacks.json"
MOVED = {
    "displayable_configs#ratio": 4, "operator#turn": 6, "operator#shift": 3, "operator#motion_known": False,
    "baselines#total_variation#iterations": 10, "measurement_noise": 0.01,
}  # fmt: skip


@pytest.fixture
def truth(tmp_path):
    return write_volume(tmp_path / "truth" / "head.nii.gz", blobs(), affine=AFFINE.numpy())


def psnr_of(case):
    return json.loads((case / "metrics.json").read_text())["total_variation"]["volume"]["psnr"]


def test_a_run_aligns_a_case_once_and_keeps_what_it_found(run_here, tiny_overrides, truth, tmp_path, monkeypatch):
    calls, prepare = [], AlignStacksd.prepare
    monkeypatch.setattr(AlignStacksd, "prepare", lambda self, image: calls.append(1) or prepare(self, image))
    run_here("inference", [INFERENCE, TASK, EVALUATE], tiny_overrides(truth, **MOVED))
    case = tmp_path / "results" / "head"
    aligned = psnr_of(case)
    assert len(calls) == 1
    assert {"head_poses.json", "head_stack2.tfm"} <= {path.name for path in case.iterdir()}
    axial, coronal = json.loads((case / "run.json").read_text())["stacks"]
    assert axial["turned_degrees"] == 0 and coronal["turned_degrees"] > 1 and coronal["similarity"] > 0.8
    assert np.asarray(nib.load(case / "head_recon.nii.gz").dataobj).shape == blobs().shape

    poses = tmp_path / "given.json"
    (case / "head_poses.json").rename(poses)
    run_here("inference", [INFERENCE, TASK, EVALUATE], tiny_overrides(truth, poses=str(poses), **MOVED))
    assert read_poses(case / "head_poses.json") == read_poses(poses)
    assert psnr_of(case) == pytest.approx(aligned, abs=0.1)

    run_here("inference", [INFERENCE, TASK, EVALUATE], tiny_overrides(truth, rounds=0, **MOVED))
    assert psnr_of(case) < aligned - 1  # where the headers are wrong
