"""docs/how_to/calling.md, as it stands: its commands and its Python, on a tiny scan, from another directory."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.cli.main import cli
from tests.support.scans import INFERENCE, ROOT, thick_voxels, write_volume

PAGE = (ROOT / "docs/how_to/calling.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()
            if line.startswith(("python", "interslice"))]  # fmt: skip
DOCTOR, *CONSOLE = [command for command in COMMANDS if command.startswith("interslice")]
BUNDLE = [command for command in COMMANDS if command.startswith("python")]
WORKFLOW, PARTS, KEPT = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def scan(tmp_path):
    """`scan.nii.gz`, a folder `scans` and a list of what is in it, with 4 mm slices."""
    for name in ("scan", "scans/a", "scans/b"):
        write_volume(tmp_path / f"{name}.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    (tmp_path / "scans.txt").write_bytes(b"scans/a.nii.gz\0scans/b.nii.gz\0")  # as find -print0 writes
    return tmp_path


def check_result(volume, affine):
    assert volume.shape == (20, 18, 24)
    means = np.asarray(volume).reshape(20, 18, 6, 4).mean(3)
    np.testing.assert_allclose(means, thick_voxels(), atol=1e-3 * thick_voxels().max())
    np.testing.assert_allclose(np.asarray(affine)[:3, 3], [0, 0, -1.5], atol=1e-5)


def python_elsewhere(code, folder):
    """Run Python in a process of its own, in `folder`, with the bundle's folder on the path of modules alone."""
    code = f"bundle_root = {str(ROOT)!r}\nimport sys; sys.path.insert(0, bundle_root)\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_page_shows_every_way():
    assert DOCTOR == "interslice doctor"  # which tests/cli/test_doctor.py runs
    assert [c.split()[1] for c in CONSOLE] == ["run"] * 2 and [c.split()[2] for c in BUNDLE] == ["monai.bundle"] * 3
    linked = set(re.findall(r"(\w+)\.md\)", PAGE))  # where they lead, tests/test_readme.py checks
    assert linked >= {"label", "deploy", "export", "options", "solvers", "noise", "drop_in"}


@pytest.mark.slow
@pytest.mark.parametrize("command", CONSOLE, ids=["one", "many"])
def test_a_console_command_of_the_page_runs(command, scan, tiny_overrides, monkeypatch):
    monkeypatch.chdir(scan)
    monkeypatch.setattr("monai.bundle.workflows._apply_logging_file", lambda file: None)
    tiny = {k: v for k, v in tiny_overrides("").items() if k not in ("dataset_dir", "output_dir")} | {"device": "cpu"}
    given = {k: json.dumps(v) if isinstance(v, bool) else v for k, v in tiny.items()}
    words = [*shlex.split(command)[1:], *(word for k, v in given.items() for word in ("--set", f"{k}={v}"))]
    cli.main(words, prog_name="interslice", standalone_mode=False)
    for case in ["scan"] if "scan.nii.gz" in command else ["a", "b"]:
        recon = nib.load(scan / "results" / case / f"{case}_recon.nii.gz")
        check_result(recon.get_fdata(), recon.affine)


@pytest.mark.slow
@pytest.mark.parametrize("command", BUNDLE, ids=["one", "many", "list"])
def test_a_command_of_the_page_runs(command, scan, tiny_overrides, run_bundle):
    words = shlex.split(command)
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "inference"]
    given = {key.lstrip("-"): value for key, value in zip(words[5::2], words[6::2])}
    assert given["config_file"] == INFERENCE
    overrides = tiny_overrides(scan / given["dataset_dir"]) | {
        k: v for k, v in given.items() if k not in ("dataset_dir", "output_dir", "config_file")
    }
    done = run_bundle("inference", INFERENCE, overrides)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = ["scan"] if given["dataset_dir"] == "scan.nii.gz" else ["a", "b"]
    for case in cases:
        recon = nib.load(scan / "results" / case / f"{case}_recon.nii.gz")
        check_result(recon.get_fdata(), recon.affine)


def test_finished_scans_are_left_out_of_a_second_run(scan, tiny_overrides, run_here, capfd):
    overrides = tiny_overrides(scan / "scans", skip_finished=True)
    run_here("inference", INFERENCE, overrides)
    records = {case: scan / "results" / case / "run.json" for case in "ab"}
    run_here("inference", INFERENCE, overrides | {"skip_finished": "false"})  # text of a command line
    assert "finished in" not in capfd.readouterr().err
    records["b"].unlink()
    first = records["a"].stat().st_mtime_ns
    run_here("inference", INFERENCE, overrides)
    assert "1 of 2 volumes are finished" in capfd.readouterr().err
    assert records["a"].stat().st_mtime_ns == first and json.loads(records["b"].read_text(encoding="utf-8"))
    run_here("inference", INFERENCE, overrides)  # nothing is left to do, and the caller goes on
    assert "2 of 2 volumes are finished" in capfd.readouterr().err


@pytest.mark.slow
def test_the_workflow_runs_from_elsewhere(scan):
    python_elsewhere(WORKFLOW, scan)
    recon = nib.load(scan / "results/scan/scan_recon.nii.gz")
    check_result(recon.get_fdata(), recon.affine)


@pytest.mark.slow
def test_the_parts_by_hand_are_few_and_run(scan):
    lines = [line for line in PARTS.splitlines() if line.strip()]
    assert len(lines) < 20
    show = "import torch; torch.save((volume.as_tensor()[0], volume.affine), 'volume.pt')"
    python_elsewhere(f"{PARTS}\n{show}", scan)

    volume, affine = torch.load(Path(scan) / "volume.pt", weights_only=True)
    check_result(volume.numpy(), affine.numpy())


@pytest.mark.slow
def test_a_long_reconstruction_by_hand_is_saved_and_forgotten(scan):
    every_step = KEPT.replace("resume=True", "resume=True, save_minutes=0")
    assert every_step != KEPT
    show = "first = volume\n{0}\nassert volume.equal(first), 'another result'\nassert not keeper.kept"
    out = python_elsewhere(f"{PARTS}\n{show.format(every_step)}\nprint(inferer.prior.calls)", scan)
    killed = every_step.replace("keeper.forget()", "import os; os._exit(0)")
    python_elsewhere(f"{PARTS}\n{killed}", scan)
    assert list((scan / "results").glob(".unfinished/*.pt"))
    again = python_elsewhere(f"{PARTS}\n{show.format(every_step)}\nprint(inferer.prior.calls)", scan)
    assert 2 * int(again) == int(out) and not list((scan / "results").glob(".unfinished/*"))
