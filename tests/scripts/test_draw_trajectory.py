"""The script that draws the process, on a tiny head."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from interslice.noise.named import FIELDS
from interslice.physics.intensity import intensity_range
from scripts import draw_trajectory
from scripts.draw_trajectory import Task, in_window, main, middle
from tests.support.scans import OBLIQUE, ROOT, head_voxels, write_volume


@pytest.fixture
def task(tmp_path):
    path = write_volume(tmp_path / "sample" / "head.nii.gz", head_voxels((24, 22, 30)), OBLIQUE)
    return Task([], path, (20, 18, 25), 15.0, (-1.0, 1.0), "a tiny head")


def test_the_middle_of_a_sample_keeps_its_place_and_the_scale_of_the_whole(task, tmp_path):
    ids = middle(task.sample, task.crop, tmp_path)
    cut, whole = nib.load(ids["dataset_dir"]), nib.load(task.sample)
    assert cut.shape == task.crop
    np.testing.assert_array_equal(cut.get_fdata(), whole.get_fdata()[2:22, 2:20, 2:27])
    np.testing.assert_allclose(cut.affine @ [0, 0, 0, 1], whole.affine @ [2, 2, 2, 1])
    expected = intensity_range(torch.from_numpy(whole.get_fdata()))
    assert (ids["scale"]["a_min"], ids["scale"]["a_max"]) == expected


def test_a_sample_smaller_than_the_middle_is_taken_whole(task, tmp_path):
    assert nib.load(middle(task.sample, (99, 18, 99), tmp_path)["dataset_dir"]).shape == (24, 18, 30)


def test_a_truth_looks_the_same_in_the_window_of_the_noise():
    np.testing.assert_allclose(in_window(np.array([-1.0, 0.0, 1.0]), (-1, 1), (-2, 2)), [-2, 0, 2])


@pytest.mark.slow
def test_tiny_settings_give_all_the_pictures(task, tiny_overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    runs = {}
    real = draw_trajectory.watch

    def watch(task, noise, *others):
        runs[noise] = real(task, noise, *others)
        return runs[noise]

    monkeypatch.setattr(draw_trajectory, "watch", watch)
    ours = ("checkpoint", "device", "network_def#channels", "network_def#norm_num_groups", "sampler#progress")
    overrides = {k: v for k, v in tiny_overrides("").items() if k in ours}
    page = tmp_path / "docs" / "trajectory.md"
    page.parent.mkdir()
    page.write_text("Before\n<!-- trajectory -->\nold\n<!-- /trajectory -->\nAfter\n", encoding="utf-8")
    options = "--noise independent identical --num_steps 3 --neighbours 5 --columns 3 --start_fraction 1.0 --output"
    main([*options.split(), str(page.parent)], task, **overrides)

    # The truth lies where the slabs do: both hold the same thick-slice means.
    for run in runs.values():
        slab = run.record.slabs["sagittal"]
        assert [s[2] for s in run.record.steps] == [0, 0, 0]
        means = [x.reshape(*x.shape[:2], -1, 5).mean(3) for x in (slab.x0_hat[-1], run.truth["sagittal"])]
        assert torch.allclose(*means, atol=1e-4) and means[0].std() > 0.1

    measured = json.loads((page.parent / "trajectory.json").read_text(encoding="utf-8"))
    assert measured["identical"]["x_t"]["agreement"] > 0.99 > 0.3 > measured["independent"]["x_t"]["agreement"]
    text = page.read_text(encoding="utf-8")
    assert "old" not in text and "| identical |" in text and text.startswith("Before") and text.endswith("After\n")
    for name in ("trajectory.png", "trajectory_pca.png"):
        with Image.open(page.parent / name) as picture:
            assert min(picture.size) > 300
        assert (page.parent / name).stat().st_size < 700e3
    with Image.open(page.parent / "trajectory.gif") as gif:
        assert gif.n_frames == 4  # three steps and the truth
    said = capsys.readouterr().out
    assert all(f"wrote {page.parent / name}" in said for name in ("trajectory.png", "trajectory.json", "trajectory.md"))


def test_the_samples_of_all_tasks_are_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    for task in draw_trajectory.TASKS.values():
        assert [Path(c).is_file() for c in task.configs] == [True] * len(task.configs) and task.sample.is_dir()
    assert draw_trajectory.TITLES.keys() <= FIELDS.keys()
