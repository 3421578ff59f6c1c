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


@pytest.mark.parametrize(("variation", "named"), [(29.0, "Total variation"), (27.0, "Cubic, data-consistent")])
def test_the_model_card_compares_with_the_best_that_needs_no_network(variation, named):
    def metrics(psnr):
        planes = {plane: {"psnr": psnr, "ssim": 0.9} for plane in tables.PLANES}
        inter_slice = {plane: {"error": 0.1, "ratio": 0.9} for plane in tables.PLANES}
        regions = {region: {"psnr": psnr} for region in ("inside", "outside")}
        return {"volume": {"psnr": psnr, "ssim": 0.9}, "regions": regions, "inter_slice": inter_slice} | planes

    figures = {"cubic_consistent": 28.0, "total_variation": variation, "recon": 30.0}
    runs = {str(seed): {"metrics": {name: metrics(psnr) for name, psnr in figures.items()}} for seed in range(2)}
    text = tables.mri_text({"shipped prior": runs})
    assert f"{named}: PSNR {max(28.0, variation):.2f} dB" in text["sentence"]
    assert "| Total variation |" in text["table"] and "| Total variation |" in text["full"]


@pytest.mark.slow
def test_the_pages_hold_what_the_json_says(tmp_path, monkeypatch):
    """Made again from the JSON in docs/, every page comes out as it is."""
    for name in ("README.md", "docs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(json.loads((tmp_path / "docs/results.json").read_text(encoding="utf-8"))["shipped prior"]) >= 3
    tables.write_tables(tmp_path / "docs")
    for page in ("README.md", "docs/README.md", "docs/explanation/results.md"):
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8"), page
