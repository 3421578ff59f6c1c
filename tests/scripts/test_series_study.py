"""The study of series: its figures are what they are called, and it runs with a tiny network."""

import json

import pytest
import torch

from scripts.studies.series import PERCENT, ball, figures, main
from tests.support.scans import head_voxels, write_volume

SHAPE = (20, 18, 16)


def test_figures_of_known_errors():
    generator = torch.Generator().manual_seed(0)
    truth, change = torch.zeros(SHAPE), 0.1 * ball(SHAPE, torch.ones(3))
    on = torch.arange(8) % 2 == 1
    exact = truth + change * on[:, None, None, None]
    assert figures(exact, truth, change) == {"over_time": 0, "difference": 0, "found": 1, "single": 0, "mean": 0}
    offset = figures(exact + 0.2, truth, change)
    assert offset["difference"] == pytest.approx(0, abs=1e-4) and offset["mean"] == pytest.approx(0.2 * PERCENT)
    noisy = figures(exact + 0.2 * torch.randn(exact.shape, generator=generator), truth, change)
    assert noisy["over_time"] == pytest.approx(0.2 * PERCENT, rel=0.03)
    assert noisy["single"] == pytest.approx(0.2 * PERCENT, rel=0.03)
    assert noisy["mean"] == pytest.approx(0.1 * PERCENT, rel=0.05)  # of four
    assert noisy["difference"] == pytest.approx(0.2 * PERCENT * (1 / 4 + 1 / 4) ** 0.5, rel=0.05)
    assert figures(truth + 0.5 * change * on[:, None, None, None], truth, change)["found"] == pytest.approx(0.5)


def test_the_study_runs_and_fills_its_table(tmp_path, tiny_weights, monkeypatch):
    monkeypatch.setattr("scripts.studies.series.HEADS", {"t1": "t1.nii.gz"})
    write_volume(tmp_path / "data" / "t1.nii.gz", head_voxels())
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- series -->\nold\n<!-- /series -->\nafter\n")
    words = ["--data_dir", str(tmp_path / "data"), "--heads", "t1", "--noises", "0", "--volumes", "4", "--half", "10",
             "10", "20", "--work_dir", str(tmp_path / "work"), "--output", str(tmp_path / "s.json"),
             "--page", str(page)]  # fmt: skip
    main(words, checkpoint=str(tiny_weights), device="$torch.device('cpu')", num_steps=1, num_draws=1)
    found = json.loads((tmp_path / "s.json").read_text())["results"]["t1"]["0.0"]
    assert found["same"]["over_time"] < 1e-3 < found["own"]["over_time"]
    assert found["cubic"]["over_time"] < 1e-3
    assert "| t1 | 0 % | one noise for all |" in page.read_text() and "old" not in page.read_text()
