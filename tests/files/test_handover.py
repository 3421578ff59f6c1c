"""A case is written beside the next one: the same files, each case's own, counted when they are on the disk."""

import errno
import json
import threading
import time
import weakref

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, ScaleIntensityd

from interslice.files import case_folder, restore, save_results
from interslice.files.case_folder import WriteCases, on_host
from interslice.files.findings import Findings
from interslice.files.handover import Handover
from interslice.files.restore import Restored
from interslice.files.unfinished import Unfinished
from interslice.physics.thick import ScalePercentilesd
from interslice.report.page import write as page
from interslice.sampling import DiffusionInverseInferer
from tests.files.test_one_bad_case import of_second, results, scans
from tests.support.scans import EVALUATE, INFERENCE, head_voxels, write_volume

BESIDE = {"write_cases#beside": True}


class Gate:
    """Work that is under way until it is let through."""

    def __init__(self, fails=False):
        self.begun, self.open, self.fails = threading.Event(), threading.Event(), fails

    def __call__(self):
        self.begun.set()
        assert self.open.wait(30)
        if self.fails:
            raise OSError(f"in {threading.current_thread().name}")


# -- one at a time --------------------------------------------------------------------------------
def test_the_caller_goes_on_and_the_next_waits_for_the_one_before():
    handover, first, second = Handover(beside=True), Gate(), Gate()
    handover.give("first", first)
    assert first.begun.wait(30) and handover.ended() == []
    threading.Timer(0.05, first.open.set).start()
    handover.give("second", second)
    assert first.open.is_set() and handover.ended() == [("first", None)]
    assert second.begun.wait(30) and handover.ended() == []
    second.open.set()
    handover.wait()
    handover.wait()
    assert handover.ended() == [("second", None)] and handover.ended() == []


def test_what_goes_wrong_is_told_by_name_and_ends_nothing_else():
    handover, bad, good = Handover(beside=True), Gate(fails=True), Gate()
    for gate in (bad, good):
        gate.open.set()
    handover.give("bad", bad)
    handover.give("good", good)
    handover.wait()
    (name, error), last = handover.ended()
    assert name == "bad" and str(error).startswith("in handover") and last == ("good", None)


def test_at_once_it_is_the_caller_s():
    handover, gate = Handover(beside=False), Gate(fails=True)
    gate.open.set()
    with pytest.raises(OSError, match="in MainThread"):
        handover.give("bad", gate)
    handover.give("good", lambda: None)
    assert handover.ended() == [("good", None)]


def test_nothing_of_a_case_is_alive_once_it_is_written():
    class Volume:
        def write(self):
            pass

    handover, volume = Handover(beside=True), Volume()
    alive = weakref.ref(volume)
    handover.give("case", volume.write)
    handover.wait()
    del volume
    assert alive() is None


# -- what a case takes with it --------------------------------------------------------------------
def test_maps_leave_the_device_with_the_volumes():
    found = Findings(maps={"std": torch.ones(1, 2, 2, 2, device="meta")})  # the one other device that is everywhere
    pred = MetaTensor(torch.ones(1, 2, 2, 2), meta={"findings": found})
    with pytest.raises(NotImplementedError, match="meta tensor"):  # it was asked for its values
        on_host({"image": pred, "pred": pred})
    found = Findings(maps={"std": torch.ones(1, 2, 2, 2)})
    moved = on_host({"pred": MetaTensor(torch.ones(1, 2, 2, 2), meta={"findings": found}), "case": "a"})
    assert moved["case"] == "a" and moved["pred"].meta["findings"].maps["std"].device.type == "cpu"


def test_states_that_were_taken_are_no_more_of_the_case_under_way(tmp_path):
    keeper = Unfinished(tmp_path / "out", save_minutes=0)
    keeper.begun.append(keeper.folder / "a.pt")
    keeper.folder.mkdir(parents=True)
    keeper.begun[0].touch()
    states = keeper.taken()
    assert not keeper.kept and states[0].exists()
    keeper.forget()
    assert states[0].exists()
    keeper.forget(states)
    assert not keeper.folder.exists()


def test_results_are_restored_while_the_next_case_is_read():
    """MONAI lets missing keys pass by a flag in the steps: two that switch it at once leave it as neither found it."""
    steps = Compose([Orientationd(["image", "label"], "RAS", labels=None), ScalePercentilesd(["image", "label"])])
    values = torch.rand(1, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    scan = MetaTensor(values, affine=torch.diag(torch.tensor([-2.0, 1, 1, 1])).double())
    scaled = steps({"image": scan, "label": scan})["image"]
    restored = Restored("pred", steps)({"pred": scaled})["pred"]
    torch.testing.assert_close(restored.as_tensor(), scan.as_tensor())
    torch.testing.assert_close(restored.affine, scan.affine)
    assert scaled.applied_operations and not restored.applied_operations
    assert not any(step.allow_missing_keys for step in steps.transforms)
    kept = restore.undoable(steps)
    assert all(step.allow_missing_keys for step in kept.transforms)
    assert not restore.undoable(Compose([ScaleIntensityd("image")])).transforms  # which cannot be undone


# -- whole runs -----------------------------------------------------------------------------------
def contents(folder):
    """Voxels of every volume, and what the records say but for times."""
    volumes = {p.relative_to(folder): nib.load(p).get_fdata() for p in sorted(folder.rglob("*.nii.gz"))}
    records = {p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*/run.json")}
    for record in records.values():
        for name in ("seconds", "writing_seconds", "peak_memory_mb"):
            assert record.pop(name) >= 0
    metrics = {p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*/metrics.json")}
    return volumes, records, metrics


@pytest.mark.slow
def test_the_files_are_those_of_a_run_that_writes_in_between(run_here, tiny_overrides, tmp_path, monkeypatch):
    for n, name in enumerate("ab"):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", head_voxels((24, 24, 16 + 4 * n)) * (n + 1))
    overrides = tiny_overrides(tmp_path / "in", report=True, region_dir=None, num_draws=2, evidence=True)
    found = {}
    for way, beside in (("between", False), ("beside", True)):
        out = tmp_path / way
        threads = set()
        original = page.WriteReport.write

        def slow(self, result, folder):
            threads.add(threading.current_thread())  # noqa: B023
            time.sleep(0.2)  # so that the next case has begun, and changes whatever is not taken along
            original(self, result, folder)  # noqa: B023

        with monkeypatch.context() as patched:
            patched.setattr(page.WriteReport, "write", slow)
            others = {"output_dir": str(out), "write_cases#beside": beside, "observer#planes": {"axial": 0.5}}
            configs = [INFERENCE, EVALUATE, "configs/trajectory.json"]
            run_here("inference", configs, overrides | others | {"observer#neighbours": 1})
        assert (threading.main_thread() in threads) is not beside and len(threads) == 1
        assert sorted(p.name for p in out.iterdir()) == ["a", "b"]
        assert {p.name for p in out.glob("a/*")} > {"report.html", "report.png", "metrics.json", "trajectory"}
        found[way] = contents(out)
    between, beside = found["between"], found["beside"]
    assert between[0].keys() == beside[0].keys() and len(between[0]) == 2 * (4 + 2)
    for path, volume in between[0].items():
        np.testing.assert_array_equal(volume, beside[0][path], err_msg=str(path))
    assert between[1:] == beside[1:]


@pytest.mark.cuda
def test_on_a_gpu_the_results_lie_in_the_host_s_memory_when_they_are_written(
    run_here, tiny_overrides, tmp_path, monkeypatch
):
    original, seen = save_results.write_nifti, []

    def watched(path, volume, *rest):
        seen.append((threading.current_thread() is threading.main_thread(), volume.device.type))
        original(path, volume, *rest)

    monkeypatch.setattr(save_results, "write_nifti", watched)
    overrides = tiny_overrides(scans(tmp_path / "in"), device="$torch.device('cuda')", num_draws=2, report=True)
    run_here("inference", INFERENCE, overrides)
    assert seen == [(False, "cpu")] * 6 and len(results(tmp_path / "results")) == 3


def test_the_time_of_a_case_is_that_of_its_reconstruction(run_here, tiny_overrides, tmp_path, monkeypatch):
    original = save_results.write_nifti
    monkeypatch.setattr(save_results, "write_nifti", lambda *a: (time.sleep(1), original(*a)))
    run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in", "ab")) | BESIDE)
    for case in "ab":
        record = json.loads((tmp_path / "results" / case / "run.json").read_text(encoding="utf-8"))
        assert record["seconds"] < 1 <= record["writing_seconds"]


@pytest.mark.parametrize("bad", ["a", "b", "c"])
def test_a_case_that_cannot_be_written_fails_by_name_and_no_other(
    bad, run_here, tiny_overrides, tmp_path, monkeypatch, capfd
):
    original = save_results.write_nifti

    def full(path, *rest):
        if path.name.startswith(f"{bad}_"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, *rest)

    monkeypatch.setattr(save_results, "write_nifti", full)
    with pytest.raises(SystemExit) as end:
        run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in"), save_minutes=0) | BESIDE)
    said = str(end.value).splitlines()
    assert said[0] == "1 of 3 volumes have no result:" and len(said) == 2
    assert f"{bad}.nii.gz" in said[1] and "No space left" in said[1]
    err = capfd.readouterr().err
    assert f"failed {tmp_path / 'in' / bad}.nii.gz" in err and "2 reconstructed" in err and "1 failed" in err
    assert results(tmp_path / "results").keys() == {*"abc"} - {bad}
    states = list((tmp_path / "results" / ".unfinished").iterdir())
    assert len(states) == 1  # of the one that failed, so that it need not be sampled again


def test_the_state_of_a_case_stays_until_it_is_on_the_disk(run_here, tiny_overrides, tmp_path, monkeypatch):
    """A kill in between must find one or the other."""
    original, seen = case_folder.folder_written_whole, []

    class Watched:
        def __init__(self, folder, keep):
            self.folder, self.inner = folder, original(folder, keep=keep)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            time.sleep(0.2)
            states = len(list((tmp_path / "results" / ".unfinished").glob("*.pt")))
            seen.append((self.folder.name, states >= 1, self.folder.exists()))
            return self.inner.__exit__(*error)

    monkeypatch.setattr(case_folder, "folder_written_whole", lambda folder, keep: Watched(folder, keep))
    run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in"), save_minutes=0) | BESIDE)
    assert seen == [(case, True, False) for case in "abc"]
    assert not (tmp_path / "results" / ".unfinished").exists()


def test_an_interrupt_waits_for_the_case_that_is_written_and_names_it(run_here, tiny_overrides, tmp_path, monkeypatch):
    sampling, original = threading.Event(), save_results.write_nifti

    def late(path, *rest):
        assert sampling.wait(30)  # the next case is under way
        time.sleep(0.3)
        original(path, *rest)

    def interrupt(*_):
        sampling.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(save_results, "write_nifti", late)
    whole = DiffusionInverseInferer.reconstruct
    monkeypatch.setattr(DiffusionInverseInferer, "reconstruct", of_second(whole, interrupt))
    with pytest.raises(KeyboardInterrupt) as end:
        run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in")) | BESIDE)
    out = tmp_path / "results"
    assert str(end.value) == f"1 of 3 volumes are written to {out} (a); go on with --skip_finished True"
    assert sorted(p.name for p in out.iterdir()) == ["a"] and results(out).keys() == {"a"}


def test_a_pipe_that_nobody_reads_ends_the_run(run_here, tiny_overrides, tmp_path, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(case_folder.tqdm, "write", closed)
    with pytest.raises(Exception) as end:
        run_here("inference", INFERENCE, tiny_overrides(scans(tmp_path / "in")) | BESIDE)
    assert isinstance(end.value.__cause__ or end.value, BrokenPipeError)


def test_the_device_decides(tmp_path):
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    for device, beside in (("cpu", False), ("cuda", True), ("cuda:1", True)):
        parser["device"] = f"$torch.device('{device}')"
        others = {"writers": [save_results.SaveResults()], "record": None, "unfinished": None}
        parser["write_cases"] = parser.get("write_cases") | others | {"output_dir": str(tmp_path)}
        parser.ref_resolver.reset()
        handler = parser.get_parsed_content("write_cases")
        assert isinstance(handler, WriteCases) and handler.handover.beside is beside
