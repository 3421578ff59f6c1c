"""The study of several stacks: its truth, its runs on a tiny head, its tables; and the study that tunes them."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.physics.stacks.simulate import scanned
from scripts.studies import stacks, stacks_tables, tune_stacks
from tests.support.scans import ROOT, head_voxels, write_volume

SIZE = ["20", "30", "20"]


@pytest.fixture
def head(tmp_path):
    voxels = np.kron(head_voxels((20, 25, 20)), np.ones((2, 2, 2), np.float32))
    return write_volume(tmp_path / "data" / "head.nii.gz", voxels)


@pytest.fixture
def tiny(tiny_weights):
    return {"checkpoint": str(tiny_weights), "num_draws": 1, "sampler#progress": False, "rounds": 1}


@pytest.fixture
def people(head, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(stacks, "find_people", lambda folder, names: dict.fromkeys(names, head))


def test_a_scan_of_the_study_holds_what_lies_where_its_head_has_moved(head, tmp_path):
    heads = stacks.Heads({"t1_stroke": head}, (20, 30, 20), tmp_path, {})
    still, moved = (heads.stacks("t1_stroke", m) for m in (False, True))
    truth = heads.truth("t1_stroke")
    assert truth.shape == (1, 20, 30, 20)
    voxels = nib.load(head).get_fdata(dtype=np.float32)
    start = (
        nib.affines.apply_affine(np.linalg.inv(nib.load(head).affine), truth.affine.numpy()[:3, 3]).round().astype(int)
    )
    part = voxels[tuple(slice(s, s + n) for s, n in zip(start, truth.shape[1:]))]
    assert np.array_equal(truth[0], part)
    axial = scanned(voxels, nib.load(head).affine, still[0])
    assert np.abs(axial - part.reshape(20, 30, 4, 5).mean(3)).mean() < 0.05 * part.mean()
    assert torch.equal(moved[0].poses[0], torch.eye(4, dtype=torch.float64))
    assert not torch.allclose(moved[1].poses[0], torch.eye(4, dtype=torch.float64), atol=0.01)


@pytest.mark.slow
def test_a_tiny_head_is_measured_and_its_tables_are_made(people, tiny, tmp_path):
    output = tmp_path / "stacks.json"
    argv = ["--data_dir", str(tmp_path), "--people", "t1_stroke", "--cases", "axial", "two", stacks.KNOWN]
    stacks.main([*argv, "--size", *SIZE, "--work_dir", str(tmp_path / "work"), "--output", str(output)], **tiny)
    record = json.loads(output.read_text(encoding="utf-8"))
    cases = record["results"]["t1_stroke"]
    assert set(cases["axial"]) == {*stacks.METHODS["alone"], "diffusion"}
    assert cases[stacks.KNOWN]["total_variation"]["0"]["psnr"] > 0
    assert list(cases["two"]["registration"]["0"]) in ([], ["coronal"])  # of so few slices it may not be placed
    text = stacks_tables.stacks_text(record)
    assert f"{cases['axial']['diffusion']['0']['psnr']:.2f}" in text and "stroke, T1" in text


def test_gains_are_differences_of_what_was_run_and_nothing_else_is_shown():
    def case(psnr):
        return {m: {"0": {"psnr": psnr - k, "ssim": 0.5}} for k, m in enumerate(("diffusion", "total_variation"))}

    people = {"t1_stroke": {"axial": case(20), "coronal": case(21), "two": case(24.5)}}
    text = stacks_tables.gains(people, ["stroke"])
    assert "| two stacks over the better one alone | +3.50 | +3.50 |" in text
    assert "| two stacks, over total variation | +1.00 | +1.00 |" in text
    assert "three" not in text


@pytest.mark.slow
def test_settings_are_chosen_by_the_mean(head, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tune_stacks, "MULTIPLES", (0.2, 0.5))
    monkeypatch.setattr(tune_stacks, "ERRORS", (0.1,))
    monkeypatch.setattr(tune_stacks, "STARTS", ((0.02, 1), (0.05, 2)))
    output = tmp_path / "tuning.json"
    argv = ["--volumes", str(head), "--size", "30", "30", "30", "--work_dir", str(tmp_path / "w")]
    tune_stacks.main([*argv, "--output", str(output)], **tiny)
    best = json.loads(output.read_text(encoding="utf-8"))["best"]
    for what in ("total_variation", "sampler"):
        means = best[what]["mean_psnr"]
        assert means[best[what]["chosen"]] == max(means.values())
    assert stacks_tables.tuning_text({"best": best}).count("(best)") == 2
