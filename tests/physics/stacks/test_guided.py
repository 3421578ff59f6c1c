"""Several stacks and another contrast of the patient: the guide comes after the alignment, and helps these, too."""

import json

import numpy as np

from interslice.physics import guide as guides
from tests.physics.stacks.moved import AFFINE, blobs
from tests.support.scans import EVALUATE, INFERENCE, write_volume

TASK = "configs/task_stacks.json"


def test_stacks_take_a_guide_once_they_are_aligned(run_here, tiny_overrides, tmp_path, monkeypatch):
    head = np.asarray(blobs())
    truth = write_volume(tmp_path / "truth" / "head.nii.gz", head, affine=AFFINE.numpy())
    other = np.sqrt(np.abs(head.max() - head)).astype(np.float32)
    guide = write_volume(tmp_path / "t1.nii.gz", other, affine=AFFINE.numpy())
    compared, pose_of = [], guides.pose_of
    monkeypatch.setattr(guides, "pose_of", lambda *a, **k: compared.append(1) or pose_of(*a, **k))
    options = {"displayable_configs#ratio": 6, "rounds": 0, "measurement_noise": 0.02, "guide_registration": "header"}
    found = {}
    for name, given in (("without", {}), ("with", {"guide": str(guide)})):
        run_here("inference", [INFERENCE, TASK, EVALUATE], tiny_overrides(truth, **options, **given))
        case = tmp_path / "results" / "head"
        found[name] = json.loads((case / "metrics.json").read_text())["total_variation"]["volume"]["psnr"]
    record = json.loads((case / "run.json").read_text())
    assert len(compared) == 1
    assert record["guide"]["shared_edges"] > 0.5 and len(record["stacks"]) == 2
    assert found["with"] > found["without"] + 0.5
