"""A sample of malformed inputs: each is refused plainly or taken, and nothing beside it is lost; the table is true."""

import json
import shutil
import subprocess
import sys

import pytest

from scripts.fuzz import main, parser
from scripts.fuzzing.judge import ACCEPTED, EARLY, FAILURES, PLAIN, VERDICTS
from scripts.fuzzing.kinds import ALL
from scripts.fuzzing.report import MARKER, summary, table_of, write_table
from scripts.fuzzing.runs import Record, Runs
from tests.support.scans import ROOT

SAMPLE = ("--count", "24", "--seed", "0", "--jobs", "2", "--kinds", *ALL)


def record(kind, number, verdict, seconds=0.5, peak_mb=400):
    return Record(kind, number, "a byte short", "python -m monai.bundle run", verdict, "why", seconds, peak_mb)


@pytest.mark.slow
def test_a_sample_is_refused_plainly_or_accepted(tmp_path):
    """In a process of its own, which forks: pytest may have threads."""
    output = tmp_path / "fuzz.json"
    command = [sys.executable, "-m", "scripts.fuzz", *SAMPLE, "--keep", tmp_path / "kept", "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=900)
    assert output.exists(), done.stderr[-3000:]
    found = json.loads(output.read_text(encoding="utf-8"))
    assert done.returncode == 0 and found["failures"] == [], found["failures"]
    assert found["inputs"] == 24 and not any(counts.get(v, 0) for counts in found["kinds"].values() for v in FAILURES)
    for verdict in (PLAIN, ACCEPTED):
        assert sum(counts[verdict] for counts in found["kinds"].values()) >= 4
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.slow
def test_a_failure_is_told_kept_and_made_again(tmp_path):
    """A limit of time that no run meets makes every input a failure."""
    command = [sys.executable, "-m", "scripts.fuzz", "--kinds", "nifti", "--only", "7", "--jobs", "1"]
    limits = ["--seconds", "0.000001", "--keep", tmp_path / "kept"]
    assert parser().parse_args(command[3:]).only == [7]
    with pytest.raises(RuntimeError, match="an input that is well was not taken"):
        Runs(tmp_path / "runs", ROOT, seconds=1e-6).run("nifti", 7)
    done = subprocess.run([*command, *limits], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 1 and "an input that is well was not taken" in done.stderr


def test_the_table_counts_kinds_and_verdicts():
    records = [record("nifti", n, v) for n, v in enumerate((PLAIN, PLAIN, ACCEPTED, "lost"))]
    records += [record("dicom", 4, "slow", 61.0, 5000)]
    made = summary(records, 3, "0.7.0")
    assert made["record"]["kinds"]["nifti"] == {
        PLAIN: 2, ACCEPTED: 1, EARLY: 0, "unclear": 0, "lost": 1, "crash": 0, "slow": 0,
    }  # fmt: skip
    assert (made["record"]["longest_s"], made["record"]["largest_mb"]) == (61.0, 5000)
    assert [f["number"] for f in made["record"]["failures"]] == [3, 4]
    lines = made["table"].splitlines()
    assert lines[0] == "| kind | inputs | plain refusal | accepted | by MONAI | unclear | lost | crash | slow |"
    assert lines[-3:] == [
        "| nifti | 4 | 2 | 1 | 0 | 0 | 1 | 0 | 0 |", "| dicom | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |",
        "| all | 5 | 2 | 1 | 0 | 0 | 1 | 0 | 1 |",
    ]  # fmt: skip
    assert "late" in table_of(summary([record("rtk", 0, "late")], 0, "0")["record"])
    assert set(VERDICTS) >= {PLAIN, ACCEPTED, *FAILURES}


def test_failures_that_were_run_again_are_counted_as_they_ended_then():
    records = [record("nifti", 0, PLAIN), record("nifti", 1, "lost", 9.0), record("rtk", 2, "slow", 61.0)]
    first = summary(records, 3, "1")
    then = summary([record("nifti", 1, PLAIN), record("rtk", 2, "unclear")], 3, "2", first["record"])["record"]
    assert then["kinds"]["nifti"][PLAIN] == 2 and then["kinds"]["nifti"]["lost"] == then["kinds"]["rtk"]["slow"] == 0
    assert (then["inputs"], then["run_again"], then["kinds"]["rtk"]["unclear"]) == (3, 2, 1)
    assert [f["number"] for f in then["failures"]] == [2] and then["longest_s"] == 61
    assert summary([record("rtk", 2, PLAIN)], 3, "3", then)["record"]["run_again"] == 3


def test_the_table_goes_between_the_markers(tmp_path):
    page = tmp_path / "reliability.md"
    shutil.copy(ROOT / "docs/explanation/reliability.md", page)
    found = summary([record("nifti", 0, PLAIN)], 3, "0.7.0")["record"]
    assert write_table(page, found) and write_table(page, found)
    text = page.read_text(encoding="utf-8")
    between = text.split(f"<!-- {MARKER} -->\n")[1].split(f"<!-- /{MARKER} -->")[0]
    assert between.count("| nifti | 1 | 1 |") == 1 and "Version 0.7.0, seed 3: 1 inputs" in between


def test_the_page_holds_what_the_json_says(tmp_path):
    """Nothing where there is no JSON."""
    text, page = (ROOT / "docs/explanation/reliability.md").read_text(encoding="utf-8"), tmp_path / "reliability.md"
    page.write_text(text, encoding="utf-8")
    if (ROOT / "docs/fuzz.json").exists():
        write_table(page, json.loads((ROOT / "docs/fuzz.json").read_text(encoding="utf-8")))
        assert page.read_text(encoding="utf-8") == text
    else:
        assert f"<!-- {MARKER} -->\n<!-- /{MARKER} -->" in text


def test_what_cannot_be_asked_for_is_refused(capsys):
    for words in (["--kinds", "jpeg"], ["--count", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "invalid choice: 'jpeg'" in capsys.readouterr().err
