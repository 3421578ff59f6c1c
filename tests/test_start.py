"""What the default run imports beside MONAI: its own parts, and no package that only other runs need."""

import json
import sys

import pytest

from tests.support.scans import INFERENCE, ROOT

PARTS = """
import importlib, json, sys
import fire, monai.bundle
theirs = set(sys.modules)
for name in {names}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - theirs)))
"""
"""MONAI imports most of what is installed; what it leaves out of that is ours to leave out, too."""
KNOWN = {"interslice", "isal", "matplotlib", "pydicom", "scipy", "skimage", *sys.stdlib_module_names}
"""Packages of which the parts need a little more than MONAI does."""
OTHERS = (
    "pydicom.sr", "matplotlib.pyplot", "skimage.restoration", "numba", "torch._dynamo", "torch.utils.tensorboard",
    "interslice.physics.ct", "interslice.physics.kspace", "interslice.prior.training", "interslice.report.evaluation",
)  # fmt: skip
"""Wanted by other tasks, other outputs, or by training."""


def modules_of(item):
    """Modules of the parts that a config names, at any depth."""
    if isinstance(item, dict):
        own = {item["_target_"].rpartition(".")[0]} if "_target_" in item else set()
        return own.union(*map(modules_of, item.values()))
    return set().union(*map(modules_of, item)) if isinstance(item, list) else set()


@pytest.mark.slow
def test_the_default_run_imports_no_more_than_it_needs(fresh_python):
    config = json.loads((ROOT / INFERENCE).read_text(encoding="utf-8"))
    names = sorted(name for name in modules_of(config) if name.startswith("interslice"))
    assert "interslice.files.save_results" in names and "interslice.report.page.write" in names
    found = json.loads(fresh_python(PARTS.format(names=names)).splitlines()[-1])
    assert set(names) <= set(found)
    assert not {name for name in found if name.split(".")[0] not in KNOWN}
    assert not {name for name in found if f"{name}.".startswith(tuple(f"{other}." for other in OTHERS))}
