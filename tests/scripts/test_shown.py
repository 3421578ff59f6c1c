"""The studies of the shown people: what they keep, cut and measure, on tiny volumes."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.noise.field import IdenticalNoise, IndependentNoise, SlerpNoise
from interslice.physics.intensity import intensity_range
from interslice.usage import UsageError
from scripts.studies import imprint, people, shown, shown_tables, stacked_slices
from scripts.studies.bench import baseline_names
from scripts.studies.record import Record, sha256
from tests.support.scans import CHANNELS, GROUPS, ROOT, head_voxels, write_volume

TINY = {"network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS}


# -- the record -----------------------------------------------------------------------------------
def test_a_record_grows_run_by_run_and_goes_on(tmp_path):
    path, done = tmp_path / "docs" / "r.json", []

    def run(key):
        if key == ("b", 2):
            raise KeyboardInterrupt
        done.append(key)
        return {"psnr": 20.0}

    keys = [("a", 1), ("a", 2), ("b", 2)]
    with pytest.raises(KeyboardInterrupt):
        Record(path, {"size": (1, 2)}).fill(keys, run, "runs")
    assert json.loads(path.read_text())["results"] == {"a": {"1": {"psnr": 20.0}, "2": {"psnr": 20.0}}}
    record = Record(path, {"size": (1, 2)})
    record.fill(keys, lambda key: done.append(key) or {"psnr": 21.0}, "runs")
    assert done == [("a", 1), ("a", 2), ("b", 2)] and record.get(("b", 2)) == {"psnr": 21.0}


def test_a_record_of_other_settings_is_refused(tmp_path):
    Record(tmp_path / "r.json", {"size": None, "seed": 1}).add(["a"], {})
    with pytest.raises(UsageError, match=r"other settings \(size\): name another --output"):
        Record(tmp_path / "r.json", {"size": [4], "seed": 1})


def test_names_may_come_but_not_change(tmp_path):
    Record(tmp_path / "r.json", {}, {"small": "aa"}).add(["a"], {})
    record = Record(tmp_path / "r.json", {}, {"large": "bb"})
    assert record.content["named"] == {"small": "aa", "large": "bb"} and record.get(["a"]) == {}
    with pytest.raises(UsageError, match=r"other settings \(small\)"):
        Record(tmp_path / "r.json", {}, {"small": "cc", "large": "bb"})


# -- the people -----------------------------------------------------------------------------------
def test_people_are_told_by_content_and_not_by_name(tmp_path, monkeypatch):
    path = write_volume(tmp_path / "anything.nii.gz", head_voxels((12, 12, 12)))
    monkeypatch.setitem(shown.PEOPLE, "colin27", shown.Person("one", sha256(path), brain_only=False))
    assert shown.find_people(tmp_path, ["colin27"]) == {"colin27": path}
    with pytest.raises(UsageError, match="does not hold t1_seg3d, t2_stroke as published .*--people"):
        shown.find_people(tmp_path, ["t1_seg3d", "colin27", "t2_stroke"])
    with pytest.raises(UsageError, match="is no folder"):
        shown.find_people(tmp_path / "none", ["colin27"])


def test_the_digests_are_those_of_the_sources():
    """Where scripts/data_sources.json knows the file too, both say the same."""
    files = [
        f for source in json.loads((ROOT / "scripts/data_sources.json").read_text()).values() for f in source["files"]
    ]
    (colin,) = [f for f in files if f["name"] == "colin27_t1"]
    assert colin["sha256"] == shown.PEOPLE["colin27"].sha256 and colin["role"] == "held_out"
    assert all(f["role"] not in ("training", "tissue") for f in files if f["sha256"] in
               {p.sha256 for p in shown.PEOPLE.values()})  # fmt: skip


def test_the_brain_of_a_head_lies_deep_in_it():
    grid = np.stack(np.meshgrid(*[np.arange(n) - 30.0 for n in (60, 60, 40)], indexing="ij"))
    radius = np.sqrt(np.square(grid).sum(0))
    ball = np.where(radius <= 28, 100.0, 0.0)
    ball[radius < 10] = 0  # a hole, as of air or dark fluid, is no surface
    mask = shown.brain(ball, (1.0, 1.0, 1.0), brain_only=False)
    expected = radius <= 28 - shown.DEPTH
    assert (mask != expected)[..., 20:].mean() < 0.01
    assert mask[30, 30, 39]  # the edge of the volume is no surface either
    np.testing.assert_array_equal(shown.brain(ball, (1.0, 1.0, 1.0), brain_only=True), ball > 0)


def test_a_part_keeps_the_scale_of_the_whole(tmp_path):
    voxels = head_voxels((40, 36, 40))
    source = write_volume(tmp_path / "v.nii.gz", voxels)
    path, ids = shown.prepare(source, "one", True, (10, 12, 99), tmp_path / "work")
    part = nib.load(path)
    assert part.shape == (10, 12, 40)
    np.testing.assert_allclose(part.get_fdata(), nib.load(source).get_fdata()[15:25, 12:24])
    np.testing.assert_allclose(part.affine[:3, 3], [15, 12, 0])
    lower, upper = intensity_range(torch.from_numpy(voxels))
    assert (ids["scale"]["a_min"], ids["scale"]["a_max"]) == pytest.approx((lower, upper))
    assert nib.load(tmp_path / "work/regions/one.nii.gz").shape == part.shape


# -- what noise leaves behind ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "share", "far"),
    [
        (IndependentNoise(), 1 / 60, 0.0),
        (IdenticalNoise(), 1.0, 1.0),
        (SlerpNoise(), 8 / math.pi**2, math.cos(math.pi / 2 * 50 / 59)),
    ],
)
def test_correlations_are_those_that_the_fields_state(field, share, far):
    """The share of slerp: the mean of cos(pi/2 (a - a')) over all pairs, (2/pi)^2 + (2/pi)^2."""
    found = imprint.correlations(field.draw(60, (96, 96), seed=3, step=0))
    assert found["common_share"] == pytest.approx(share, abs=0.01)
    assert found["50"] == pytest.approx(far, abs=0.02)
    assert "100" not in found


# -- runs -----------------------------------------------------------------------------------------
@pytest.fixture
def tiny(monkeypatch, tmp_path, tiny_weights):
    """Two small heads as the shown people, a tiny network, and the folder of both."""
    monkeypatch.chdir(ROOT)
    known = {}
    for seed, name in enumerate(("colin27", "t1_stroke")):
        path = write_volume(tmp_path / "data" / f"{seed}.nii.gz", head_voxels((20, 18, 20), seed))
        known[name] = shown.Person(name, sha256(path), brain_only=bool(seed))
    for module in (shown, stacked_slices, people, imprint, shown_tables):
        monkeypatch.setattr(module, "PEOPLE", known)
    monkeypatch.setattr(shown, "DEPTH", 3.0)
    return tmp_path


def words(tiny, *others):
    return ["--data_dir", str(tiny / "data"), "--work_dir", str(tiny / "work"), *others]


def test_stacked_slices_are_run_once_and_shown(tiny, tiny_weights, monkeypatch):
    monkeypatch.setattr(stacked_slices, "TUNED", tiny / "tuned.json")
    monkeypatch.setattr(stacked_slices, "STEP", 200)
    output = tiny / "docs/stacked.json"
    common = ["--checkpoint", str(tiny_weights), "--starts", "600", "--work_dir", str(tiny / "work")]
    stacked_slices.main([*common, "--tune", str(tiny / "data/0.nii.gz")], **TINY)
    assert json.loads((tiny / "tuned.json").read_text())["600"] in stacked_slices.TV_WEIGHTS
    run = [*common, "--data_dir", str(tiny / "data"), "--people", "colin27", "t1_stroke", "--output", str(output),
           "--crop", "12", "16", "20", "--noises", "independent", "identical", "slerp"]  # fmt: skip
    stacked_slices.main(run, **TINY)
    record, written = json.loads(output.read_text()), output.stat().st_mtime_ns
    found = record["results"]["t1_stroke"]["600"]
    assert found["independent"]["0"].keys() == {"independent", "independent_tv"}
    assert record["results"]["colin27"]["0"].keys() >= {"input", "cubic_consistent"}
    assert output.with_suffix(".png").stat().st_size > 5000
    stacked_slices.main(run, **TINY)
    assert output.stat().st_mtime_ns == written  # nothing was missing
    rows = shown_tables.stacked_text(record).splitlines()
    baselines = [name for name in stacked_slices.BASELINES if name in baseline_names()]
    assert len(rows) == 4 + len(baselines) + 4 and "12 x 16 x 20" in rows[0]
    assert "independent, then total variation" in rows[4 + len(baselines) + 1]


@pytest.mark.slow
def test_people_are_measured_with_every_prior(tiny, tiny_weights):
    output = tiny / "docs/people.json"
    people.main([*words(tiny), "--people", "colin27", "t1_stroke", "--thicknesses", "5", "--seeds", "2",
                 "--priors", f"small={tiny_weights}", "--ids", "num_steps=2", "num_draws=1", "--output", str(output),
                 "--adapt"], adapting=ADAPTING, **TINY)  # fmt: skip
    record = json.loads(output.read_text())
    found = record["results"]["5.0"]["t1_stroke"]
    assert found.keys() == {*baseline_names(), "small", "small, adapted"} and found["small"].keys() == {"0", "1"}
    assert found["small"]["0"] != found["small, adapted"]["0"] and "psnr_inside" in found["small"]["0"]
    text = shown_tables.people_text(record)
    assert "prior: small, adapted" in text and "### Slices of 5 mm" in text and "Whole volumes" in text


ADAPTING = {"max_epochs": 1, "epoch_length": 2, "patch_size": 16, "batch_size": 2}


@pytest.mark.slow
def test_imprints_are_measured_on_both_kinds_of_stack(tiny, tiny_weights, monkeypatch):
    monkeypatch.setattr(imprint, "COUNTS", (18, 10))
    monkeypatch.setattr(imprint, "AXES", {0: (None, 16, 20), 2: (16, 16, None)})
    monkeypatch.setattr(imprint, "STARTS", (600,))
    monkeypatch.setattr(imprint, "STEP", 300)
    output = tiny / "docs/imprint.json"
    imprint.main([*words(tiny), "--checkpoint", str(tiny_weights), "--noises", "independent", "identical",
                  "--output", str(output)], **TINY)  # fmt: skip
    found = json.loads(output.read_text())["results"]
    assert found.keys() == {"0", "2"} and found["0"].keys() == {"18", "10"}
    far = [found["0"]["18"]["600"][noise]["drawn"]["common_share"] for noise in ("independent", "identical")]
    assert far[0] < far[1]
    assert len(shown_tables.imprint_text({"results": found}).splitlines()) == 2 + 8


def test_people_options_that_make_no_sense_are_refused(tiny, tiny_weights, capsys):
    for wrong, said in ((["--adapt", "--crop"], "leave out --crop"), (["--priors", "small"], "NAME=VALUE, not small")):
        with pytest.raises(SystemExit):
            people.main([*words(tiny), *wrong])
        assert said in capsys.readouterr().err


def test_gains_are_paired_by_person():
    """A person that is easy for all methods does not widen the interval."""

    def run(level):
        return {"psnr": level, "ssim": 0.8, **{f"error_{p}": 0.05 for p in ("axial", "coronal", "sagittal")}}

    record = {"settings": {"size": None}, "results": {"5.0": {
        name: {"cubic_consistent": {"0": run(level)}, "new": {"0": run(level + 1), "1": run(level + 3)}}
        for name, level in (("colin27", 20.0), ("t1_seg3d", 30.0))
    }}}  # fmt: skip
    assert "| prior: new | +2.00 | – | – | +0.000 | 1.000 | 1.000 | 1.000 |" in shown_tables.people_text(record)
