"""Whole runs that make one result of several files of a patient."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.files import save_results
from interslice.files.unfinished import FOLDER
from interslice.physics.stacks import LoadStacksd
from interslice.physics.stacks.grid import common_grid
from tests.files.test_nameless import contents
from tests.physics.stacks.volumes import thick, write_stack
from tests.support.dicom_files import write_localiser, write_series
from tests.support.scans import INFERENCE, cut_short, whole_message

CONFIGS = [INFERENCE, "configs/task_stacks.json"]
PLANES = ("ax", "cor", "sag")


@pytest.fixture
def patient(tmp_path):
    for plane in PLANES:
        write_stack(tmp_path / f"Quuxley/sub-01_acq-{plane}_T2w.nii.gz", plane)
    return tmp_path / "Quuxley"


@pytest.fixture
def settings(tiny_overrides):
    """Of a quick run that takes the headers' word for where the stacks lie."""
    quick = {"num_steps": 1, "baselines#total_variation#iterations": 5, "rounds": 0, "outliers": False, "even": False}
    return lambda source, **others: tiny_overrides(source, **quick) | others


def record(folder, case):
    return json.loads((folder / "results" / case / "run.json").read_text(encoding="utf-8"))


def cases(folder):
    return sorted(p.name for p in (folder / "results").iterdir())


def test_three_files_become_one_result_on_the_grid_of_the_reference(patient, run_here, settings, tmp_path):
    run_here("inference", CONFIGS, settings(patient, reference="cor"))
    assert cases(tmp_path) == ["sub-01_T2w"]
    result = nib.load(tmp_path / "results/sub-01_T2w/sub-01_T2w_recon.nii.gz")
    assert result.shape == (24, 24, 24)
    assert np.allclose(result.affine, np.eye(4), atol=1e-6)
    told = record(tmp_path, "sub-01_T2w")
    assert [(s["name"], s["plane"], s["slices"], s["thickness_mm"]) for s in told["stacks"]] == [
        ("sub-01_acq-cor_T2w.nii.gz", "coronal", 6, 4.0), ("sub-01_acq-ax_T2w.nii.gz", "axial", 6, 4.0),
        ("sub-01_acq-sag_T2w.nii.gz", "sagittal", 6, 4.0),
    ]  # fmt: skip
    assert [s["file"] for s in told["stacks"]] == [str(patient / s["name"]) for s in told["stacks"]]
    assert told["combine"] == "auto" and told["stacks_left_out"] == {} and told["doubts"] == []
    assert told["relative_residual"] < 0.2


def test_the_rule_decides_how_many_results_there_are(patient, run_here, settings, tmp_path):
    run_here("inference", CONFIGS, settings(patient, combine="none", num_draws=1))
    assert cases(tmp_path) == [f"sub-01_acq-{plane}_T2w" for plane in PLANES]
    assert len(record(tmp_path, "sub-01_acq-ax_T2w")["stacks"]) == 1


def test_what_is_left_out_is_in_the_record_and_on_the_page(patient, run_here, settings, tmp_path, capfd):
    cut_short(write_stack(patient / "sub-01_acq-bad_T2w.nii.gz", seed=7))
    write_stack(patient / "sub-01_acq-copy_T2w.nii.gz")
    run_here("inference", CONFIGS, settings(patient, report=True))
    told = record(tmp_path, "sub-01_T2w")
    left_out = told["stacks_left_out"]
    assert list(left_out) == ["sub-01_acq-bad_T2w.nii.gz", "sub-01_acq-copy_T2w.nii.gz"]
    assert told["doubts"] == [f"{name} is left out: {why}" for name, why in left_out.items()]
    page = (tmp_path / "results/sub-01_T2w/report.html").read_text(encoding="utf-8")
    assert "sub-01_acq-copy_T2w.nii.gz is left out: the same voxels as sub-01_acq-ax_T2w.nii.gz" in page
    assert "<caption>Stacks</caption>" in page and "coronal" in page
    assert "sub-01_acq-bad_T2w.nii.gz is left out" in capfd.readouterr().err


def test_a_mask_belongs_to_the_case_and_comes_out_on_its_grid(patient, run_here, settings, tmp_path, capfd):
    labels, affine = thick("cor")
    labels = (labels > np.median(labels)).astype(np.uint8)
    masks = tmp_path / "masks"
    masks.mkdir()
    nib.save(nib.Nifti1Image(labels, affine), masks / "sub-01_T2w.nii.gz")
    run_here("inference", CONFIGS, settings(patient, mask_dir=str(masks)))
    case = tmp_path / "results/sub-01_T2w"
    mask, recon = nib.load(case / "sub-01_T2w_mask.nii.gz"), nib.load(case / "sub-01_T2w_recon.nii.gz")
    assert mask.shape == recon.shape and set(np.unique(mask.dataobj)) == {0, 1}
    assert "another grid" not in capfd.readouterr().err


def test_a_group_that_makes_no_volume_does_not_end_the_others(patient, run_here, settings, tmp_path, capfd):
    for n, plane in enumerate(("cor", "sag")):
        write_stack(patient / f"sub-02_acq-{plane}_T2w.nii.gz", plane, shift=(100 * n, 0, 0), seed=5)
    with pytest.raises((RuntimeError, SystemExit)):
        run_here("inference", CONFIGS, settings(patient))
    assert cases(tmp_path) == ["sub-01_T2w"]
    assert "sub-02_acq-cor_T2w.nii.gz has no place in common with sub-02_acq-sag_T2w" in capfd.readouterr().err


def test_finished_cases_are_told_by_all_of_their_scans(patient, run_here, settings, tmp_path, capfd):
    run_here("inference", CONFIGS, settings(patient))
    again = settings(patient, skip_finished=True)
    run_here("inference", CONFIGS, again)
    assert "1 of 1 volumes are finished" in capfd.readouterr().err
    write_stack(patient / "sub-01_acq-sag_T2w.nii.gz", "sag", seed=8)  # another scan of the same name
    run_here("inference", CONFIGS, again)
    assert "has changed: its results" in capfd.readouterr().err
    (patient / "sub-01_acq-sag_T2w.nii.gz").unlink()
    run_here("inference", CONFIGS, again)
    assert "has changed: its results" in capfd.readouterr().err
    assert len(record(tmp_path, "sub-01_T2w")["stacks"]) == 2


def test_what_was_sampled_is_taken_up(patient, run_here, settings, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    given = settings(patient, save_minutes=0, num_draws=2)
    with monkeypatch.context() as broken:
        broken.setattr(save_results, "write_nifti", full)
        with pytest.raises((RuntimeError, SystemExit)):
            run_here("inference", CONFIGS, given)
    assert len(list((tmp_path / "results" / FOLDER).glob("*.pt"))) == 1
    run_here("inference", CONFIGS, given | {"resume": True})
    assert record(tmp_path, "sub-01_T2w")["resumed_after"] == 2


def test_a_reader_takes_paths_and_lists_of_them(patient, tmp_path):
    read = LoadStacksd("image")
    paths = sorted(map(str, patient.iterdir()))
    whole, listed, one = (read({"image": data})["image"] for data in (str(patient), paths, paths[1]))
    assert [s.name for s in whole.meta["stacks"]] == [s.name for s in listed.meta["stacks"]]
    assert whole.shape == (1, 3 * 24 * 24 * 6) and one.shape == (1, 24 * 24 * 6)


def test_the_measurement_is_the_voxels_of_all_slices(patient):
    y = LoadStacksd("image")({"image": str(patient), "case": "x"})["image"]
    stacks = y.meta["stacks"]
    assert [s.name[11:14] for s in stacks] == ["ax_", "cor", "sag"]
    assert torch.equal(y.as_tensor()[0], torch.cat([s.slices.flatten() for s in stacks]))
    assert np.array_equal(stacks[1].voxels.numpy(), thick("cor")[0])
    shape, affine = common_grid(stacks)
    assert shape == (24, 24, 24) and torch.equal(affine, y.affine)
    assert y.meta["case"] == "x" and len(y.meta["source"].group.members) == 3


@pytest.mark.parametrize("empty", ["no/such.nii", "folder"])
def test_nothing_to_read_is_refused(tmp_path, empty):
    (tmp_path / "folder").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=empty.split("/")[-1]):
        LoadStacksd("image")({"image": str(tmp_path / empty)})


def dicom(folder, planes=("ax", "cor")):
    """A disc of one patient: a folder for each series."""
    for n, plane in enumerate(planes, 3):
        voxels, affine = thick(plane)
        voxels, affine = np.moveaxis(voxels, {"ax": 2, "cor": 1}[plane], 2), affine.copy()
        if plane == "cor":  # columns, rows and slices are right-handed in DICOM, in the order x, z, -y
            affine = affine[:, [0, 2, 1, 3]]
            voxels, affine[:, 3] = voxels[:, :, ::-1], affine[:, 3] + affine[:, 2] * (voxels.shape[2] - 1)
            affine[:, 2] *= -1
        write_series(folder / plane, np.rint(voxels).clip(0).astype(int), affine, number=n, description=f"t2_{plane}")
    return folder


def test_the_series_of_a_disc_become_one_result(run_here, settings, tmp_path):
    run_here("inference", CONFIGS, settings(dicom(tmp_path / "Quuxley"), output_format="both"))
    assert cases(tmp_path) == ["Quuxley_T2w"]
    told = record(tmp_path, "Quuxley_T2w")
    assert [(s["name"], s["plane"], s["contrast"]) for s in told["stacks"]] == [
        ("series 3 't2_ax'", "axial", "T2w"), ("series 4 't2_cor'", "coronal", "T2w")
    ]  # fmt: skip
    assert told["relative_residual"] < 0.2
    assert len(list((tmp_path / "results/Quuxley_T2w/Quuxley_T2w_recon").iterdir())) == 24


def test_a_series_that_is_not_whole_is_left_out_and_recorded(run_here, settings, tmp_path):
    disc = dicom(tmp_path / "jane")
    (missing,) = (disc / "cor").glob("4_014.dcm")  # the third of six
    missing.unlink()
    run_here("inference", CONFIGS, settings(disc))
    left_out = record(tmp_path, "jane_T2w")["stacks_left_out"]
    assert list(left_out) == ["series 4 't2_cor'"] and "missing" in left_out["series 4 't2_cor'"]
    run_here("inference", CONFIGS, settings(disc, deidentify=True))
    (case,) = (name for name in cases(tmp_path) if name.startswith("case_"))
    assert record(tmp_path, case)["stacks_left_out"] == {
        "stack 2": "no whole scan: slices are missing, share a place, or do not lie on a line"
    }


def test_a_disc_of_localisers_is_refused_with_what_it_holds(run_here, settings, tmp_path):
    write_localiser(tmp_path / "disc")
    with pytest.raises((RuntimeError, ValueError)) as refused:
        run_here("inference", CONFIGS, settings(tmp_path / "disc"))
    assert "loc0.dcm" in whole_message(refused.value)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_no_name_of_a_patient_is_left_behind(kind, patient, run_here, settings, tmp_path):
    if kind == "dicom":
        dicom(patient / "disc_Quuxley")
        source = patient / "disc_Quuxley"
    else:
        source = patient
        for plane in PLANES:  # and a suffix that is no contrast's
            path = patient / f"sub-01_acq-{plane}_T2w.nii.gz"
            path.rename(patient / f"sub-Quuxley_acq-{plane}_Quuxley.nii.gz")
        cut_short(write_stack(patient / "sub-Quuxley_acq-bad_Quuxley.nii.gz", seed=7))
    run_here("inference", CONFIGS, settings(source, deidentify=True, report=True, output_format="both"))
    (case,) = cases(tmp_path)
    assert case.startswith("case_")
    assert [s["name"] for s in record(tmp_path, case)["stacks"]][0] == "stack 1"
    for name, content in contents(tmp_path / "results").items():
        for said in (b"Quuxley", b"Jane", str(tmp_path).encode(), b"1.2.3.5"):
            assert said not in name.encode() + content, name
