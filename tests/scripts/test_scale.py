"""What is said of scale: the arithmetic of efficiency and of an archive, and that the page holds what was measured."""

import json
import re

import pytest

from scripts.studies import scale
from tests.support.scans import ROOT

RECORD = json.loads((ROOT / "docs/scale_ranks.json").read_text(encoding="utf-8"))


def pair(alone, together):
    return {
        name: dict.fromkeys(("seconds", "cpu_seconds"), s) for name, s in (("alone", alone), ("together", together))
    }


def test_efficiency_is_speed_over_ranks_times_that_of_one():
    assert scale.efficiency(pair(8.0, 4.0), 2, "seconds") == 1
    assert scale.efficiency(pair(8.0, 8.0), 2, "seconds") == 0.5
    assert scale.efficiency(pair(8.0, 8.0), 2, "cpu_seconds") == 1  # both took half of the work
    assert scale.efficiency(pair(8.0, 8.0), 2, "seconds", weak=True) == 1  # twice the work in the same time
    assert scale.efficiency(pair(8.0, 16.0), 2, "cpu_seconds", weak=True) == 1


def test_a_million_scans_take_a_million_times_one():
    record = {"files": {"voxels": [96, 112, 96], "bytes": {"CASE_recon.nii.gz": 10**6, "report.html": 10**6}}}
    row = scale.archive_table(record, [("best", "a card", 3.6)]).splitlines()[-1]
    assert "28.8" not in row and "| 29 s | 8,000 h | 11 |" in row  # eight times the voxels; 8,000 h are 11.1 x 30 days
    assert "| 8 MB | 8 TB |" in scale.storage_text(record) and "| 16 MB | 16 TB |" in scale.storage_text(record)


@pytest.mark.parametrize("name", ["ranks", "archive", "storage"])
def test_the_page_is_made_of_the_records(name, tmp_path):
    """Nothing on it is typed."""
    for path in (ROOT / "docs").glob("benchmark_*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    page = tmp_path / "scale.md"
    there = (ROOT / "docs/how_to/scale.md").read_text(encoding="utf-8")
    page.write_text(there, encoding="utf-8")
    scale.write_page(RECORD, tmp_path)
    section = re.compile(rf"<!-- {name} -->\n(.+?)<!-- /{name} -->", re.DOTALL)
    assert section.search(page.read_text(encoding="utf-8"))[1] == section.search(there)[1]
