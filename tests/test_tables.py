"""The published figures follow from the JSON beside them."""

import json
import math
import shutil

from scripts import tables
from tests.conftest import ROOT


def test_the_interval_is_students():
    mean, half = tables.interval([1.0, 2.0, 3.0])
    assert mean == 2 and math.isclose(half, 4.302652729911275 / math.sqrt(3))


def test_paired_differences_ignore_what_seeds_share():
    runs = {}
    for seed, level in enumerate((20.0, 30.0)):
        metrics = {}
        for method, gain in {"input": -3, "cubic": -2, "cubic_consistent": -1, "smoothest": -2, "independent": 0, "slerp": 1}.items():
            metrics[method] = {
                "volume": {"psnr": level + gain}, "regions": {"inside": {"psnr": level + gain}, "outside": {"psnr": level + gain}},
                "inter_slice": {p: {"error": 1.0 - gain / 10} for p in tables.PLANES},
            }  # fmt: skip
        runs[seed] = {"metrics": metrics}
    text = tables.paired(runs)
    assert "+2.00 ± 0.00 dB in the volume" in text and "against independent noise: +1.00 ± 0.00 dB" in text
    assert "0.900 of it (sagittal)" in text


def test_the_pages_hold_what_the_json_says(tmp_path, monkeypatch):
    """Made again from the JSON in docs/, every page comes out as it is."""
    for name in ("README.md", "docs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(json.loads((tmp_path / "docs/results.json").read_text())["shipped prior"]) >= 3
    tables.write_tables(tmp_path / "docs/results.json")
    for page in ("README.md", "docs/README.md", "docs/results.md"):
        assert (tmp_path / page).read_text() == (ROOT / page).read_text(), page
