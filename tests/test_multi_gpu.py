"""Runs of several ranks: what they share comes out as one rank makes it, and nobody waits for a rank that is lost."""

import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from ignite.engine import Events
from monai.bundle import ConfigParser

from interslice import ranks
from interslice.files import shared_cases
from interslice.files.failure import failure_of
from interslice.files.options import check_options
from interslice.usage import UsageError
from tests.support.kill import forks
from tests.support.ranks import on_ranks
from tests.support.scans import INFERENCE, ROOT, head_voxels, write_volume

pytestmark = forks
SHARED = [INFERENCE, "configs/multi_gpu_inference.json"]


@pytest.fixture
def scans(tmp_path):
    """Four scans of different sizes, and a file that is none."""
    for n in range(4):
        thick = head_voxels((20, 18, 24), seed=n).reshape(20, 18, 6, 4).mean(3)[:, :, : 6 - n % 2]
        write_volume(tmp_path / "scans" / f"s{n}.nii.gz", thick, spacing=(1, 1, 4))
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"nothing")
    return tmp_path / "scans"


def volumes(folder):
    return {p.parent.name: nib.load(p).get_fdata() for p in sorted(folder.glob("*/*_recon.nii.gz"))}


def ended(run, *args):
    """The status that a run ends with, and what it says then."""
    try:
        run(*args)
    except SystemExit as end:
        return end.code
    return 0


def test_cases_are_shared_and_reported_once(scans, tiny_overrides, run_here, tmp_path, capfd):
    alone = tiny_overrides(scans) | {"output_dir": str(tmp_path / "alone")}
    assert "1 of 5 volumes have no result" in ended(run_here, "inference", INFERENCE, alone)
    capfd.readouterr()
    codes = on_ranks(2, lambda: ended(run_here, "inference", SHARED, tiny_overrides(scans)), tmp_path)
    assert "broken.nii.gz" in codes[0] and codes[1] == 0
    out, err = capfd.readouterr()
    assert err.count("4 reconstructed, 0 finished before, 1 skipped, 0 failed, 0 left out") == 1
    assert err.count("skipped") == 2 and out.count("wrote") == 4 and "rank 1: wrote" in out
    one, two = volumes(tmp_path / "alone"), volumes(tmp_path / "results")
    assert one.keys() == two.keys() == {f"s{n}" for n in range(4)}
    assert all((one[case] == two[case]).all() for case in one)


@pytest.mark.parametrize("number", [2, 4])
def test_slices_are_shared_and_the_volume_is_the_same(number, thick_file, tiny_overrides, run_here, tmp_path, capfd):
    run_here("inference", INFERENCE, tiny_overrides(thick_file, num_draws=2) | {"output_dir": str(tmp_path / "alone")})
    settings = tiny_overrides(thick_file, num_draws=2, share="slices")
    assert on_ranks(number, lambda: ended(run_here, "inference", SHARED, settings), tmp_path) == [0] * number
    one, many = volumes(tmp_path / "alone")["thick"], volumes(tmp_path / "results")["thick"]
    np.testing.assert_allclose(many, one, atol=1e-4 * one.max())
    records = [json.loads((tmp_path / f / "thick/run.json").read_text("utf-8")) for f in ("alone", "results")]
    assert records[1]["settings"]["ranks"] == number
    assert records[1]["network_calls"] < records[0]["network_calls"]
    assert capfd.readouterr().out.count("wrote") == 2


@pytest.mark.parametrize("share", ["cases", "slices"])
def test_a_series_is_the_same_volume_by_volume(share, tiny_overrides, run_here, tmp_path):
    thick = head_voxels((20, 18, 24)).reshape(20, 18, 6, 4).mean(3)
    series = np.stack([thick, 1.3 * thick, 0.8 * thick], -1)
    write_volume(tmp_path / "scans" / "bold.nii.gz", series, spacing=(1, 1, 4))
    write_volume(tmp_path / "scans" / "head.nii.gz", thick, spacing=(1, 1, 4))
    run_here("inference", INFERENCE, tiny_overrides(tmp_path / "scans") | {"output_dir": str(tmp_path / "alone")})
    settings = tiny_overrides(tmp_path / "scans", share=share)
    assert on_ranks(2, lambda: ended(run_here, "inference", SHARED, settings), tmp_path) == [0, 0]
    one, two = volumes(tmp_path / "alone"), volumes(tmp_path / "results")
    assert one.keys() == two.keys() == {"bold", "head"} and two["bold"].shape == (20, 18, 24, 3)
    for case in one:
        np.testing.assert_allclose(two[case], one[case], atol=1e-4 * one[case].max())
    assert not list((tmp_path / "results").glob(".*"))


class FailsIn:
    """Handler: the case of this name fails, on these ranks."""

    def __init__(self, case, on):
        self.case, self.on = case, on

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine):
        if self.case in engine.state.batch["image"].meta["case"][0] and ranks.rank() in self.on:
            raise ValueError("it is wrong")


def failing(case, on):
    return {"+handlers": [{"_target_": "tests.test_multi_gpu.FailsIn", "case": case, "on": on}]}


@pytest.fixture
def overlay(tmp_path):
    """A config that comes last: `overlay(content)`."""

    def written(content):
        path = tmp_path / "last.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return [*SHARED, str(path)]

    return written


@pytest.mark.parametrize("share", ["cases", "slices"])
def test_a_case_that_fails_does_not_end_the_others(share, scans, tiny_overrides, run_here, overlay, tmp_path, capfd):
    configs = overlay(failing("s1", [0, 1]))
    settings = tiny_overrides(scans, share=share)
    codes = on_ranks(2, lambda: ended(run_here, "inference", configs, settings), tmp_path)
    assert "2 of 5 volumes" in codes[0] and re.search("s1.nii.gz: .*it is wrong", codes[0]) and codes[1] == 0
    assert "3 reconstructed, 0 finished before, 1 skipped, 1 failed" in capfd.readouterr().err
    assert volumes(tmp_path / "results").keys() == {"s0", "s2", "s3"}


def test_a_rank_that_fails_alone_ends_and_says_so(scans, tiny_overrides, run_here, overlay, tmp_path, monkeypatch):
    """The other waits for its slices, and is ended by torchrun; here, by the connection that closes."""
    monkeypatch.setattr(shared_cases, "ALONE", 0.5)
    configs, settings = overlay(failing("s2", [1])), tiny_overrides(scans, share="slices")
    codes = on_ranks(2, lambda: ended(run_here, "inference", configs, settings), tmp_path)
    assert re.search("s2.nii.gz failed on rank 1 alone: .*it is wrong", codes[1])
    assert codes[0] == 1
    assert "s2" not in volumes(tmp_path / "results")


def test_what_is_shared_is_checked_first(monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(SHARED)
    parser.update({"share": "planes"})
    with pytest.raises(Exception, match="shares_slices") as refused:
        parser.get_parsed_content("shares_slices")
    failure = failure_of(refused.value, ["inference", "--share", "planes"])
    assert failure.status == 2 and "share must be one of cases, slices, got 'planes'" in failure.said


@pytest.mark.parametrize(("config", "overlay"), [("inference", "multi_gpu_inference"), ("train", "multi_gpu_train")])
def test_ranks_that_would_all_do_the_same_are_refused(config, overlay, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    words = ["monai/bundle/__main__.py", "run", config.replace("train", "training"), "--config_file"]
    with pytest.raises(UsageError, match=f"2 processes, which would all do the same: add configs/{overlay}.json"):
        check_options([*words, f"configs/{config}.json"])
    check_options([*words, f"['configs/{config}.json','configs/{overlay}.json']"])


@pytest.mark.slow
@pytest.mark.parametrize("share", ["cases", "slices"])
def test_what_a_lost_rank_had_is_named_and_done_by_a_rerun(share, scans, tiny_overrides, run_here, overlay, tmp_path):
    """With torchrun itself, whose agent ends the rank that is left."""
    (scans / "broken.nii.gz").unlink()
    mark = tmp_path / "lost"
    configs = overlay({"+handlers": [{"_target_": "tests.support.ranks.LostOnce", "mark": str(mark)}]})
    settings = tiny_overrides(scans, share=share, device="cpu")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "inference", "--config_file", str(configs)]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=200)
    assert done.returncode == 1, done.stderr[-3000:]
    case = mark.read_text().removesuffix(".nii.gz")
    (said,) = re.findall("interrupted: .*", done.stderr)
    lost = f"{case} (rank 1)" if share == "cases" else case
    assert re.search(rf"\d of 4 volumes are written to .*begun, and not written: .*{re.escape(lost)}", said)
    assert said.endswith("go on with --skip_finished True")
    before = volumes(tmp_path / "results")  # all of them whole
    run_here(
        "inference",
        INFERENCE,
        {k: v for k, v in settings.items() if k != "share"} | {"skip_finished": True, "device": "$torch.device('cpu')"},
    )
    after = volumes(tmp_path / "results")
    assert after.keys() == {"s0", "s1", "s2", "s3"} and all((after[c] == before[c]).all() for c in before)
