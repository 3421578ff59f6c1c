"""Runs of the console command: the results of MONAI's command line, scans of any name, and dry runs."""

import json
import shutil

import pytest

from interslice.cli.main import WORDS, cli
from interslice.cli.timing import in_words
from interslice.files.failure import failure_of
from interslice.usage import UsageError
from tests.cli.test_main import interslice

TIMES = ("seconds", "writing_seconds", "peak_memory_mb", "source", "files")
"""What differs between two runs; the lengths of files do not, but that of the report with its times."""


@pytest.fixture
def quick(tiny_weights):
    return ["--checkpoint", str(tiny_weights), "--num-steps", "2", "--num-draws", "1", "--device", "cpu",
            "--no-report", "--set", "sampler#progress=false"]  # fmt: skip


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.slow
def test_results_are_those_of_monais_command_line(tmp_path, thick_file, tiny_overrides, run_bundle, quick):
    configs = "['configs/inference.json','configs/solver_dds.json']"
    overrides = tiny_overrides(thick_file) | {"device": "cpu", "operator#gap": 0.5, "window": "[-1,0.5]"}
    theirs = run_bundle("inference", configs, overrides)
    words = ["--solver", "dds", "--operator-gap", "0.5", "--window", "-1,0.5", "-o", str(tmp_path / "ours")]
    ours = interslice("run", str(thick_file), *words, *quick)
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
    ends = [done.stdout.replace("ours", "results").splitlines() for done in (ours, theirs)]
    assert ends[0] == ends[1] and "wrote" in ends[0][-1]
    name = "thick/thick_recon.nii.gz"
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "results" / name).read_bytes()
    records = [json.loads((tmp_path / f / "thick/run.json").read_text()) for f in ("ours", "results")]
    assert files(tmp_path / "ours") == files(tmp_path / "results")
    assert [{k: v for k, v in r.items() if k not in TIMES} for r in records][0] == {
        k: v for k, v in records[1].items() if k not in TIMES
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Runs words in this process, in an empty folder, which keeps its log levels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("monai.bundle.workflows._apply_logging_file", lambda file: None)
    return lambda *words: cli.main([*words], prog_name="interslice", standalone_mode=False)


@pytest.mark.slow
def test_values_are_refused_by_the_checks_of_the_configs(here, tmp_path, quick):
    with pytest.raises(RuntimeError) as refused:
        here("run", str(tmp_path / "none.nii.gz"), *quick, "--num-draws", "0", "-o", "out")
    failure = failure_of(refused.value, WORDS)
    assert failure.said == "error: num_draws must be a whole number from 1, got 0 (--num_draws 0)"
    assert failure.status == 2 and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ids_that_no_config_knows_or_uses_are_refused(here):
    with pytest.raises(UsageError, match="unknown option --operator#profil: did you mean --operator#profile"):
        here("run", "--set", "operator#profil=box")
    with pytest.raises(UsageError, match="--photons describes simulated scans, and this run takes measured ones"):
        here("run", "--task", "ct", "--photons", "1e5")


@pytest.mark.slow
def test_scans_of_any_name_are_reconstructed_and_nothing_in_them_is_run(here, tmp_path, thick_file, quick):
    names = ["$(touch x)", "$__import__('os').mkdir('x')", "@noise", "%x", "1e5", "a#b"]
    for name in names:
        shutil.copy(thick_file, tmp_path / f"{name}.nii.gz")
    thick_file.parent.rename(tmp_path / "$there")
    before = {p.name for p in tmp_path.iterdir()}
    here("run", *(f"{name}.nii.gz" for name in names), "-o", "@out#1", *quick)
    assert {p.name for p in (tmp_path / "@out#1").iterdir()} == {*names}
    here("run", "$there", "-o", "$(touch x)", "--unit", "$(touch y)", *quick)
    assert {p.name for p in (tmp_path / "$(touch x)").iterdir()} == {"thick"}
    assert {p.name for p in tmp_path.iterdir()} - before == {"@out#1", "$(touch x)"}


@pytest.mark.slow
def test_a_dry_run_tells_and_writes_nothing(here, tmp_path, thick_file, quick, capsys):
    (tmp_path / "scans/broken.nii.gz").write_bytes(b"none")
    before = files(tmp_path)
    words = ["run", "scans", "-o", "out", *quick, "--num-draws", "3"]
    with pytest.raises(SystemExit, match=r"^1 volumes would have no result:\n  scans/broken.nii.gz: "):
        here(*words, "--dry-run")
    assert files(tmp_path) == before
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip())
    assert told["configs"] == "inference.json" and told["found"].startswith("1 to reconstruct, 0 finished, 1 refused")
    assert "num_draws 3" in told["settings"] and told["case"] == "thick" and told["into"] == "out/thick"
    assert told["grid"].startswith("20 x 18 x 6 measured, 20 x 18 x 24 voxels of 1 x 1 x 1 mm")
    assert "that are free" in told["memory"] and told["time"].endswith("by 2 of its 6 steps")

    (tmp_path / "scans/broken.nii.gz").unlink()
    here(*words)
    here(*words, "--dry-run")
    assert "by what stands in the output folder" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_of_a_training_tells_and_writes_nothing(here, tmp_path, thick_file, capsys):
    for name in "abc":
        shutil.copy(thick_file, thick_file.with_name(f"{name}.nii.gz"))
    before = files(tmp_path)
    words = ["--max-epochs", "2", "--batch-size", "2", "--patch-size", "16", "--device", "cpu", "--dry-run"]
    here("train", "scans", "-o", "out", *words)
    said = capsys.readouterr().out
    assert files(tmp_path) == before
    assert "3 volumes to train on, 1 to validate on" in said and "2 epochs of 250 steps: about" in said


def test_times_are_said_as_a_person_says_them():
    said = {0.2: "about 1 s", 90: "about 90 s", 120: "about 2 min", 7200: "about 2 h", 1e7: "about 116 days"}
    assert {seconds: in_words(seconds) for seconds in said} == said
    assert in_words(None) == in_words(float("nan")) == "not known"
