"""Whole runs that end before their time, and are called again with --resume True."""

import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from interslice.files import save_results
from interslice.files.state_file import read_state
from interslice.files.unfinished import FOLDER
from interslice.sampling.inferers import DiffusionInverseInferer
from tests.support.scans import EVALUATE, INFERENCE, ROOT, head_voxels, thick_voxels, whole_message, write_volume


def results(folder):
    """Voxels of every volume, by file name; no state is left beside them."""
    assert not (folder / FOLDER).exists()
    return {p.name: nib.load(p).get_fdata() for p in sorted(folder.glob("*/*.nii.gz"))}


def alike(one, other):
    return one.keys() == other.keys() and len(one) and all(np.array_equal(one[name], other[name]) for name in one)


def record(folder):
    (path,) = folder.glob("*/run.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_killed_process_is_taken_up_by_another_one(tiny_overrides, thick_file, run_bundle, tmp_path):
    """With the solver whose state is the largest."""
    configs = [INFERENCE, "configs/solver_red_diff.json"]
    settings = tiny_overrides(thick_file, num_steps=60, num_draws=3)
    command = [sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(configs)]
    for key, value in (settings | {"save_minutes": 1e-6}).items():
        command += [f"--{key}", str(value)]
    unfinished, environment = tmp_path / "results" / FOLDER, os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        latest = time.monotonic() + 200
        while not list(unfinished.glob("[!.]*.pt")) and process.poll() is None and time.monotonic() < latest:
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    (path,) = unfinished.glob("[!.]*.pt")
    state, _ = read_state(path, "cpu")
    assert 0 < state["done"] < 180
    assert not list((tmp_path / "results").glob("[!.]*"))

    done = run_bundle("inference", configs, settings | {"resume": "True"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"going on after {state['done']} of 180 steps" in done.stderr
    assert "rounding" not in done.stderr
    assert record(tmp_path / "results")["resumed_after"] == state["done"]
    whole = run_bundle("inference", configs, settings | {"output_dir": str(tmp_path / "whole")})
    assert whole.returncode == 0
    assert alike(results(tmp_path / "results"), results(tmp_path / "whole"))


def test_a_short_run_saves_nothing(run_here, tiny_overrides, thick_file, tmp_path, monkeypatch):
    """Nor does it spend time on finding out what a file would be called."""
    monkeypatch.setattr("interslice.files.unfinished.digest", lambda *_: pytest.fail("asked for"))
    monkeypatch.setattr("interslice.files.unfinished.write_state", lambda *_: pytest.fail("written"))
    run_here("inference", INFERENCE, tiny_overrides(thick_file, num_draws=2))
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["thick"]
    assert record(tmp_path / "results")["resumed_after"] == 0


def test_what_is_sampled_outlives_a_failure_to_write_it(run_here, tiny_overrides, thick_file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    settings = tiny_overrides(thick_file, num_draws=2, save_minutes=0)
    run_here("inference", INFERENCE, settings | {"output_dir": str(tmp_path / "whole")})
    with monkeypatch.context() as broken:
        broken.setattr(save_results, "write_nifti", full)
        with pytest.raises((RuntimeError, SystemExit)):
            run_here("inference", INFERENCE, settings)
    assert len(list((tmp_path / "results" / FOLDER).glob("*.pt"))) == 1
    run_here("inference", INFERENCE, settings | {"resume": True})
    assert record(tmp_path / "results")["resumed_after"] == 4
    assert record(tmp_path / "results")["network_calls"] == 0
    assert alike(results(tmp_path / "results"), results(tmp_path / "whole"))


class Stopped(BaseException):
    pass


@pytest.mark.slow
def test_of_several_cases_the_one_that_was_under_way_is_taken_up(run_here, tiny_overrides, tmp_path, monkeypatch):
    for i in range(3):
        write_volume(tmp_path / "scans" / f"{i}.nii.gz", thick_voxels(seed=i), spacing=(1, 1, 4))
    settings = tiny_overrides(tmp_path / "scans", num_draws=2, save_minutes=0)
    run_here("inference", INFERENCE, settings | {"output_dir": str(tmp_path / "whole")})
    advance, steps = DiffusionInverseInferer._advance, []

    def stops(self, *rest):
        advance(self, *rest)
        steps.append(1)
        if len(steps) == 4 + 3:
            raise Stopped

    with monkeypatch.context() as broken:
        broken.setattr(DiffusionInverseInferer, "_advance", stops)
        with pytest.raises((Stopped, SystemExit)):
            run_here("inference", INFERENCE, settings)
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == [FOLDER, "0"]
    run_here("inference", INFERENCE, settings | {"resume": "yes", "skip_finished": "yes"})
    assert alike(results(tmp_path / "results"), results(tmp_path / "whole"))
    after = {p.parent.name: json.loads(p.read_text())["resumed_after"] for p in tmp_path.glob("results/*/run.json")}
    assert after == {"0": 0, "1": 3, "2": 0}


@pytest.mark.slow
def test_an_evaluation_goes_on_with_the_field_that_was_under_way(run_here, tiny_overrides, tmp_path, monkeypatch):
    truth = write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels((20, 18, 26)))
    settings = tiny_overrides(truth, compare=True, region_dir=None, save_minutes=0)
    run_here("inference", [INFERENCE, EVALUATE], settings | {"output_dir": str(tmp_path / "whole")})
    advance, steps = DiffusionInverseInferer._advance, []

    def counted(self, *rest):
        advance(self, *rest)
        steps.append(1)
        if len(steps) == 3:  # two steps of the run's own field, slerp, and one of independent noise
            raise Stopped

    monkeypatch.setattr(DiffusionInverseInferer, "_advance", counted)
    with pytest.raises((Stopped, SystemExit)):
        run_here("inference", [INFERENCE, EVALUATE], settings)
    assert len(list((tmp_path / "results" / FOLDER).glob("*.pt"))) == 2
    run_here("inference", [INFERENCE, EVALUATE], settings | {"resume": True})
    assert len(steps) == 3 + 1 + 2  # and two of identical noise
    metrics = [json.loads((tmp_path / f / "head/metrics.json").read_text()) for f in ("results", "whole")]
    assert metrics[0] == metrics[1]
    assert alike(results(tmp_path / "results"), results(tmp_path / "whole"))


def test_who_takes_the_inferer_alone_saves_nothing(tiny_overrides, thick_file, monkeypatch):
    """As servers do, which write no results, so that nothing would ever be forgotten."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    parser.update(tiny_overrides(thick_file, save_minutes=0))
    parser.get_parsed_content("inferer")
    assert parser.get_parsed_content("sampler").keeper is None
    parser.get_parsed_content("handlers")
    assert parser.get_parsed_content("sampler").keeper is parser.get_parsed_content("unfinished")


def test_a_trajectory_shows_every_step_or_is_refused(run_here, tiny_overrides, thick_file, tmp_path):
    with pytest.raises(Exception, match="") as refused:
        run_here("inference", [INFERENCE, "configs/trajectory.json"], tiny_overrides(thick_file, resume=True))
    assert "an observer (configs/trajectory.json) has to see every step" in whole_message(refused.value)
    assert not (tmp_path / "results").exists()
