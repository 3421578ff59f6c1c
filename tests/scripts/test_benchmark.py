"""The scripts that time and evaluate: they measure what they say, and do not do it twice."""

import json

import pytest

from scripts import benchmark, reproduce
from tests.support.scans import ROOT, head_voxels, write_volume


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_the_benchmark_counts_every_network_call(in_root, tiny_overrides, thick_file):
    overrides = tiny_overrides(thick_file, num_steps=3, num_draws=2, slice_axis=0, slice_batch_size=8)
    overrides.pop("output_dir")
    overrides["skip_air"] = False
    runs = [benchmark.time_run(overrides, before=before) for before in (True, False)]
    for run in runs:
        assert run["network_calls"] == 3 * 2 * 3  # steps, draws, batches of 8 in 20 slices
        assert 0 < run["parts_s"]["network"] < run["whole_run_s"]
        assert run["outside_network"] == pytest.approx(1 - run["parts_s"]["network"] / run["whole_run_s"], abs=0.001)
        assert {"reading", "start", "noise", "data", "writing", "page"} <= run["parts_s"].keys()
        assert sum(run["parts_s"].values()) == pytest.approx(run["whole_run_s"], abs=0.001)
        assert run["peak_memory_mb"] > 0
    profile = benchmark.profile_run(overrides)
    assert profile["copies_between_host_and_device"] == {}
    assert any("conv" in name for name in profile["longest"])
    paired = benchmark.summary(runs)
    ratio = runs[1]["whole_run_s"] / runs[0]["whole_run_s"]
    assert paired["now over 0.4.0"]["median"] == pytest.approx(ratio, abs=1e-3)


@pytest.mark.slow
def test_a_finished_run_is_read_and_not_repeated(in_root, tiny_overrides, tmp_path):
    truth = write_volume(tmp_path / "truth" / f"{reproduce.CASE}.nii.gz", head_voxels((20, 18, 25)))
    overrides = tiny_overrides(truth, region_dir=None)
    overrides.pop("output_dir")
    first = reproduce.run_one(tmp_path / "work", overrides)
    assert "recon" in first["metrics"] and "seconds" in first["run"]
    written = tmp_path / "work" / reproduce.CASE / "run.json"
    written.write_text(json.dumps(first["run"] | {"seconds": -1}))
    assert reproduce.run_one(tmp_path / "work", overrides)["run"]["seconds"] == -1
