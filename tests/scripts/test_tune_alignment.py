"""The study of alignment runs, and its summary is that of its runs."""

import json

import pytest

from scripts.studies import tune_alignment
from tests.physics.stacks.moved import AFFINE, SHAPE, blobs
from tests.support.scans import write_volume


@pytest.mark.slow
def test_the_study_measures_both_registrations_and_tells_heads_apart(tmp_path):
    files = [write_volume(tmp_path / f"{seed}.nii.gz", blobs(seed), affine=AFFINE.numpy()) for seed in (0, 1)]
    output = tmp_path / "tuning.json"
    size = [str(n) for n in SHAPE]
    tune_alignment.main(["--volumes", *map(str, files), "--seeds", "1", "--size", *size, "--output", str(output)])
    content = json.loads(output.read_text())
    summary, errors = content["summary"], content["results"]["errors"]
    assert summary["operator"]["mm"] == pytest.approx(
        sum(e["1"]["operator"]["mm"] for e in errors.values()) / 2, abs=1e-3
    )
    assert summary["operator"]["mm_worst"] < 0.3
    assert summary["largest_similarity_of_two"] < 0.75 < summary["least_similarity_of_one_person"]
