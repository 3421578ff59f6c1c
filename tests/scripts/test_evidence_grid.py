"""The grid of comparisons: its statistics, its tables, and what the published figures must hold."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import stats

from scripts.studies import calibrate, evidence_grid, grid_tables, tune_length
from tests.support.scans import CHANNELS, GROUPS, ROOT, chest_voxels, head_voxels, write_volume

PUBLISHED = ROOT / "docs/results_grid.json"


def run(psnr=20.0, error=0.05):
    planes = {f"{k}_{p}": v for p in ("axial", "coronal", "sagittal") for k, v in (("error", error), ("ssim", 0.8))}
    return {"psnr": psnr, "ssim": 0.8, "residual": 0.0, **planes}


def record(task="mri_sagittal", shift=0.0, spread=0.02, seeds=5):
    """Two volumes of very different level; `slerp` differs from `independent` by `shift` dB."""
    rng = np.random.default_rng(0)
    volumes = {}
    for name, level in (("a", 20.0), ("b", 31.0)):
        noise = rng.normal(0, spread, (2, seeds))
        volumes[name] = {
            "independent": {str(s): run(level + noise[0, s]) for s in range(seeds)},
            "slerp": {str(s): run(level + shift + noise[1, s], 0.04) for s in range(seeds)},
        }
    return {task: {"dds": volumes}}


def test_the_interval_is_over_seeds_with_the_volumes_as_they_are():
    values = [[1.0, 2.0, 3.0], [11.0, 12.0, 14.0]]
    mean, half = grid_tables.interval(values)
    assert mean == pytest.approx((2 + 37 / 3) / 2)
    error = math.sqrt(1 / 3 + np.var([11, 12, 14], ddof=1) / 3) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 4) * error)
    one = grid_tables.interval([[1.0, 2.0, 4.0]])
    assert one[1] == pytest.approx(stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / math.sqrt(3))
    assert math.isnan(grid_tables.interval([[1.0], [2.0]])[1])


def test_levels_that_the_volumes_differ_by_cancel_in_the_pairs():
    found = grid_tables.pairs(record(shift=0.5, spread=0.0)["mri_sagittal"]["dds"], "slerp", grid_tables.psnr)
    np.testing.assert_allclose(found, 0.5, atol=1e-9)


def test_the_null_test_passes_without_an_effect_and_fails_with_one():
    assert all(r["passed"] for r in grid_tables.null_test(record()))
    (failed,) = grid_tables.null_test(record(shift=0.2))
    assert not failed["passed"] and failed["change_percent"] < 0
    assert "(!)" in grid_tables.null_table(record(shift=0.2))
    assert grid_tables.null_test(record("mri_axial", shift=0.2)) == []  # slices are coupled there: nothing to test


def test_the_tables_tell_what_was_not_run():
    text = grid_tables.grid_text(record(shift=0.5, spread=0.0))
    assert "+0.50 ± 0.00 (+0.50 / +0.50)" in text and "not run" in text and "0.800 ± 0.000" in text


def test_the_published_figures_pass_the_null_test():
    results = grid_tables.null_test(json.loads(PUBLISHED.read_text(encoding="utf-8")))
    assert len(results) >= 40
    assert [r for r in results if not r["passed"]] == []


def test_the_published_page_holds_what_the_json_says(tmp_path):
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/explanation").glob("evidence*.md")]
    for name, text in grid_tables.texts(ROOT / "docs").items():
        (page,) = (page for page in pages if f"<!-- {name} -->" in page)
        (tmp_path / "page.md").write_text(page, encoding="utf-8")
        assert grid_tables.fill(tmp_path / "page.md", name, text)
        assert (tmp_path / "page.md").read_text(encoding="utf-8") == page, name


# -- the runs, on tiny volumes --------------------------------------------------------------------
@pytest.fixture
def tiny(monkeypatch, tmp_path, tiny_weights):
    """The grid on tiny volumes with a tiny network."""
    monkeypatch.chdir(ROOT)
    head = write_volume(tmp_path / "mri" / "head.nii.gz", head_voxels((20, 18, 20)))
    chest = write_volume(tmp_path / "ct" / "chest.nii.gz", chest_voxels((24, 24, 8)), spacing=(2.5, 2.5, 2.5))
    whole = ((0, 99), (0, 99), (0, 99))
    network = {
        "checkpoint": str(tiny_weights), "network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS,
        "num_steps": 2, "num_draws": 1, "finish": None,
    }  # fmt: skip
    monkeypatch.setattr(evidence_grid, "FEW_STEPS", network)
    monkeypatch.setattr(evidence_grid, "SAMPLES", {"mri": str(head), "ct": str(chest)})
    monkeypatch.setattr(evidence_grid, "PIECES", {"mri": {"one": whole}, "ct": {"one": whole}})
    for module in (tune_length, calibrate):
        monkeypatch.setattr(module, "SAMPLES", evidence_grid.SAMPLES)
        monkeypatch.setattr(module, "PIECES", evidence_grid.PIECES)
    return tmp_path


def weights(task):
    return {task: dict.fromkeys(evidence_grid.SOLVERS, 0.01)}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mri_axial", "svct_parallel"])
def test_a_grid_goes_on_where_it_stopped(task, tiny):
    arguments = (tiny / "grid", [task], ["ddnm"], 2, weights(task))
    evidence_grid.run_grid(*arguments)
    found = evidence_grid.collect(tiny / "grid", 2)[task]["ddnm"]["one"]
    assert {"independent", "identical", "slerp", "ou", "matern", "independent_tv", "input"} <= found.keys()
    assert found["slerp"].keys() == {"0", "1"} and found["slerp"]["0"] != found["slerp"]["1"]
    files = sorted((tiny / "grid" / task).rglob("*.json"))
    files[0].unlink()
    kept = {p: p.stat().st_mtime_ns for p in files[1:]}
    evidence_grid.run_grid(*arguments)
    assert files[0].exists() and {p: p.stat().st_mtime_ns for p in kept} == kept
    assert evidence_grid.collect(tiny / "grid", 2)[task]["ddnm"]["one"] == found


def test_tuning_picks_one_of_the_weights(tiny):
    found = evidence_grid.tune(tiny / "grid", {"mri": str(tiny / "mri")}, ["mri_axial"], ["dds"])
    assert found["mri_axial"]["dds"] in evidence_grid.TV_WEIGHTS


def test_pieces_are_cut_in_place(tmp_path):
    source = write_volume(tmp_path / "v.nii.gz", head_voxels((12, 10, 8)), affine=np.diag([1.0, 2.0, 3.0, 1.0]))
    piece = nib.load(evidence_grid.cut(str(source), ((2, 6), (1, 5), (3, 7)), "mri", tmp_path / "p.nii.gz"))
    assert piece.shape == (4, 4, 4)
    np.testing.assert_allclose(piece.affine @ [0, 0, 0, 1], [2, 2, 9, 1])
    np.testing.assert_allclose(piece.get_fdata(), nib.load(source).get_fdata()[2:6, 1:5, 3:7], rtol=1e-5)


@pytest.mark.slow
def test_lengths_are_compared_with_the_one_that_is_picked(tiny, monkeypatch):
    monkeypatch.setattr(tune_length, "LENGTHS", (2.0, 50.0))
    output = tiny / "lengths.json"
    folders = [str(tiny / "mri"), str(tiny / "ct")]
    tune_length.main(["--tuning", *folders, "--tasks", "mri_axial", "--seeds", "1", "--work_dir", str(tiny / "grid"),
                      "--output", str(output)])  # fmt: skip
    found = json.loads(output.read_text(encoding="utf-8"))["mri_axial"]
    assert found.keys() == {"tuning", "one"} and found["one"]["lost_db"] >= 0
    assert "mri" not in grid_tables.length_text({"mri_axial": found}).splitlines()[0]


@pytest.mark.slow
def test_calibration_of_every_field_is_drawn(tiny):
    output = tiny / "calibration.json"
    calibrate.main(["--tasks", "mri_alternate", "--num_draws", "2", "--work_dir", str(tiny / "grid"),
                    "--output", str(output)])  # fmt: skip
    found = json.loads(output.read_text(encoding="utf-8"))["mri_alternate"]
    assert found.keys() == evidence_grid.NOISES.keys()
    assert output.with_suffix(".png").stat().st_size > 10_000
    assert len(grid_tables.calibration_text({"mri_alternate": found}).splitlines()) == 2 + 5


def test_means_of_slices_tell_shared_noise_from_independent():
    """The law behind the second row of the figure: shared noise does not average out."""
    own, shared = torch.randn(16, 4, 4, 16, generator=torch.Generator().manual_seed(1)), None
    shared = own[..., :1].expand(-1, -1, -1, 16)
    spread = [calibrate.slice_means(x, 3).std(0).mean() for x in (own, shared)]
    assert spread[1] / spread[0] == pytest.approx(math.sqrt(calibrate.BLOCK), rel=0.2)
