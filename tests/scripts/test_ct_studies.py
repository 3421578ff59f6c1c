"""The studies of CT: what they plan, cut and write, and that what they set are ids of the configs."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from interslice.usage import UsageError
from scripts import reproduce
from scripts.studies import ct_body_parts, tune_ct, tune_ct_sampler
from tests.support.scans import CHANNELS, GROUPS, INFERENCE, ROOT, chest_voxels, write_volume

TINY = {
    "network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS, "device": "cpu",
    "baselines#total_variation#iterations": 5, "finish#iterations": 2, "num_steps": 1,
}  # fmt: skip


def ids_of_configs():
    parser = ConfigParser()
    parser.read_config([str(ROOT / INFERENCE), str(ROOT / "configs/task_svct.json")])
    return parser


def test_what_the_sampler_is_tuned_by_are_ids_and_every_scan_starts_with_its_baseline():
    config, plan = ids_of_configs(), list(tune_ct_sampler.plan())
    assert len(plan) == len(set(plan))
    for settings in (tune_ct_sampler.SETTINGS, tune_ct_sampler.MBIR, tune_ct_sampler.ARCS):
        assert all(config.get(name.split("#")[0]) is not None for ids in settings.values() for name in ids)
    first = {scan: setting for scan, setting, _ in reversed(plan)}
    assert set(first.values()) == {tune_ct_sampler.BASELINE} and list(tune_ct_sampler.SCANS) == list(first)[::-1]
    assert {scan: sum(key[:2] == (scan, tune_ct_sampler.DEFAULT) for key in plan) for scan in first} == dict.fromkeys(
        first, len(tune_ct_sampler.SEEDS)
    )


def test_the_published_runs_have_their_tuned_strengths():
    chosen = json.loads((ROOT / "docs/tuning_ct.json").read_text(encoding="utf-8"))["chosen"]
    for run in reproduce.CT_RUNS.values():
        assert ("rho" in chosen[run.kind]) == (run.photons is None)
        assert chosen[run.kind]["smoothing"] > 0
    tried = json.loads((ROOT / "docs/tuning_ct.json").read_text(encoding="utf-8"))["tried"]
    assert all(chosen[kind][what] == float(tune_ct.best(tried[kind][what])) for kind in tried for what in tried[kind])


@pytest.mark.slow
def test_a_tuning_goes_from_a_volume_to_its_table(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_ct, "kept_slices", lambda path: tiny_slab())
    monkeypatch.setattr(tune_ct_sampler, "SCANS", {"parallel beam": ({"num_views": 6}, [tune_ct_sampler.DEFAULT])})
    page, record = tmp_path / "page.md", tmp_path / "tuning.json"
    page.write_text("<!-- ct sampler -->\n<!-- /ct sampler -->\n", encoding="utf-8")
    words = ["--volume", "x", "--work_dir", tmp_path / "w", "--output", record, "--page", page]
    tune_ct_sampler.main(list(map(str, words)), checkpoint=str(tiny_weights), **TINY)
    found = json.loads(record.read_text(encoding="utf-8"))["results"]["parallel beam"]
    assert set(found[tune_ct_sampler.DEFAULT]) == {"0", "1", "2"}
    assert len({run["psnr"] for run in found[tune_ct_sampler.DEFAULT].values()}) == 3  # seeds differ
    shown = page.read_text(encoding="utf-8")
    assert (
        f"| parallel beam | {tune_ct_sampler.BASELINE} | {found[tune_ct_sampler.BASELINE]['0']['psnr']:.2f} |" in shown
    )


def tiny_slab():
    return torch.from_numpy(chest_voxels((16, 16, 3)))


@pytest.fixture
def bodies(tmp_path):
    voxels = chest_voxels((60, 60, 40))
    write_volume(tmp_path / "data" / "invesalius_head.nii.gz", voxels, spacing=(1.25, 1.25, 2.0))
    return tmp_path / "data"


def test_a_part_is_cut_at_its_height_from_the_middle(bodies, tmp_path, monkeypatch):
    monkeypatch.setattr(ct_body_parts, "SIZE", 12)
    monkeypatch.setattr(ct_body_parts, "SLICES", 4)
    part = ct_body_parts.PARTS["brain"]
    cut = nib.load(ct_body_parts.cut(bodies / f"{part.volume}.nii.gz", part, tmp_path / "cut.nii.gz"))
    assert cut.shape == (12, 12, 4) and np.allclose(cut.header.get_zooms(), 2.5)
    highest = ct_body_parts.Part("", part.volume, 1.0, "")
    top = nib.load(ct_body_parts.cut(bodies / f"{part.volume}.nii.gz", highest, tmp_path / "top.nii.gz"))
    assert top.shape == (12, 12, 4) and not np.array_equal(top.get_fdata(), cut.get_fdata())


@pytest.mark.slow
def test_parts_that_are_there_are_measured_and_the_others_named(bodies, tiny_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ct_body_parts, "SIZE", 30)
    monkeypatch.setattr(ct_body_parts, "SLICES", 3)
    page, record = tmp_path / "page.md", tmp_path / "parts.json"
    page.write_text("<!-- ct body parts -->\n<!-- /ct body parts -->\n", encoding="utf-8")
    words = ["--data_dir", bodies, "--work_dir", tmp_path / "w", "--output", record, "--page", page]
    ct_body_parts.main(list(map(str, words)), checkpoint=str(tiny_weights), num_draws=1, num_views=6, **TINY)
    assert "totalsegmentator_thorax.nii.gz is missing: left out" in capsys.readouterr().out
    content = json.loads(record.read_text(encoding="utf-8"))
    assert set(content["results"]) == {"skull_base", "brain"} and list(content["named"]) == ["invesalius_head"]
    assert content["results"]["brain"]["ours"]["noise_left"] > 0.5  # of a network that was not trained
    assert "| head at the ventricles | invesalius_head |" in page.read_text(encoding="utf-8")


def test_without_any_volume_it_says_what_is_wanted(tmp_path):
    with pytest.raises(UsageError, match="holds none of .*invesalius_head.nii.gz"):
        ct_body_parts.main(["--data_dir", str(tmp_path)])
