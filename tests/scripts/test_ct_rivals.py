"""The study beside another CT program: what it tunes on, and its table."""

import sys

import pytest

from interslice.usage import UsageError
from scripts.studies import ct_rivals
from scripts.studies.record import Record


def test_the_rival_is_tuned_before_it_is_shown_and_on_another_person():
    keys = list(ct_rivals.plan([1e5], 2))
    tuned = [n for n, key in enumerate(keys) if key[0] == "thorax"]
    shown = [n for n, key in enumerate(keys) if key[0] == "chest"]
    assert max(tuned) < min(shown) and {keys[n][2] for n in tuned} == {ct_rivals.RIVAL}
    assert {key[2] for key in keys} == {*ct_rivals.BASELINES, ct_rivals.RIVAL, ct_rivals.OURS}


def test_the_sharpest_is_that_of_the_best_psnr(tmp_path):
    record = Record(tmp_path / "record.json", {})
    for sharpness, psnr in ((-1.0, 28.0), (0.5, 30.5), (1.0, 30.1)):
        record.add(("thorax", "10000", ct_rivals.RIVAL, str(sharpness)), {"psnr": psnr})
    assert ct_rivals.sharpest(record, "10000") == 0.5


def test_the_table_has_a_row_for_what_was_run(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- ct rivals -->\n<!-- /ct rivals -->\n", encoding="utf-8")
    run = {"psnr": 31.234, "ssim": 0.9, "error_axial": 0.0123}
    ct_rivals.write_table({"results": {"chest": {"1e+05": {ct_rivals.OURS: {"0": run, "1": run}}}}}, page)
    assert "| 100000 | this project, default | 31.23 | 0.900 | 0.0123 |" in page.read_text(encoding="utf-8")


def test_without_the_other_program_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mbirtorch", None)
    with pytest.raises(UsageError, match="pip install mbirtorch==0.2.0"):
        ct_rivals.Rival(None, 0.0192)
