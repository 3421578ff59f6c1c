"""The published figures follow from the JSON beside them."""

import json
import math
import shutil

import pytest

from scripts.studies import tables
from tests.support.scans import ROOT


def test_the_interval_is_students():
    mean, half = tables.interval([1.0, 2.0, 3.0])
    assert mean == 2 and math.isclose(half, 4.302652729911275 / math.sqrt(3))


def test_paired_differences_ignore_what_seeds_share():
    def metrics(level, gain):
        errors = {plane: {"error": 1.0 - gain / 10} for plane in tables.PLANES}
        regions = {region: {"psnr": level + gain} for region in ("inside", "outside")}
        return {"volume": {"psnr": level + gain}, "regions": regions, "inter_slice": errors}

    runs = {
        seed: {"metrics": {"input": metrics(level, -3), "independent": metrics(level, 0), "slerp": metrics(level, 1)}}
        for seed, level in enumerate((20.0, 30.0))
    }
    _, _, nearest, independent = tables.paired_table(runs).splitlines()
    assert nearest.split(" | ")[1:4] == ["+4.00"] * 3 and independent.split(" | ")[1:4] == ["+1.00"] * 3
    assert independent.split(" | ")[4].strip(" |") == "0.900"


def test_a_spread_is_shown_where_there_is_one():
    assert tables.cell([1.0, 1.0], 2) == "1.00" and tables.cell([1.0, 2.0, 3.0], 1) == "2.0 ± 2.5"


@pytest.mark.slow
def test_the_pages_hold_what_the_json_says(tmp_path, monkeypatch):
    """Made again from the JSON in docs/, every page comes out as it is."""
    for name in ("README.md", "docs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(json.loads((tmp_path / "docs/results.json").read_text(encoding="utf-8"))["shipped prior"]) >= 3
    tables.write_tables(tmp_path / "docs")
    for page in ("README.md", "docs/README.md", "docs/results.md"):
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8"), page
