"""The study of the noise of counts: what it measures is what the parts do, and its tables say what it recorded."""

import json
import math

import pytest
import torch

from scripts.studies import ct_noise
from tests.support.scans import ROOT


@pytest.mark.parametrize("at", [2e-4, 3e-3])
def test_the_best_weight_is_found(at):
    weight, error = ct_noise.best(lambda w: 1 + math.log(w / at) ** 2)
    assert abs(math.log(weight / at)) < 0.4 and error < 1.2


@pytest.mark.slow
def test_weights_of_few_photons_gain_by_the_rule_too():
    x = torch.linspace(-1, 1, 32)
    volume = torch.where(x[:, None] ** 2 / 0.9 + x**2 / 0.5 < 1, 30.0, -1000.0)[..., None].repeat(1, 1, 2) * 1.0
    volume[10:14, 12:18] = 600.0
    found = ct_noise.weights(volume, 20, 1e3)
    assert set(found) == {"alike", "rule", *(f"weighted, e {e:g}" for e in ct_noise.ERRORS)}
    assert all(error > 0 and weight > 0 for weight, error in found.values())


def test_what_is_recorded_stands_in_the_page(tmp_path):
    record, text = (
        json.loads((ROOT / "docs/ct_noise.json").read_text()),
        (ROOT / "docs/reference/ct_noise.md").read_text(),
    )
    page = tmp_path / "page.md"
    page.write_text(text)
    ct_noise.write_tables(record, page)
    assert page.read_text() == text
    assert text.count("| 1e3 |") >= 4 and "| abdomen |" in text and "| extrapolate FBP |" in text


def test_what_is_claimed_of_bias_is_recorded():
    record = json.loads((ROOT / "docs/ct_noise.json").read_text())
    for found in (*record["rays"].values(), *record["disc"].values()):
        mean, error = found["ours"]
        assert abs(mean) < 4 * error + 1e-6 * (1 + abs(mean)), found


@pytest.mark.parametrize(("photons", "thickness"), [(1e3, 6.0), (1e5, 4.0)])
def test_what_is_recorded_of_bias_is_what_comes_out_today(photons, thickness):
    """Where few photons come and where many do: the means and errors of the same draws."""
    record = json.loads((ROOT / "docs/ct_noise.json").read_text())["rays"][f"{photons:g} {thickness:g}"]
    found = ct_noise.errors_of(photons, thickness)
    for name, (mean, error) in record.items():
        assert found[name] == pytest.approx([mean, error], rel=1e-3, abs=0.02 * error), name
