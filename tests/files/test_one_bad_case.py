"""One bad case never ends the run of the others, wherever it fails, and changes no bit of them."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.files import save_results
from interslice.files.cases import Cases
from interslice.files.read import LoadVolumed
from interslice.files.root_cause import root_cause
from interslice.prior import SlicePrior
from interslice.sampling import DiffusionInverseInferer
from tests.support.dicom_files import write_series
from tests.support.kill import forks
from tests.support.scans import INFERENCE, ROOT, thick_voxels, write_volume


def scans(folder, names="abc"):
    for n, name in enumerate(names):
        write_volume(folder / f"{name}.nii.gz", thick_voxels() + n, spacing=(1, 1, 4))
    return folder


def results(folder):
    return {p.parent.name: nib.load(p).get_fdata() for p in sorted(folder.glob("*/*_recon.nii.gz"))}


def of_second(original, what):
    """`original`, which does something else for the case b."""

    def changed(self, data, *args, **kwargs):
        image = data["image"] if isinstance(data, dict) else data
        name = str(image.meta["filename_or_obj"] if hasattr(image, "meta") else image)
        return what(original, self, data, *args, **kwargs) if name.endswith("b.nii.gz") else original(
            self, data, *args, **kwargs
        )  # fmt: skip

    return changed


def vanishes(monkeypatch):
    reads = []

    def second_time(original, self, data, *rest):
        reads.append(data)
        if len(reads) > 1:  # the first is the check of all before the first is reconstructed
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", data["image"])
        return original(self, data, *rest)

    monkeypatch.setattr(LoadVolumed, "__call__", of_second(LoadVolumed.__call__, second_time))
    return "No such file"


def network_fails(monkeypatch):
    def broken(original, self, measurement, network):
        return original(self, measurement, lambda x, t: x * torch.nan)

    whole = DiffusionInverseInferer.reconstruct
    monkeypatch.setattr(DiffusionInverseInferer, "reconstruct", of_second(whole, broken))
    return "network returned NaN or infinity at timestep"


def result_is_nan(monkeypatch):
    def broken(original, self, measurement, network):
        return original(self, measurement, network) * np.nan

    whole = DiffusionInverseInferer.reconstruct
    monkeypatch.setattr(DiffusionInverseInferer, "reconstruct", of_second(whole, broken))
    return "holds NaN or infinity"


def out_of_memory(monkeypatch):
    def broken(original, *_):
        raise MemoryError

    monkeypatch.setattr(DiffusionInverseInferer, "reconstruct", of_second(DiffusionInverseInferer.reconstruct, broken))
    return "MemoryError"


def disk_is_full(monkeypatch):
    original = save_results.write_nifti

    def full(path, *rest):
        if path.name.startswith("b_"):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, *rest)

    monkeypatch.setattr(save_results, "write_nifti", full)
    return "No space left on device"


@pytest.mark.parametrize("fails", [vanishes, network_fails, result_is_nan, out_of_memory, disk_is_full])
def test_what_goes_wrong_with_one_does_not_end_the_others(fails, run_here, tiny_overrides, tmp_path, monkeypatch):
    overrides = tiny_overrides(scans(tmp_path / "in"))
    with monkeypatch.context() as patched:
        reason = fails(patched)
        with pytest.raises(SystemExit) as end:
            run_here("inference", INFERENCE, overrides)
    assert str(end.value).startswith("1 of 3 volumes have no result:\n")
    assert str(tmp_path / "in" / "b.nii.gz") in str(end.value) and reason in str(end.value)
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a", "c"]
    found = results(tmp_path / "results")
    run_here("inference", INFERENCE, overrides | {"skip_finished": True})  # once what was wrong is mended
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a", "b", "c"]
    run_here("inference", INFERENCE, overrides | {"output_dir": str(tmp_path / "again")})
    again = results(tmp_path / "again")
    assert found.keys() == {"a", "c"} and all(np.array_equal(found[case], again[case]) for case in found)


def test_a_file_or_folder_that_may_not_be_read_is_one_case(run_here, tiny_overrides, tmp_path, monkeypatch):
    """Permissions do not bind root, so the system's refusals are made here."""
    folder = scans(tmp_path / "in", "ac")
    (folder / "inside").mkdir()
    write_volume(folder / "b.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    scandir, load = os.scandir, LoadVolumed.__call__

    def refusing(path="."):
        if os.fspath(path).endswith("inside"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    def broken(original, self, data, *rest):
        raise PermissionError(errno.EACCES, "Permission denied", data["image"])

    monkeypatch.setattr(os, "scandir", refusing)
    monkeypatch.setattr(LoadVolumed, "__call__", of_second(load, broken))
    with pytest.raises(SystemExit) as end:
        run_here("inference", INFERENCE, tiny_overrides(folder))
    said = str(end.value).splitlines()
    assert said[0] == "2 of 4 volumes have no result:"
    assert any("inside: Permission denied" in line for line in said)
    assert any("b.nii.gz" in line and "Permission denied" in line for line in said)
    assert results(tmp_path / "results").keys() == {"a", "c"}


def test_a_name_too_long_for_its_results_is_refused_and_the_others_are_done(run_here, tiny_overrides, tmp_path):
    long = "b" * 245
    folder = scans(tmp_path / "in", ["a", long, "c"])
    with pytest.raises(SystemExit, match=f"{long}.nii.gz: its name is too long: .* shorten it by 6"):
        run_here("inference", INFERENCE, tiny_overrides(folder))
    assert results(tmp_path / "results").keys() == {"a", "c"}


@pytest.mark.parametrize("name", ["...nii.gz", "..nii.gz", ".unfinished.nii.gz"])
def test_a_name_that_leads_elsewhere_is_refused_and_loses_nothing(name, run_here, tiny_overrides, tmp_path):
    path = write_volume(tmp_path / "in" / name, thick_voxels(), spacing=(1, 1, 4))
    (tmp_path / "in" / "list.txt").write_text(f"./{name}\n")
    (tmp_path / "precious").write_text("mine")
    for source in (path, tmp_path / "in" / "list.txt"):
        with pytest.raises(Exception) as refused:
            run_here("inference", INFERENCE, tiny_overrides(source))
        assert "no folder of results can be called that" in root_cause(refused.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "precious"]


def test_a_series_and_a_file_of_one_name_do_not_meet(run_here, tiny_overrides, tmp_path):
    """A folder with two series: the case of series 3 of `p` is called p_3, as the file beside may be."""
    (tmp_path / "in" / "p").mkdir(parents=True)
    for number in (3, 4):
        affine, voxels = np.diag([1.0, 1.0, 4.0, 1.0]), np.rint(thick_voxels())
        write_series(tmp_path / str(number), voxels, affine, number=number)
        for file in (tmp_path / str(number)).iterdir():
            file.rename(tmp_path / "in" / "p" / f"{number}_{file.name}")
    for name in ("p_3", "other"):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    reader = LoadVolumed("image", series=3)
    cases = Cases(str(tmp_path / "in"), lambda d: d, reader=reader, output_dir=str(tmp_path / "out"))
    assert [item["case"] for item in cases.usable] == ["other"]
    assert len(cases.refused) == 2 and all("named p_3, too: rename one" in why for why in cases.refused.values())


def test_an_interrupt_says_what_is_written_and_how_to_go_on(run_here, tiny_overrides, tmp_path, monkeypatch):
    def interrupt(original, *_):
        raise KeyboardInterrupt

    whole = DiffusionInverseInferer.reconstruct
    monkeypatch.setattr(DiffusionInverseInferer, "reconstruct", of_second(whole, interrupt))
    with pytest.raises(KeyboardInterrupt) as end:
        run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in")))
    results = tmp_path / "results"
    assert str(end.value) == f"1 of 3 volumes are written to {results} (a); go on with --skip_finished True"


def test_an_interrupt_in_the_midst_of_a_long_case_says_that_it_can_go_on_from_there(
    run_here, tiny_overrides, tmp_path, monkeypatch
):
    steps, step = [], SlicePrior.__call__

    def interrupted(self, *args):
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return step(self, *args)

    overrides = tiny_overrides(scans(tmp_path / "in", "a"), save_minutes=0)
    with (
        monkeypatch.context() as patched,
        pytest.raises(KeyboardInterrupt, match="with --resume True, --skip_finished"),
    ):
        patched.setattr(SlicePrior, "__call__", interrupted)
        run_here("inference", INFERENCE, overrides)
    run_here("inference", INFERENCE, overrides | {"resume": True})
    record = json.loads((tmp_path / "results" / "a" / "run.json").read_text(encoding="utf-8"))
    assert record["resumed_after"] == 1 and sorted(p.name for p in (tmp_path / "results").iterdir()) == ["a"]


def test_a_set_that_is_not_whole_is_done_again(run_here, tiny_overrides, tmp_path, capfd):
    overrides = tiny_overrides(scans(tmp_path / "in", "ab"), report=True)
    run_here("inference", INFERENCE, overrides)
    page = tmp_path / "results" / "b" / "report.html"
    page.unlink()
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("results/*/run.json")}
    run_here("inference", INFERENCE, overrides | {"skip_finished": True})
    assert page.exists() and f"{page.parent} is not whole: b is done again" in capfd.readouterr().err
    assert [p.parent.name for p, t in times.items() if p.stat().st_mtime_ns == t] == ["a"]


@forks
@pytest.mark.slow
def test_a_killed_run_leaves_whole_sets_and_goes_on(tiny_weights, tmp_path):
    """kill -9 of the command, again and again, over results of another seed."""

    def command(seed, *others):
        return [
            sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", INFERENCE,
            "--dataset_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"),
            "--checkpoint", str(tiny_weights), "--num_steps", "1", "--num_draws", "2", "--seed", str(seed), *others,
        ]  # fmt: skip

    scans(tmp_path / "in")
    how = {"cwd": ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True}
    assert subprocess.run(command(0), **how).returncode == 0
    bits = {seed: {} for seed in (0, 5)}
    names = ["{}_recon.nii.gz", "{}_std.nii.gz", "report.html", "run.json"]

    def seed_of(case):
        folder = tmp_path / "out" / case
        assert sorted(p.name for p in folder.iterdir()) == sorted(n.format(case) for n in names)
        seed = json.loads((folder / "run.json").read_text())["settings"]["seed"]
        for name in names[:2]:
            content = (folder / name.format(case)).read_bytes()
            assert bits[seed].setdefault((case, name), content) == content
        return seed

    assert [seed_of(case) for case in "abc"] == [0, 0, 0]
    for already in (0, 2):
        process = subprocess.Popen(command(5), cwd=ROOT, env=how["env"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        watched = tmp_path / "out" / "abc"[already] / "run.json"
        before = watched.stat().st_ino
        while process.poll() is None and watched.stat().st_ino == before:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all(seed_of(case) in (0, 5) for case in "abc") and seed_of("abc"[already]) == 5
    assert subprocess.run(command(5, "--skip_finished", "true"), **how).returncode == 0
    assert all(seed_of(case) in (0, 5) for case in "abc")
