"""What is started, how far it is, how it ends, and what it leaves."""

import ast
import json
import os
import sys
import time

import psutil
import pytest

BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
sys.stderr.write("sampling:  10%|x         | 2/20 [00:00<01:03,  3.5s/step]")
sys.stderr.flush()
time.sleep(60)
"""


@pytest.fixture
def job(slicer):
    from InterSliceReconstructionLib import job

    return job


def until(true, seconds=20):
    latest = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < latest
        time.sleep(0.02)


def test_the_command_line_is_one_that_the_bundle_takes(job):
    words = job.command("python", "/bundle", "scan.nii.gz", "out", job.Settings(seed=3, device="cpu"))
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "inference"]
    options = dict(zip(words[5::2], words[6::2]))
    assert options == {
        "--config_file": os.path.join("/bundle", "configs", "inference.json"), "--bundle_root": "/bundle",
        "--dataset_dir": "scan.nii.gz", "--output_dir": "out", "--report": "no", "--preset": "best",
        "--noise": "slerp", "--seed": "3", "--device": "cpu",
    }  # fmt: skip


def test_every_task_preset_and_noise_is_one_of_the_bundle(job):
    from interslice.cli.jobs import TASKS
    from interslice.cli.options import options_of
    from interslice.noise.named import FIELDS
    from tests.support.scans import ROOT

    shown = json.loads((ROOT / "configs/inference.json").read_text(encoding="utf-8"))["displayable_configs"]
    assert list(job.PRESETS) == shown["preset"] and sorted(job.NOISES) == sorted(FIELDS)
    options = options_of("run", "thick")
    assert options["preset"].kind == ("choice", *job.PRESETS)
    assert options["noise"].kind[0] == "choice" and sorted(options["noise"].kind[1:]) == sorted(job.NOISES)
    assert {name: configs for name, (_, configs) in job.TASKS.items()} == {
        name: (config,) if config else () for name, config in TASKS.items()
    }
    for task in job.TASKS:
        words = job.command("python", str(ROOT), "x", "y", job.Settings(task=task))
        files = words[words.index("--config_file") + 1]
        files = [files] if task == "thick" else ast.literal_eval(files)
        assert all(os.path.isfile(file) for file in files) and len(files) == 1 + len(job.TASKS[task][1])
    tasks = {p.stem for p in (ROOT / "configs").glob("task_*.json")}
    assert {config for _, configs in job.TASKS.values() for config in configs} == tasks


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"task": "x"}, "task must be one of"), ({"preset": "x"}, "preset must be"), ({"noise": "rice"}, "noise must be"),
     ({"seed": -1}, "seed must be a whole number from 0, got -1")],
)  # fmt: skip
def test_settings_that_there_are_not(settings, said, job):
    with pytest.raises(ValueError, match=said):
        job.Settings(**settings)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sampling:   0%|          | 0/20 [00:00<?, ?step/s]", "sampling: 0%"),
        ("sampling:  10%|█         | 2/20 [00:00<01:03, 10.82step/s]", "sampling: 10%, 1:03 left"),
        ("sampling:  50%|#####     | 1/2 [1:00:00<1:00:00, 3600s/step]", "sampling: 50%, 60:00 left"),
        ("reading headers: 100%|##| 4/4 [00:01<00:00,  3.2folder/s]", "reading headers: 100%, 0:00 left"),
        ("wrote out/thick: run.json", None),
        ("12 of 20 [files]", None),
        ("", None),
    ],
)
def test_bars_are_read(line, said, job):
    progress = job.progress_of(line)
    assert (progress is None and said is None) or str(progress) == said


def test_bars_of_this_version_of_tqdm_are_read(job):
    import io

    from tqdm import tqdm

    for ascii_only in (False, True):
        screen = io.StringIO()
        for _ in tqdm(range(4), desc="sampling", unit="step", file=screen, mininterval=0, ascii=ascii_only):
            pass
        seen = [job.progress_of(line) for line in screen.getvalue().split("\r") if line.strip()]
        assert [p.share for p in seen][:5] == [0, 0.25, 0.5, 0.75, 1.0] and {p.what for p in seen} == {"sampling"}


def test_a_job_tells_how_far_it_is_and_ends_with_all_that_it_started(job):
    run = job.Job([sys.executable, "-c", BUSY], dict(os.environ))
    until(lambda: run.lines and run.progress)  # a bar that has not moved on has no end yet, and is read all the same
    assert run.poll() is None
    child = int(run.lines[0].split()[1])
    run.cancel()
    until(lambda: run.poll() is not None)
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert run.progress.left == 63 and run.progress.share == 0.1 and run.cancelled
    run.cancel()  # once more does no harm


def test_why_it_failed_is_what_its_last_lines_say(job):
    said = "print('parsing config_file x'); print('error: ratio 20 is outside\\nset it'); raise SystemExit(2)"
    run = job.Job([sys.executable, "-c", said], dict(os.environ))
    until(lambda: run.poll() is not None)
    assert run.poll() == 2 and run.words() == "error: ratio 20 is outside\nset it"


def test_the_package_is_found_first_and_nothing_else_changes(job):
    made = job.environment("/bundle", {"PYTHONPATH": "/other", "LANG": "C"})
    assert made["PYTHONPATH"].split(os.pathsep) == ["/bundle", "/other"] and made["LANG"] == "C"
    assert job.environment("/bundle", {})["PYTHONPATH"] == "/bundle"


def test_only_whole_cases_are_results(job, tmp_path):
    for case, files in (
        ("whole", ("run.json", "whole_recon.nii.gz", "whole_std.nii.gz", "whole_mask.nii.gz")),
        ("half", ("half_recon.nii.gz",)),
    ):
        (tmp_path / case).mkdir()
        for name in files:
            (tmp_path / case / name).write_text('{"seed": 1}')
    (found,) = job.results(str(tmp_path))
    assert found.case == "whole" and found.volume.name == "whole_recon.nii.gz" and found.record == {"seed": 1}
    assert {kind: file.name for kind, file in found.maps.items()} == {"std": "whole_std.nii.gz"}
    assert job.results(str(tmp_path / "nowhere")) == []
