"""run.json: the last file of a case, whose peak memory counts what writing the others took."""

import json
from types import SimpleNamespace

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from bundle.files import run_record
from bundle.files.run_record import RunRecord
from tests.support.scans import EVALUATE, INFERENCE, head_voxels, write_volume


def engine_of_cases(*cases):
    """An engine whose every iteration results in one tiny case."""

    def step(engine, case):
        image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": f"{case}.nii.gz"})
        return [{"image": image, "pred": image.clone()}]

    engine = Engine(step)
    return engine, lambda: engine.run(list(cases), max_epochs=1)


def test_the_record_comes_last_whatever_the_order_of_the_handlers(tmp_path, monkeypatch):
    engine, run = engine_of_cases("a", "b")
    peaks, missing = iter((100.0, 5200.0, 5200.0, 6000.0)), []
    peak = {"now": 0.0}
    monkeypatch.setattr(run_record, "peak_memory_mb", lambda: peak["now"])

    def write_page(engine):
        record.of(engine.state.output[0])  # a page shows the record, too
        missing.append(not (tmp_path / "ab"[engine.state.iteration - 1] / "run.json").exists())
        peak["now"] = next(peaks)

    record = RunRecord(str(tmp_path), {}, SimpleNamespace(settings={}), torch.device("cpu"), lambda: 0)
    engine.add_event_handler(Events.ITERATION_COMPLETED, write_page)
    record.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, write_page)
    run()
    found = [json.loads((tmp_path / case / "run.json").read_text(encoding="utf-8")) for case in "ab"]
    assert [f["peak_memory_mb"] for f in found] == [5200, 6000]
    assert missing == [True] * 4


def test_an_engine_that_runs_twice_writes_each_record_once(tmp_path, monkeypatch):
    engine, run = engine_of_cases("a")
    written = []
    monkeypatch.setattr(run_record, "write_json", lambda path, content: written.append(path))
    RunRecord(str(tmp_path), {}, SimpleNamespace(settings={}), torch.device("cpu"), lambda: 0).attach(engine)
    run()
    run()
    assert written == [tmp_path / "a" / "run.json"] * 2


def test_no_file_of_a_case_is_younger_than_its_record(tmp_path, run_here, tiny_overrides):
    """A case that is left half done has no record, so that --skip_finished does it again."""
    truth = write_volume(tmp_path / "head.nii.gz", head_voxels((24, 24, 20)))
    run_here("inference", [INFERENCE, EVALUATE], tiny_overrides(truth, report=True, region_dir=None))
    times = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "results" / "head").iterdir()}
    assert {"metrics.json", "report.png", "report.html", "head_recon.nii.gz"} < times.keys()
    assert max(times, key=times.get) == "run.json"
