"""Predicting a scan from another one: geometry, comparison, registration."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.physics.thick import ThroughPlaneSampling
from interslice.usage import UsageError
from scripts.studies import real_pairs, shown_tables
from scripts.studies.bench import baseline_names
from scripts.studies.real_pairs import Unseen, compare, predict
from tests.support.scans import CHANNELS, GROUPS, ROOT, head_voxels, write_volume


def turned(degrees, shift):
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(degrees)), shift)


def smooth_head(places):
    """A smooth function of places (..., 3) in mm."""
    x, y, z = np.moveaxis(places, -1, 0)
    return np.sin(x / 9) + np.cos(y / 11 + 0.4) * np.sin(z / 8 + 1)


def on_grid(shape, affine, function):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return function(grid @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def study_of(shape, affine, pose, function):
    """What a scanner with slices of 4 mm measures of `function`, a map of the other study's world."""
    operator = ThroughPlaneSampling().for_scan(shape, tuple(np.linalg.norm(affine[:3, :3], axis=0)))
    fine = operator.domain_affine(torch.from_numpy(affine)).numpy()
    truth = on_grid(operator.domain_shape, pose @ fine, function)
    scan = operator.forward(torch.from_numpy(truth)).numpy()
    return Unseen(scan, affine, operator, np.ones(shape, bool), pose)


@pytest.mark.parametrize("pose", [np.eye(4), turned((8, -5, 11), (2.0, -3.0, 4.0))], ids=["in place", "turned"])
def test_a_scan_of_what_is_known_exactly_is_predicted(pose):
    study = study_of((24, 24, 6), np.diag([1.0, 1.0, 4.0, 1.0]), pose, smooth_head)
    affine = nib.affines.from_matvec(np.diag([1.0, 1.0, 1.0]), [-12.0, -12.0, -14.0])
    volume = on_grid((50, 50, 52), affine, smooth_head)
    predicted, known = predict(volume, affine, study)
    assert known.mean() > 0.8
    assert np.abs(predicted - study.scan)[known].max() < 0.01
    wrong = Unseen(study.scan, study.affine, study.operator, study.brain, pose @ turned((0, 0, 0), (0, 0, 2.0)))
    assert np.abs(predict(volume, affine, wrong)[0] - study.scan)[known].max() > 0.1


def test_what_the_reconstruction_does_not_hold_is_not_known():
    study = study_of((20, 20, 5), np.diag([1.0, 1.0, 4.0, 1.0]), np.eye(4), smooth_head)
    affine = nib.affines.from_matvec(np.eye(3), [5.0, 0.0, 2.6])
    predicted, known = predict(on_grid((30, 20, 9), affine, smooth_head), affine, study)
    # Slice k takes the voxels at 4 k - 1.5 ... 4 k + 1.5 mm; of the 9 from 2.6 to 10.6 mm those of slice 2 alone.
    expected = np.zeros((20, 20, 5), bool)
    expected[5:, :, 2] = True
    np.testing.assert_array_equal(known, expected | (known & False))
    away = nib.affines.from_matvec(np.eye(3), [500.0, 0.0, 0.0])
    with pytest.raises(UsageError, match="no place in common"):
        predict(np.zeros((5, 5, 5), np.float32), away, study)


def test_scale_and_offset_do_not_count():
    study = study_of((24, 24, 6), np.diag([1.0, 1.0, 4.0, 1.0]), np.eye(4), smooth_head)
    other = study.scan + np.random.default_rng(0).normal(0, 0.2, study.scan.shape)
    known = np.ones(study.scan.shape, bool)
    first, second = compare(other, known, study), compare(40 - 3 * other, known, study)
    assert first["nrmse"] == pytest.approx(second["nrmse"]) and second["correlation"] == -first["correlation"]
    assert first["nrmse"] ** 2 == pytest.approx(1 - first["correlation"] ** 2, rel=1e-3)
    with pytest.raises(UsageError, match="0 voxels of brain are in both"):
        compare(other, ~known, study)


@pytest.mark.slow
def test_a_turn_of_the_head_is_found():
    from interslice.physics.mutual_information import register

    voxels = head_voxels((80, 72, 80))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-80, -70, -75]
    pose = turned((6, -4, 5), (5.0, -3.0, 8.0))
    fixed = nib.Nifti1Image(voxels, affine)
    inverted = np.where(voxels > 50, 1200 - voxels, voxels).astype(np.float32)
    moving = nib.Nifti1Image(inverted, pose @ affine)  # the same voxels elsewhere, another contrast
    found, information = register(fixed, moving)
    places = np.array([[x, y, z, 1] for x in (-50, 50) for y in (-50, 50) for z in (-50, 50)]).T
    assert np.linalg.norm((found @ places - pose @ places)[:3], axis=0).max() < 0.5
    assert information > 0.5


@pytest.mark.slow
def test_the_study_runs_both_ways(monkeypatch, tmp_path, tiny_weights):
    monkeypatch.chdir(ROOT)
    names = [f"{n}.nii.gz" for n in (1, 2)]
    fine = head_voxels((48, 48, 48))
    for name, step in zip(names, (4, 3)):
        thick = fine.reshape(48, 48, 48 // step, step).mean(3)
        affine = nib.affines.from_matvec(np.diag([1.0, 1.0, step]), [0, 0, (step - 1) / 2])
        write_volume(tmp_path / "data" / name, thick, affine=affine)
    monkeypatch.setattr(real_pairs, "PAIRS", {"a_T1": names})
    monkeypatch.setattr(real_pairs, "FEWEST", 10)
    monkeypatch.setattr(real_pairs, "register", lambda *_: (np.eye(4), 1.0))
    tiny = {"network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS}
    output = tmp_path / "docs/pairs.json"
    words = ["--data_dir", str(tmp_path / "data"), "--work_dir", str(tmp_path / "work"), "--output", str(output)]
    real_pairs.main([*words, "--pairs", "a_T1", "--priors", f"small={tiny_weights}", "--noises", "own", "independent",
                     "--ids", "num_steps=2", "num_draws=1"], **tiny)  # fmt: skip
    record = json.loads(output.read_text())
    assert record["results"]["a_T1"].keys() == {"1 to 2", "2 to 1"}
    found = record["results"]["a_T1"]["1 to 2"]
    assert found["cubic_consistent"]["none"]["nrmse"] < found["input"]["none"]["nrmse"] < 1
    assert len(shown_tables.real_text(record).splitlines()) == 2 + 2 + len(baseline_names()) + 2
    with pytest.raises(UsageError, match=r"does not hold 1\.nii\.gz, 2\.nii\.gz"):
        real_pairs.main(["--data_dir", str(tmp_path), "--pairs", "a_T1", "--output", str(output)])
