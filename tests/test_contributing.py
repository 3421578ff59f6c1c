"""The examples of CONTRIBUTING.md keep the promises that it explains, docs/reference/noise.md says what is there."""

import json
import re
import shutil
import sys
import types

import nibabel as nib
import numpy as np
import pytest
import torch

import interslice.physics
from interslice.noise.named import FIELDS
from tests.support.helpers import contributions
from tests.support.scans import INFERENCE, ROOT
from tests.test_configs import NOISE_FIELDS

CONTRIBUTING, NOISE = (
    (ROOT / page).read_text(encoding="utf-8") for page in ("CONTRIBUTING.md", "docs/reference/noise.md")
)
SECTION = CONTRIBUTING[CONTRIBUTING.index("## Add a noise field") : CONTRIBUTING.index("## Add an operator")]


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def block_noise(monkeypatch):
    """The example, as the module that the page calls it."""
    module = types.ModuleType("interslice.noise.block")
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
    assert part.pop("_target_") == "interslice.noise.block.BlockNoise"
    assert block_noise.BlockNoise(**part).size == 4.0


PHYSICS = CONTRIBUTING[CONTRIBUTING.index("## Add an operator") : CONTRIBUTING.index("## Add a solver")]


@pytest.fixture
def skipped(monkeypatch):
    """The physics of the example, as the module that the page calls it."""
    folder = types.ModuleType("interslice.physics.skipped")
    module = types.ModuleType("interslice.physics.skipped.scanner")
    folder.__path__, folder.scanner = [], module
    monkeypatch.setattr(interslice.physics, "skipped", folder, raising=False)
    for part in (folder, module):
        monkeypatch.setitem(sys.modules, part.__name__, part)
    exec(blocks(PHYSICS, "python")[0], vars(module))
    return module


@pytest.mark.parametrize("which", [1, 2], ids=["operator", "task"])
def test_the_tests_of_the_physics_pass(which, skipped, tmp_path, monkeypatch):
    names = {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs") if which == 1 else shutil.copytree(ROOT / "configs", "configs")
    if which == 2:
        (tmp_path / "configs/task_skipped.json").write_text(blocks(PHYSICS, "json")[0])
    exec(blocks(PHYSICS, "python")[which], names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    for test in tests:
        test()
    assert len(tests) == 3 - which


def test_the_physics_reconstructs(skipped, run_here, tiny_overrides, thick_file, tmp_path):
    """One folder and one overlay are all: the scan's slices come back in their places."""
    overlay = tmp_path / "task_skipped.json"
    overlay.write_text(blocks(PHYSICS, "json")[0])
    run_here("inference", [INFERENCE, str(overlay)], tiny_overrides(thick_file, **{"operator#step": 4}))
    recon = nib.load(tmp_path / "results" / "thick" / "thick_recon.nii.gz").get_fdata()
    assert recon.shape == (20, 18, 21)
    np.testing.assert_allclose(recon[..., ::4], nib.load(thick_file).get_fdata(), atol=0.5)


def test_the_page_of_noise_fields_names_every_field():
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", NOISE, flags=re.MULTILINE))
    assert rows == NOISE_FIELDS and rows.keys() == FIELDS.keys()


def test_the_python_of_the_page_runs():
    (code,) = blocks(NOISE, "python")
    names = {}
    exec(code, names)
    assert names["noise"].shape == (4, 64, 64) and names["k"].shape == (4, 4)
