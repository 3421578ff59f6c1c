"""Fixtures: tiny scans and weights, two ways to run a config (here and by command line), and a browser."""

import os
import subprocess
import sys

import pytest
import torch
from monai.bundle import run

from tests.support.scans import (
    OBLIQUE,
    ROOT,
    STRAIGHT,
    head_voxels,
    random_network,
    thick_voxels,
    write_volume,
)

torch.set_num_threads(1)  # the volumes of tests are tiny: sharing them out takes longer than the work


def pytest_addoption(parser):
    parser.addoption("--tools", action="store_true", help="run the tests that install MONAI Label, MONAI Deploy, ...")


def pytest_collection_modifyitems(config, items):
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
    if not config.getoption("--tools"):
        why = "installs a tool that cannot share this environment, which takes minutes: pytest --tools"
        for item in items:
            if "tools" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def head():
    return head_voxels()


@pytest.fixture(params=[STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def head_affine(request):
    return request.param


@pytest.fixture
def thick_file(tmp_path):
    return write_volume(tmp_path / "scans" / "thick.nii.gz", thick_voxels(), spacing=(1, 1, 4))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(random_network().state_dict(), path)
    return path


@pytest.fixture
def tiny_overrides(tiny_weights, tmp_path):
    """Returns overrides that run configs/inference.json within seconds: `overrides(dataset_dir, num_steps=3)`."""

    def overrides(dataset_dir, **others):
        return {
            "dataset_dir": str(dataset_dir),
            "output_dir": str(tmp_path / "results"),
            "checkpoint": str(tiny_weights),
            "device": "$torch.device('cpu')",
            "num_steps": 2,
            "num_draws": 1,
            "sampler#progress": False,
            "report": False,  # a page of some megabytes
        } | others

    return overrides


@pytest.fixture
def run_here(monkeypatch):
    """Runs an id of a config in this process, from the repository root: `run_here("inference", configs, overrides)`."""
    monkeypatch.chdir(ROOT)

    def run_config(run_id, config_file, overrides):
        run(run_id, config_file=config_file, logging_file=False, **overrides)

    return run_config


@pytest.fixture
def fresh_python():
    """Runs code in a process of its own, in the repository root: `fresh_python(code)`; returns what it printed."""

    def run_code(code):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run_code


@pytest.fixture
def run_bundle():
    """Runs `python -m monai.bundle run ID --config_file ... --key value` from the repository root, as a user does."""

    def run_command(run_id, config_file, overrides):
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(config_file)]
        for key, value in overrides.items():
            command += [f"--{key}", str(value)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300)

    return run_command


@pytest.fixture(scope="session")
def chromium():
    """Chromium without a window; skips where there is none."""
    from tests.support.browser import browser  # selenium is needed by these tests alone

    with browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """A report page with all that it can show: its path, and what is in it."""
    from tests.support.report_pages import full_page

    path = tmp_path_factory.mktemp("page") / "report.html"
    return path, full_page(path)


@pytest.fixture
def full_view(chromium, full):
    """The full page, opened in a wide window."""
    chromium.resize(1280, 900)
    return chromium.open(full[0])
