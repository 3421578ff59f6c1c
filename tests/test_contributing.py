"""The noise field of CONTRIBUTING.md keeps the promises that it explains, and docs/noise.md says what is there."""

import json
import re
import sys
import types

import pytest
import torch

from tests.support.helpers import contributions
from tests.support.scans import ROOT
from tests.test_configs import NOISE_FIELDS

CONTRIBUTING, NOISE = ((ROOT / page).read_text(encoding="utf-8") for page in ("CONTRIBUTING.md", "docs/noise.md"))
SECTION = CONTRIBUTING[CONTRIBUTING.index("## Add a noise field") : CONTRIBUTING.index("## Add an operator")]


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def block_noise(monkeypatch):
    """The example, as the module that the page calls it."""
    module = types.ModuleType("bundle.block_noise")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(blocks(SECTION, "python")[0], vars(module))
    return module


def test_the_example_of_a_noise_field_keeps_its_promises(block_noise):
    field = block_noise.BlockNoise((8.0, 2.0))
    positions = [0.0, 1.0, 2.5, 3.5, 9.0]
    for level in (1.0, 0.5, 0.0):
        weights = contributions(field, positions, level)
        assert torch.equal(weights @ weights.T, field.covariance(positions, level))
        whole = field.draw(positions, (2, 3), seed=1, step=2, level=level)
        assert torch.equal(field.draw(positions, (2, 3), seed=1, step=2, level=level, slices=range(1, 4)), whole[1:4])
    assert field.covariance(positions, 1.0).sum() == 17 and field.covariance(positions, 0.0).sum() == 9


def test_the_test_of_the_example_passes(block_noise):
    code = blocks(SECTION, "python")[1]
    exec(code + "\n" + re.search(r"def (\w+)", code)[1] + "()", vars(block_noise))


def test_the_overlay_of_the_example_names_it(block_noise):
    (overlay,) = blocks(SECTION, "json")
    part = json.loads(overlay)["noise_field"]
    assert part.pop("_target_") == "bundle.block_noise.BlockNoise"
    assert block_noise.BlockNoise(**part).size == 4.0


def test_the_page_of_noise_fields_names_every_overlay():
    rows = dict(re.findall(r"^\| `noise_(\w+)` \| `(\w+)` \|", NOISE, flags=re.MULTILINE))
    assert rows == NOISE_FIELDS
    assert rows.keys() == {path.stem.removeprefix("noise_") for path in (ROOT / "configs").glob("noise_*.json")}


def test_the_python_of_the_page_runs():
    (code,) = blocks(NOISE, "python")
    names = {}
    exec(code, names)
    assert names["noise"].shape == (4, 64, 64) and names["k"].shape == (4, 4)
