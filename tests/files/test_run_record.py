"""run.json: the last file of a case, whose peak memory counts what writing the others took."""

import json
from types import SimpleNamespace

import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from interslice.files import run_record
from interslice.files.case_folder import WriteCases, Writer
from interslice.files.run_record import RunRecord
from tests.support.scans import EVALUATE, INFERENCE, head_voxels, write_volume


def test_the_record_comes_last_and_counts_what_writing_the_others_took(tmp_path, monkeypatch):
    peak, pages = {"now": 0.0}, iter((5200.0, 6000.0))
    monkeypatch.setattr(run_record, "peak_memory_mb", lambda device: peak["now"])
    record = RunRecord({}, SimpleNamespace(settings={}), torch.device("cpu"), lambda: 0)

    class Page(Writer):
        def write(self, result, folder):
            assert record.of(result)["seconds"] >= 0  # a page shows the record, too
            assert not list(folder.iterdir())
            peak["now"] = next(pages)
            (folder / "page").touch()

    def step(engine, case):
        image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": f"{case}.nii.gz"})
        return [{"image": image, "pred": image.clone()}]

    engine = Engine(step)
    WriteCases(str(tmp_path), [Page()], record).attach(engine)
    engine.run(["a", "b"], max_epochs=1)
    found = [json.loads((tmp_path / case / "run.json").read_text(encoding="utf-8")) for case in "ab"]
    assert [f["peak_memory_mb"] for f in found] == [5200, 6000]
    assert [f["files"] for f in found] == [{"page": 1}] * 2


def test_no_file_of_a_case_is_younger_than_its_record(tmp_path, run_here, tiny_overrides):
    """A case that is left half done has no record, so that --skip_finished does it again."""
    truth = write_volume(tmp_path / "head.nii.gz", head_voxels((24, 24, 20)))
    run_here("inference", [INFERENCE, EVALUATE], tiny_overrides(truth, report=True, region_dir=None))
    times = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "results" / "head").iterdir()}
    assert {"metrics.json", "report.png", "report.html", "head_recon.nii.gz"} < times.keys()
    assert max(times, key=times.get) == "run.json"
