"""The errors of docs/explanation/prior.md: of the noise that a prior predicts, the same for the same weights."""

import json

import pytest
import torch

from scripts.studies import contrast_errors
from scripts.studies.contrast_errors import errors, errors_table
from tests.support.scans import ROOT, head_voxels, write_volume


def test_errors_are_of_the_noise_and_the_page_holds_them(tmp_path, tiny_weights, monkeypatch):
    monkeypatch.setattr(contrast_errors, "PATCHES", 4)
    volume, page, output = (
        write_volume(tmp_path / "t1_a.nii.gz", head_voxels((72, 70, 68))),
        tmp_path / "p.md",
        tmp_path,
    )
    page.write_text("<!-- contrasts -->\nold\n<!-- /contrasts -->\n", encoding="utf-8")
    weights = str(tiny_weights)
    output /= "errors.json"
    contrast_errors.main([weights, weights, "--volumes", str(volume), "--output", str(output), "--page", str(page)])
    before, after = json.loads(output.read_text(encoding="utf-8"))["t1_a"]
    assert before == after and all(0 < e < 10 for e in before.values())
    assert "old" not in page.read_text(encoding="utf-8")
    assert f"| `t1_a` | {before['20']:.3f} /" in page.read_text(encoding="utf-8")


def test_a_network_that_predicts_nothing_errs_by_the_noise_itself(tiny_weights, monkeypatch):
    class Nothing(torch.nn.Module):
        def forward(self, x, timesteps):
            return torch.zeros_like(x)

    monkeypatch.setattr(contrast_errors, "load_weights", lambda network, weights: Nothing())
    found = errors(tiny_weights, torch.zeros(8, 1, 64, 64))
    assert list(found.values()) == pytest.approx([1.0] * 3, abs=0.03)


def test_the_page_holds_what_the_json_says():
    record = json.loads((ROOT / "docs/contrast_errors.json").read_text(encoding="utf-8"))
    assert errors_table(record) in (ROOT / "docs/explanation/prior.md").read_text(encoding="utf-8")
