"""The tuning of the MRI presets: what it judges are the means that a run gives, and nothing is run twice."""

import json

import numpy as np
import pytest
import torch

from interslice.sampling import NoiseAware
from scripts.studies import tune_mri, tune_noise, tuning_tables
from tests.support.scans import head_voxels, write_volume

QUICK = tune_mri.BASE | {"num_steps": 2}
PERSON = "t1_uih_b"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A head that is larger than the crop, deeper in the folder."""
    monkeypatch.setattr(tune_mri, "SHAPE", (16, 24, 20))
    monkeypatch.setattr(tune_mri, "SETTINGS", [QUICK, QUICK | {"noise": "independent"}])
    monkeypatch.setattr(tune_mri, "OF_RATIOS", [QUICK])
    monkeypatch.setattr(tune_mri, "RATIOS", (4,))
    monkeypatch.setattr(tune_mri, "BASE", QUICK)
    monkeypatch.setattr(tune_mri, "PASSES", 4)
    monkeypatch.setattr(tune_noise, "BASE", QUICK)
    write_volume(tmp_path / "archive/train" / f"{PERSON}.nii.gz", head_voxels((40, 36, 44)))
    return tmp_path / "archive"


def arguments(archive, weights, output):
    return ["--archive_dir", str(archive), "--checkpoint", str(weights), "--people", PERSON, "--output", str(output)]


def test_the_means_of_draws_are_those_of_a_run(archive, tiny_weights):
    prior = tune_mri.Prior(tiny_weights)
    y, truth, operator = tune_mri.measured(tune_mri.crop(archive / f"train/{PERSON}.nii.gz"))
    assert tuple(truth.shape) == (16, 24, 20) and y.shape[2] == 4
    torch.testing.assert_close(operator.forward(truth), y)
    found = dict(prior.means(y, operator, QUICK, seed=5, draws=(1, 3)))
    sampler = prior.sampler(QUICK, seed=5)
    run = sampler.begin(y, operator, prior.network)
    draws = [sampler.sample(run, k) for k in range(3)]
    assert found.keys() == {1, 3} and torch.equal(found[1], draws[0])
    torch.testing.assert_close(found[3], torch.stack(draws).mean(0))


def test_a_run_that_is_in_the_file_is_not_run_again_and_the_tables_hold_its_gains(archive, tiny_weights, tmp_path):
    output = tmp_path / "tuning.json"
    tune_mri.main(arguments(archive, tiny_weights, output))
    record = json.loads(output.read_text(encoding="utf-8"))
    assert [sorted(run["draws"]) for run in record["runs"]] == [["1", "2"]] * 3 and record["base"] == QUICK
    assert [run["ratio"] for run in record["runs"]] == [5, 5, 4] and set(record["baselines"][PERSON]) == {"5", "4"}
    best = record["baselines"][PERSON]["5"]["cubic_consistent"]["psnr"]
    record["runs"][0]["draws"]["2"]["psnr"] = best + 1.5
    output.write_text(json.dumps(record), encoding="utf-8")
    tune_mri.main(arguments(archive, tiny_weights, output))
    assert json.loads(output.read_text(encoding="utf-8"))["runs"] == record["runs"]
    rows = [line.split(" | ") for line in tuning_tables.tuning_table(record, QUICK).splitlines()[4:]]
    assert rows[0][:2] == ["| 5", "total variation"]
    assert rows[2][:8] == ["| 5", "2 from t = 200", "slerp", "2", "4", "–", "+1.50", "+1.50"]
    assert rows[3][2] == "independent" and rows[5][0] == "| 4"
    presets = {"x": {"num_steps": 2, "start_fraction": 0.2, "num_draws": 2}}
    shown = tuning_tables.preset_table(record, QUICK, "slerp", presets, tmp_path)
    assert "| `x` | 2 | 0.2 | 2 | 4 | – | 1 | +1.50 |" in shown


def test_a_volume_that_is_nowhere_in_the_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no t1_uih_b.nii.gz: give the folder .*--archive_dir"):
        tune_mri.found(tmp_path, PERSON)


def test_the_noise_that_was_added_is_written_beside_that_which_was_found(archive, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_mri, "SHAPE", (36, 34, 20))  # the estimate asks for 24 pixels
    monkeypatch.setattr(tune_noise, "LEVELS", (0.05,))
    monkeypatch.setattr(tune_noise, "ERRORS", (0.3,))
    output = tmp_path / "noise.json"
    tune_noise.main(arguments(archive, tiny_weights, output))
    record = json.loads(output.read_text(encoding="utf-8"))
    exact, aware = record["runs"]
    assert (exact["error"], aware["error"]) == (0.0, 0.3) and exact["draws"] != aware["draws"]
    volume = tune_mri.crop(archive / f"train/{PERSON}.nii.gz")
    y, truth, operator = tune_mri.measured(volume, 0.05)
    assert exact["added"] == pytest.approx(0.05 * float(volume.max()) / np.ptp(volume.numpy()), rel=0.3)
    assert exact["found"] == pytest.approx(operator.noise_deviation(y) / 2, abs=1e-4)
    assert NoiseAware("auto").fit(y, operator).noise_level == pytest.approx(exact["found"], abs=1e-4)
    assert f"`{PERSON}` | 5 |" in tuning_tables.noise_table(record)
