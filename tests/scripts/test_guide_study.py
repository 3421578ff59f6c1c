"""The studies of guides: what is measured, and that they run."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.physics.guide import SHARED
from interslice.physics.variation import EDGE
from scripts.data.synthesise_heads import HeadSynthesiser
from scripts.studies import guide, tune_guide
from tests.physics.test_guide import AFFINE, folds, other_contrast
from tests.support.scans import ROOT, write_volume


def step(axis, place):
    x = torch.zeros(8, 8, 8)
    x.narrow(axis, place, 8 - place).fill_(1.0)
    return x


def test_zones_tell_edges_that_the_guide_frees_from_those_that_it_lacks():
    truth, gains = step(0, 4), (1.0, 1.0, 1.0)
    edge = torch.zeros(8, 8, 8, dtype=torch.bool)
    edge[3] = True
    same = guide.zones(truth, -0.5 * step(0, 4), gains)
    assert torch.equal(same["shared"], edge) and not same["alone"].any() and torch.equal(same["flat"], ~edge)
    for other in (step(1, 4), step(0, 2), torch.zeros(8, 8, 8)):
        lacking = guide.zones(truth, other, gains)
        assert (lacking["alone"].sum(), lacking["shared"].sum()) == (edge.sum(), 0)
    half = step(0, 4)
    half[:, 4:] = torch.nan
    masks = guide.zones(truth, half, gains)
    assert not any(m[:, 4:].any() for m in masks.values()) and masks["shared"][3, 0].any()


def test_the_error_of_a_zone_is_that_of_its_voxels():
    truth, mask = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[0] = True
    x = truth.clone()
    x[0], x[1] = 0.2, 5.0
    assert guide.psnr_in(x, truth, mask) == pytest.approx(20.0)


def test_a_misplaced_guide_has_its_voxels_and_another_place(tmp_path):
    source = write_volume(tmp_path / "a.nii.gz", folds().numpy(), AFFINE)
    wrong = nib.load(guide.misplaced(source, tmp_path / "wrong" / "a.nii.gz"))
    assert np.array_equal(wrong.get_fdata(), nib.load(source).get_fdata())
    moved = wrong.affine @ np.linalg.inv(AFFINE)
    turn = np.degrees(np.arccos((np.trace(moved[:3, :3]) - 1) / 2))
    assert 8 < turn < 10 and np.allclose(moved[:3, 3], guide.MOVED)


@pytest.fixture
def scans(tmp_path):
    t2 = folds()
    return {
        "t2_stroke": write_volume(tmp_path / "t2.nii.gz", (t2.numpy() + 1).clip(0) * 300, AFFINE),
        "t1_stroke": write_volume(tmp_path / "t1.nii.gz", other_contrast(t2).astype(np.float32), AFFINE),
    }


def test_the_study_measures_each_scan_with_and_without_its_guide(scans, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    ids = {"device": torch.device("cpu"), "sampler#progress": False, "guide_registration": "header", "num_steps": 1}
    ids["displayable_configs#ratio"] = 3
    runs = guide.Guides(scans, None, str(tiny_weights), tmp_path / "work", ids)
    without = runs.run(("t2_stroke", "none", "total_variation"))
    guided = runs.run(("t2_stroke", "t1_stroke", "total_variation"))
    assert guided["psnr"] > without["psnr"] + 1  # of the same edges
    assert guided["zones t1_stroke"]["shared"] > without["zones t1_stroke"]["shared"] + 1
    assert guided["share t1_stroke"] == without["share t1_stroke"] and "guide" not in without
    assert guided["guide"]["shared_edges"] > 0.25
    sampled = runs.run(("t2_stroke", "t1_stroke", "recon"))
    assert set(guided) == set(sampled)
    results = {"t2_stroke": {"none": {"total_variation": without}, "t1_stroke": {"total_variation": guided}}}
    page = tmp_path / "page.md"
    page.write_text("<!-- guide -->\n<!-- /guide -->\n<!-- guide zones -->\n<!-- /guide zones -->\n")
    guide.write_tables({"settings": {"size": None}, "results": results}, page)
    text, shared = page.read_text(encoding="utf-8"), "zones t1_stroke"
    assert f"| stroke, T2 | none | total variation | {without['psnr']:.2f} |" in text
    gain = guided[shared]["shared"] - without[shared]["shared"]
    assert f"| stroke, T2 | T1 | total variation | {gain:+.2f} (" in text


def test_the_page_holds_what_the_json_says(tmp_path):
    record, page = json.loads((ROOT / "docs/guide.json").read_text(encoding="utf-8")), tmp_path / "guide.md"
    page.write_text((ROOT / "docs/how_to/guide.md").read_text(encoding="utf-8"), encoding="utf-8")
    guide.write_tables(record, page)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs/how_to/guide.md").read_text(encoding="utf-8")


def test_one_head_in_several_contrasts_has_one_anatomy_and_noise_of_its_own():
    """Both contrasts are drawn after the anatomy: the shares of tissues are those of the head of that number."""
    shape = (40, 44, 36)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = grid.norm(dim=0)
    wm, gm = (radius < 0.4).float(), ((radius >= 0.4) & (radius < 0.6)).float()
    draw = HeadSynthesiser(wm, gm, (radius < 0.7).float())
    (t1, t2), tissue = draw.contrasts(3, ["T1", "T2"])
    assert torch.equal(tissue, draw.with_tissues(3)[1])
    white, fluid = tissue[0] > 0.9, tissue[2] > 0.9
    assert t1[white].mean() > t1[fluid].mean() and t2[white].mean() < t2[fluid].mean()
    again, _ = draw.contrasts(3, ["T1", "T2"])
    assert torch.equal(again[0], t1) and torch.equal(again[1], t2)
    (twice, other), _ = draw.contrasts(3, ["T1", "T1"])
    assert torch.equal(twice, t1) and not torch.equal(other, t1)


def test_what_was_chosen_is_the_best_in_the_mean_of_all_pairs():
    edge = {
        "1": {"a": {"0.1": 20.0, "0.2": 22.0, "cubic": 30.0}},
        "2": {"a": {"0.1": 25.0, "0.2": 22.0, "cubic": 30.0}},
    }
    shared = {"one head": {"a": {"shared": 0.5}, "b": {"shared": 0.4}}}
    found = tune_guide.chosen({"edge": edge, "shared": shared})
    assert found["edge"] == {"0.1": 22.5, "0.2": 22.0, "cubic": 30.0} and found["best edge"] == "0.1"
    assert found["shared by one head"] == {"least": 0.4, "most": 0.5, "pairs": 2}
    text = tune_guide.choices_text({"settings": {"size": [4, 4, 4]}, "results": {"chosen": found}})
    assert "| 0.1 | 22.50 |" in text and "| one head | 2 | 0.40 to 0.50 |" in text


def test_the_settings_are_those_that_the_study_found():
    found = json.loads((ROOT / "docs/tuning_guide.json").read_text(encoding="utf-8"))["results"]["chosen"]
    config = json.loads((ROOT / "configs/inference.json").read_text(encoding="utf-8"))
    settings, error = config["with_guide"], config["data_consistency"]["error"]
    assert found["best steps"] == f"{settings['start_fraction']} {settings['num_steps']}"
    near = 0.2  # dB: between these the middle of a head and its side disagree
    for kind, kept in (("edge", EDGE), ("error", error["guided"])):
        tried = {what: value for what, value in found.get(kind, {}).items() if what[0].isdigit()}
        assert not tried or tried[str(kept)] > max(tried.values()) - near
    apart = max(found["shared by two heads"]["most"], found["shared by two people"]["most"])
    assert apart < SHARED < found["shared by one head"]["least"]
