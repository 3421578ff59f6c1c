"""A volume of the scene goes through a real reconstruction and comes back in its place."""

import os
import sys
import time

import numpy as np
import pytest

from tests.support.scans import ROOT, THICK, thick_voxels


@pytest.fixture
def parts(slicer):
    from InterSliceReconstructionLib import installation, job, reconstruction

    return installation, job, reconstruction


def wait(run, seconds=120):
    latest = time.monotonic() + seconds
    while not run.ended():
        assert time.monotonic() < latest
        time.sleep(0.05)


@pytest.mark.slow
def test_a_volume_is_reconstructed_in_its_place(parts, slicer, tmp_path, monkeypatch):
    installation, job, reconstruction = parts
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    node = slicer.add("3: T2 tra", thick_voxels(), THICK)
    node.transform, node.display.window, node.display.level = "a transform", 700.0, 350.0
    node.attributes["DICOM.instanceUIDs"] = "1.2.3"
    slicer.database = {("1.2.3", "0018,0050"): "3"}  # 1 mm less than the slices are apart: they cover 23
    found = installation.look(sys.executable, str(ROOT))
    run = reconstruction.Reconstruction(slicer, found, job.Settings(preset="fast", seed=4, device="cpu"), node=node)
    wait(run)
    assert run.failure() == "" and run.progress.share == 1.0
    (volume,), warnings = run.load()
    assert warnings == [] and [n.GetName() for n in slicer.nodes] == [
        "3: T2 tra", "3: T2 tra reconstructed", "3: T2 tra spread"
    ]  # fmt: skip
    assert volume.voxels.shape == (20, 18, 23) and volume.transform == "a transform" and volume.storage is None
    assert volume.display.window == 700.0 and volume.display.level == 350.0
    slabs = np.stack([volume.voxels[..., k : k + 3].mean(-1) for k in range(0, 24, 4)], -1)
    assert np.corrcoef(slabs.ravel(), node.voxels.ravel())[0, 1] > 0.98  # voxel by voxel: nothing is flipped or moved
    (result,) = job.results(str(run.output_dir))
    settings = result.record["settings"]
    assert settings["seed"] == 4 and settings["preset"] == "fast" and settings["noise_field"].startswith("SlerpNoise")
    run.close()
    assert not list((tmp_path / "temporary").iterdir())


@pytest.fixture
def stub(parts, tmp_path):
    """A Python that pretends: `stub(script)`; the script sees the output folder as `out`, and the words as `words`."""

    def make(script):
        python = tmp_path / "python"
        python.write_text(
            f"#!{sys.executable}\nimport os, pathlib, shutil, sys, time\nwords = sys.argv\n"
            "out = pathlib.Path(words[words.index('--output_dir') + 1])\n"
            "source = pathlib.Path(words[words.index('--dataset_dir') + 1])\n" + script
        )
        python.chmod(0o755)
        return parts[0].Found(str(python), (3, 11), (), str(ROOT))

    return make


COPY = """
def case(name, file):
    (out / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(file, out / name / f"{name}_recon.nii.gz")
    (out / name / "run.json").write_text("{}")
"""


def test_what_cannot_begin_leaves_nothing(parts, slicer, stub, tmp_path):
    _, job, reconstruction = parts
    for given, said in (
        ({}, "choose what to reconstruct"),
        ({"path": str(tmp_path / "none")}, "does not exist"),
        ({"node": slicer.add("empty", None, np.eye(4))}, "holds no voxels"),
    ):
        with pytest.raises(RuntimeError, match=said):
            reconstruction.Reconstruction(slicer, stub(""), job.Settings(), **given)
    missing = parts[0].Found(str(tmp_path / "no python"), (3, 11), (), str(ROOT))
    with pytest.raises(OSError):
        reconstruction.Reconstruction(slicer, missing, job.Settings(), path=str(tmp_path))
    assert not list((tmp_path / "temporary").iterdir())


def test_a_run_that_fails_says_why_and_one_that_is_cancelled_does_not(parts, slicer, stub, tmp_path):
    _, job, reconstruction = parts
    failing = stub("print('error: slices are missing', file=sys.stderr)\nsys.exit(1)\n")
    run = reconstruction.Reconstruction(slicer, failing, job.Settings(), path=str(tmp_path))
    wait(run)
    assert run.failure() == "error: slices are missing" and run.load() == ([], [])
    run = reconstruction.Reconstruction(slicer, stub("time.sleep(60)\n"), job.Settings(), path=str(tmp_path))
    run.cancel()
    wait(run)
    assert run.failure() == "" and run.load() == ([], [])


def test_only_what_this_run_made_is_loaded(parts, slicer, stub, tmp_path):
    """Others may be finished in the folder, and some of this run's may have failed."""
    _, job, reconstruction = parts
    path = str(tmp_path / "scan.nii.gz")
    slicer.export(slicer.add("scan", thick_voxels(), THICK), path)
    for case, status in (("old", 0), ("new", 1)):
        python = stub(COPY + f"case({case!r}, source)\nsys.exit({status})\n")
        run = reconstruction.Reconstruction(
            slicer, python, job.Settings(), path=path, output_dir=str(tmp_path / "kept")
        )
        wait(run)
        nodes, _ = run.load()
        assert [n.GetName() for n in nodes] == [f"{case} reconstructed"] and nodes[0].storage is not None
        run.close()
    assert (tmp_path / "kept" / "new" / "new_recon.nii.gz").exists()


def test_a_result_that_lies_elsewhere_is_told(parts, slicer, stub, tmp_path):
    _, job, reconstruction = parts
    moved = slicer.add("moved", thick_voxels(), THICK.copy())
    moved.affine[2, 3] += 12  # three slices
    slicer.export(moved, str(tmp_path / "moved.nii.gz"))
    node = slicer.add("scan", thick_voxels(), THICK)
    python = stub(COPY + f"case('scan', {str(tmp_path / 'moved.nii.gz')!r})\n")
    run = reconstruction.Reconstruction(slicer, python, job.Settings(), node=node)
    wait(run)
    (_,), (warning,) = run.load()
    assert warning.startswith("scan reconstructed lies ") and "voxels of the input away" in warning
    run.close()


@pytest.mark.skipif(os.name == "nt", reason="there a process is ended without being asked")
def test_what_a_cancelled_process_writes_as_it_ends_is_removed_too(parts, slicer, stub, tmp_path):
    _, job, reconstruction = parts
    late = """
import signal
def end(*_):
    time.sleep(0.3)
    out.mkdir(parents=True, exist_ok=True)
    (out / "late").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""
    run = reconstruction.Reconstruction(slicer, stub(late), job.Settings(), path=str(tmp_path))
    latest = time.monotonic() + 20
    while not run.job.lines:
        assert time.monotonic() < latest
        time.sleep(0.02)
    run.cancel()
    run.close()
    assert run.ended() and not list((tmp_path / "temporary").iterdir())
