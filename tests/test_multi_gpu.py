"""Runs of several ranks: what they share comes out as one rank makes it, and nobody waits for a rank that is lost."""

import json
import os
import signal
import sys

import nibabel as nib
import numpy as np
import pytest

from bundle import ranks
from tests.support.kill import forks
from tests.support.ranks import on_ranks
from tests.support.scans import INFERENCE, head_voxels, write_volume

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
