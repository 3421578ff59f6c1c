"""Series of volumes in whole runs: one result with the header's time, whatever stops it on the way."""

import gc
import json
import shutil
import weakref

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.files import case_folder
from interslice.files.acquired import in_common
from interslice.files.joined import columns_of
from interslice.files.kept_volumes import FOLDER, KeptVolumes
from interslice.files.save_results import SaveResults
from interslice.files.series import Series, TimePoint, widest
from interslice.files.source import Source
from interslice.physics.thick import as_acquired
from interslice.physics.thick.scale import ScalePercentilesd
from interslice.sampling.time_noise import seed_of
from tests.support.dicom_files import AFFINE, VOXELS, write_time_points
from tests.support.scans import (
    EVALUATE,
    INFERENCE,
    THICK,
    TIMES,
    thick_voxels,
    whole_message,
    write_series,
    write_volume,
)


@pytest.fixture
def fmri(tmp_path):
    write_series(tmp_path / "scans" / "bold.nii.gz")
    return tmp_path / "scans" / "bold.nii.gz"


def results(folder):
    return {p.name: nib.load(p) for p in sorted(folder.glob("*.nii.gz"))}


def test_a_series_comes_out_as_one_file_with_its_time(fmri, run_here, tiny_overrides, tmp_path):
    run_here("inference", [INFERENCE], tiny_overrides(fmri, num_draws=2, noise_level=0.0, report=True))
    case = tmp_path / "results" / "bold"
    found = results(case)
    assert found.keys() == {"bold_recon.nii.gz", "bold_std.nii.gz"}
    recon = found["bold_recon.nii.gz"]
    assert recon.shape == (20, 18, 24, 4) and recon.get_data_dtype() == np.float32
    assert recon.header["pixdim"][4] == 2.5 and recon.header.get_xyzt_units() == ("mm", "sec")
    assert recon.header["toffset"] == 3.0
    means = recon.get_fdata().reshape(20, 18, 6, 4, 4).mean(3)
    assert np.abs(means - thick_voxels()[..., None] * TIMES).max() < 0.01 * 1000
    record = json.loads((case / "run.json").read_text())
    assert record["volumes"] == [0, 1, 2, 3] and record["output_shape"] == [20, 18, 24, 4]
    assert len(record["of_each"]["relative_residual"]) == 4
    assert record["seconds"] == pytest.approx(sum(record["of_each"]["seconds"]), abs=0.02)
    assert record["files"].keys() == {"bold_recon.nii.gz", "bold_std.nii.gz", "report.html"}
    assert not list((tmp_path / "results").glob(".*"))


def test_one_noise_for_all_makes_alike_of_alike_and_own_noise_does_not(tmp_path, run_here, tiny_overrides):
    write_series(tmp_path / "still.nii.gz", np.ones(2))
    found = {}
    for how in ("same", "own"):
        ids = {"output_dir": str(tmp_path / how), "time_noise": how}
        run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "still.nii.gz", **ids))
        found[how] = nib.load(tmp_path / how / "still" / "still_recon.nii.gz").get_fdata()
    same, own = found["same"], found["own"]
    assert np.array_equal(same[..., 0], same[..., 1])
    assert np.array_equal(own[..., 0], same[..., 0])
    assert np.abs(own[..., 0] - own[..., 1]).max() > 1e-3 * own.max()


def test_a_chosen_volume_alone_is_what_it_is_in_its_series(tmp_path, run_here, tiny_overrides):
    write_series(tmp_path / "bold.nii.gz", np.ones(3))
    ids = {"time_noise": "own"}
    run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold.nii.gz", **ids))
    one = ids | {"times": 2, "output_dir": str(tmp_path / "one"), "inferer": "@at_known_spacing"}
    run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold.nii.gz", **one))
    whole = nib.load(tmp_path / "results" / "bold" / "bold_recon.nii.gz")
    alone = nib.load(tmp_path / "one" / "bold" / "bold_recon.nii.gz")
    assert alone.shape == (20, 18, 24)
    assert np.allclose(alone.get_fdata(), whole.get_fdata()[..., 2], atol=1e-3)


def test_all_volumes_have_one_range_of_intensities(fmri, run_here, tiny_overrides, tmp_path):
    seen = []
    real = ScalePercentilesd.__call__

    def watched(self, data):
        out = real(self, data)
        seen.append(out["image"].meta["intensities"])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScalePercentilesd, "__call__", watched)
        run_here("inference", [INFERENCE], tiny_overrides(fmri))
    looked_at, used = seen[:4], seen[4:]
    assert len(set(looked_at)) == 4 and set(used) == {widest(looked_at)}


def test_all_volumes_have_one_grid_and_what_most_of_them_tell(run_here, tiny_overrides, tmp_path, monkeypatch):
    found = iter([4.0, 7.0, 2.2, 4.0, 7.0, 2.2])
    monkeypatch.setattr(as_acquired, "estimated_thickness", lambda *_: next(found))
    write_series(tmp_path / "bold.nii.gz", TIMES[:3])
    run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold.nii.gz", **{"operator#thickness": "estimate"}))
    case = tmp_path / "results" / "bold"
    assert nib.load(case / "bold_recon.nii.gz").shape == (20, 18, 24, 3)
    assert json.loads((case / "run.json").read_text())["acquired"]["thickness_estimated_mm"] == 4.0
    facts = [{"packages": 2, "a_mm": [1, 3.0]}, {"packages": 1, "a_mm": [2, 9.0]}, {"packages": 2}]
    assert in_common(facts) == {"packages": 2, "a_mm": [1.5, 6.0]}


def test_finished_is_a_series_of_which_the_same_volumes_are_done(fmri, run_here, tiny_overrides, tmp_path, capfd):
    for times, said in ((":2", ""), (":2", "1 of 1 volumes are finished"), ("1:", "other volumes of its series"),
                        (3, "other volumes of its series"), (3, "1 of 1 volumes are finished")):  # fmt: skip
        run_here("inference", [INFERENCE], tiny_overrides(fmri, times=times, skip_finished=True))
        assert said in capfd.readouterr().err
    assert nib.load(tmp_path / "results" / "bold" / "bold_recon.nii.gz").shape == (20, 18, 24)


@pytest.mark.parametrize("option", ["resume", "skip_finished"])
def test_a_run_that_stopped_goes_on_with_the_volume_it_stopped_at(
    option, fmri, run_here, tiny_overrides, tmp_path, monkeypatch
):
    settings, real = tiny_overrides(fmri, num_draws=2, time_noise="own"), SaveResults.keep

    def stop(self, result, point, kept):
        if point.index == 2:
            raise KeyboardInterrupt
        real(self, result, point, kept)

    monkeypatch.setattr(SaveResults, "keep", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit, RuntimeError)):
        run_here("inference", [INFERENCE], settings)
    assert not (tmp_path / "results" / "bold").exists() and (tmp_path / "results" / FOLDER).is_dir()
    done = []

    def watched(self, result, point, kept):
        done.append(point.index)
        real(self, result, point, kept)

    monkeypatch.setattr(SaveResults, "keep", watched)
    run_here("inference", [INFERENCE], settings | {option: True})
    assert done == [2, 3] and not list((tmp_path / "results").glob(".*"))
    run_here("inference", [INFERENCE], settings | {"output_dir": str(tmp_path / "whole")})
    one, other = results(tmp_path / "results" / "bold"), results(tmp_path / "whole" / "bold")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[n].get_fdata(), other[n].get_fdata()) for n in one)


def test_what_was_done_with_other_settings_is_not_gone_on_with(fmri, run_here, tiny_overrides, tmp_path, monkeypatch):
    settings, real = tiny_overrides(fmri), case_folder.WriteCases.left
    run_here("inference", [INFERENCE], settings)
    asked = []
    monkeypatch.setattr(case_folder.WriteCases, "left", lambda *a: asked.append(found := real(*a)) or found)
    kept = next(iter((tmp_path / "results").glob("*")))
    shutil.rmtree(kept)
    run_here("inference", [INFERENCE], settings | {"resume": True, "seed": 1})
    assert [len(found) for found in asked] == [4]


def test_what_lies_beside_tells_what_was_done_from_what_will_be(fmri, tmp_path):
    """A mask that was drawn anew, or another guide: the path alone is not what a result depends on."""
    (tmp_path / "masks").mkdir()
    mask = tmp_path / "masks" / "bold.nii.gz"
    folders = []
    for content in (None, b"one", b"another", None):
        if content is not None:
            mask.write_bytes(content)
        kept = KeptVolumes(tmp_path, beside=[str(tmp_path / "masks"), None])
        folders.append(kept.kept("bold", Series(str(fmri), 4, (0, 1, 2, 3))).folder)
    assert len(set(folders[:3])) == 3 and folders[2] == folders[3]


def test_a_volume_that_is_broken_is_named_before_the_work(tmp_path, run_here, tiny_overrides):
    voxels = thick_voxels()[..., None] * TIMES
    voxels[3, 4, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), THICK), tmp_path / "bold.nii.gz")
    with pytest.raises(RuntimeError) as error:
        run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold.nii.gz"))
    assert "volume 2 of 4: " in whole_message(error.value) and "1 voxel is NaN" in whole_message(error.value)


@pytest.mark.parametrize("beside", [False, True])
def test_a_volume_that_fails_ends_its_series_and_no_other_case(beside, tmp_path, run_here, tiny_overrides, monkeypatch):
    write_series(tmp_path / "scans" / "a.nii.gz")
    write_series(tmp_path / "scans" / "b.nii.gz", TIMES[:2])
    real = SaveResults.keep

    def fails(self, result, point, kept):
        if point.index == 1 and point.series.count == 4:
            raise OSError(28, "No space left on device")
        real(self, result, point, kept)

    monkeypatch.setattr(SaveResults, "keep", fails)
    with pytest.raises((RuntimeError, SystemExit)) as error:
        run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "scans", **{"write_cases#beside": beside}))
    said = whole_message(error.value)
    assert "1 of 2 volumes have no result" in said and "No space left" in said and "a.nii.gz: " in said
    assert beside or "a.nii.gz: volume 1 of 4: " in whole_message(error.value)
    assert [p.name for p in (tmp_path / "results").glob("[!.]*")] == ["b"]
    assert nib.load(tmp_path / "results" / "b" / "b_recon.nii.gz").shape == (20, 18, 24, 2)


@pytest.mark.parametrize("configs, ids, words", [
    ([INFERENCE], {"output_format": "dicom"}, "its 4 volumes become one 4-D NIfTI file, and no DICOM"),
    ([INFERENCE], {"times": 9}, "it holds 4 volumes, from 0 to 3, and --times names others"),
    ([INFERENCE, EVALUATE], {"region_dir": None, "displayable_configs#ratio": 2.0}, "and one is evaluated: --times 0"),
])  # fmt: skip
def test_what_a_series_cannot_be_is_refused(configs, ids, words, fmri, run_here, tiny_overrides):
    with pytest.raises(RuntimeError) as error:
        run_here("inference", configs, tiny_overrides(fmri, **ids))
    assert words in whole_message(error.value)


def test_one_volume_has_no_third_one(tmp_path, run_here, tiny_overrides):
    write_volume(tmp_path / "head.nii.gz", thick_voxels())
    with pytest.raises(RuntimeError) as error:
        run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "head.nii.gz", times=2))
    assert "it holds one volume, and --times names others" in whole_message(error.value)


def test_no_more_volumes_are_held_the_more_there_are(tmp_path, run_here, tiny_overrides, monkeypatch):
    real, alive, most = SaveResults.keep, weakref.WeakSet(), []

    def watched(self, result, point, kept):
        alive.update((result["pred"], result["image"]))
        gc.collect()
        most.append(len(alive))
        real(self, result, point, kept)

    monkeypatch.setattr(SaveResults, "keep", watched)
    write_series(tmp_path / "bold.nii.gz", np.linspace(1, 2, 7))
    run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold.nii.gz", num_steps=1))
    assert len(most) == 7 and max(most) <= 4  # of this one and the one before


def test_a_case_is_counted_once_whoever_writes_its_volumes(fmri, run_here, tiny_overrides, tmp_path, capfd):
    write_series(fmri.parent / "more.nii.gz", TIMES[:2])
    labels = np.zeros((20, 18, 6), np.uint8)
    labels[5:9, 5:9, 2:4] = 3
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(labels, THICK), tmp_path / "masks" / "bold.nii.gz")
    ids = {"write_cases#beside": True, "mask_dir": str(tmp_path / "masks")}
    run_here("inference", [INFERENCE], tiny_overrides(fmri.parent, **ids))
    assert "2 reconstructed, 0 finished before, 0 skipped, 0 failed" in capfd.readouterr().err
    mask = nib.load(tmp_path / "results" / "bold" / "bold_mask.nii.gz")
    assert mask.shape == (20, 18, 24) and set(np.unique(mask.dataobj)) == {0, 3}
    assert nib.load(tmp_path / "results" / "more" / "more_recon.nii.gz").shape == (20, 18, 24, 2)


# -- beside it ----------------------------------------------------------------------------------------------
def test_what_lies_beside_a_series_goes_along_with_the_chosen_volumes(fmri, run_here, tiny_overrides, tmp_path):
    (fmri.parent / "bold.bval").write_text("0 1000 1000 2000\n")
    (fmri.parent / "bold.bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    beside = {"Modality": "MR", "RepetitionTime": 2.5, "SliceThickness": 4, "SliceTiming": [0, 1, 2, 3, 4, 5]}
    (fmri.parent / "bold.json").write_text(json.dumps(beside))
    run_here("inference", [INFERENCE], tiny_overrides(fmri, times="1::2"))
    case = tmp_path / "results" / "bold"
    assert (case / "bold_recon.bval").read_text() == "1000 2000\n"
    assert (case / "bold_recon.bvec").read_text() == "1 0\n0 0\n0 1\n"
    assert json.loads((case / "bold_recon.json").read_text()) == {"Modality": "MR", "RepetitionTime": 5.0}
    header = nib.load(case / "bold_recon.nii.gz").header
    assert header["pixdim"][4] == 5.0 and header["toffset"] == 5.5
    assert {"bold_recon.bval", "bold_recon.bvec", "bold_recon.json"} <= set(
        json.loads((case / "run.json").read_text())["files"]
    )


def test_of_a_deidentified_series_no_text_goes_along(fmri, run_here, tiny_overrides, tmp_path):
    image = nib.load(fmri)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, fmri)
    (fmri.parent / "bold.bval").write_text("0 1000 1000 2000\n")
    (fmri.parent / "bold.json").write_text(json.dumps({"Modality": "MR", "PatientName": "Jane Doe"}))
    run_here("inference", [INFERENCE], tiny_overrides(fmri, times=":2", deidentify=True))
    (case,) = (tmp_path / "results").glob("[!.]*")
    assert {p.name for p in case.iterdir()} == {f"{case.name}_recon.nii.gz", f"{case.name}_recon.bval", "run.json"}
    recon = nib.load(case / f"{case.name}_recon.nii.gz")
    assert recon.shape == (20, 18, 24, 2) and b"Jane" not in recon.header.binaryblock
    assert "Jane" not in (case / "run.json").read_text() and str(tmp_path) not in (case / "run.json").read_text()


def test_a_table_of_another_series_is_left_aside(tmp_path):
    (tmp_path / "x.bval").write_text("0 1000\n")
    assert columns_of(tmp_path / "x.bval", Series("x.nii", 3, (0, 1, 2))) is None


def test_seeds_of_volumes_differ_and_are_those_of_their_number():
    class Volume:
        def __init__(self, index, chosen=(0, 1, 2)):
            self.meta = {"source": Source(time=TimePoint(Series("x", 3, chosen), index))}

    seeds = [seed_of(5, Volume(i)) for i in range(3)]
    assert seeds[0] == 5 and len(set(seeds)) == 3 and all(0 <= s < 2**63 for s in seeds)
    assert seed_of(5, Volume(2, (2,))) == seeds[2] and seed_of(6, Volume(2)) != seeds[2]
    assert seed_of(5, MetaTensor(torch.zeros(1))) == 5


def test_dicom_time_points_become_one_result(tmp_path, run_here, tiny_overrides):
    series = np.stack([VOXELS, VOXELS + 40, VOXELS + 80], -1)
    write_time_points(tmp_path / "bold", series, AFFINE)
    run_here("inference", [INFERENCE], tiny_overrides(tmp_path / "bold", times="0:2", noise_level=0.0))
    (recon,) = results(tmp_path / "results" / "bold").values()
    assert recon.shape == (20, 18, 24, 2) and recon.header["pixdim"][4] == 4.0
    assert recon.header.get_xyzt_units() == ("mm", "sec")
    means = recon.get_fdata().reshape(20, 18, 6, 4, 2).mean(3)
    assert np.abs(means - series[..., :2]).max() < 0.01 * series.max()
