"""The spread of the draws and the prior's part: what they are, and how they are written beside the result."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.findings import findings_of
from interslice.noise.field import IndependentNoise
from interslice.physics import LinearOperator, Measured, operator_of
from interslice.physics.evidence import SplitEvidenced, measured_part
from interslice.physics.thick import ThroughPlaneSampling
from interslice.report.metrics import calibration
from interslice.sampling.foreground import ForegroundInferer
from interslice.sampling.state import welford
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, repeatable, sampled, sampler, scan
from tests.support.scans import EVALUATE, INFERENCE, chest_voxels, head_voxels, write_volume

NETWORK = BlurringDenoiser(alpha_bars())


# -- the spread -----------------------------------------------------------------------------------
@repeatable
@given(count=st.integers(2, 9), seed=st.integers(0, 100), offset=st.floats(-1e3, 1e3))
def test_mean_and_spread_are_those_of_all_draws_at_once(count, seed, offset):
    draws = normal(count, 4, 3, 2, seed=seed, dtype=torch.float64) + offset
    mean, squares = None, None
    for i, draw in enumerate(draws.clone()):
        mean, squares = welford(i, draw, mean, squares)
    assert torch.allclose(mean, draws.mean(0))
    assert torch.allclose((squares / (count - 1)).sqrt(), draws.std(0), atol=1e-9)


def test_the_spread_is_that_of_the_single_draws():
    y = normal(8, 6, 3, seed=4)
    inferer = sampler(IndependentNoise(), num_draws=3, antithetic=False)
    result = inferer.reconstruct(measured(y), NETWORK)
    operator = operator_of(measured(y))
    draws = torch.stack([sampled(inferer, y, operator, NETWORK, draw=i) for i in range(3)])
    assert torch.allclose(result.as_tensor()[0], draws.mean(0), atol=1e-5)
    assert torch.allclose(findings_of(result).maps["std"][0], draws.std(0), atol=1e-5)
    assert not findings_of(sampler(IndependentNoise(), num_draws=1).reconstruct(measured(y), NETWORK)).maps


def test_outside_the_foreground_nothing_is_drawn():
    y = torch.full((16, 16, 4), -1.0)
    y[5:11, 4:9] = normal(6, 5, 4, seed=2)
    inner = sampler(IndependentNoise(), num_draws=2)
    inferer = ForegroundInferer(inner, threshold=-0.9, margin=1)
    result = inferer.reconstruct(measured(y), NETWORK)
    std = findings_of(result).maps["std"]
    assert std.shape == result.shape
    std = std[0]
    assert std[:3].abs().max() == 0 and std[:, 12:].abs().max() == 0 and (std[5:11, 4:9] > 0).any()


def test_coverage_of_draws_from_the_law_of_the_truth_is_nominal():
    draws, truth = normal(6, 40, 40, 30, seed=1, dtype=torch.float64), normal(40, 40, 30, seed=2, dtype=torch.float64)
    result = calibration(draws.mean(0), draws.std(0), truth, 6)
    for nominal, actual in zip(result["nominal"], result["coverage"], strict=True):
        assert actual == pytest.approx(nominal, abs=5 * math.sqrt(nominal * (1 - nominal) / truth.numel()))
    assert result["spread_rms"] == pytest.approx(result["error_rms"], rel=0.02)


def test_coverage_of_pairs_of_opposite_draws_is_nominal():
    half, truth = normal(3, 40, 40, 30, seed=1, dtype=torch.float64), normal(40, 40, 30, seed=2, dtype=torch.float64)
    for pairs in (1, 3):
        draws = torch.cat([half[:pairs], -half[:pairs]])
        std = (draws.square().sum(0) / len(draws)).sqrt()
        result = calibration(draws.mean(0), std, truth, len(draws), antithetic=True)
        for nominal, actual in zip(result["nominal"], result["coverage"], strict=True):
            assert actual == pytest.approx(nominal, abs=5 * math.sqrt(nominal * (1 - nominal) / truth.numel()))


def test_draws_that_are_too_sure_cover_less():
    draws, truth = normal(6, 20, 20, 20, seed=1), 3 * normal(20, 20, 20, seed=2)
    result = calibration(draws.mean(0), draws.std(0), truth, 6)
    assert all(actual < nominal for nominal, actual in zip(result["nominal"], result["coverage"], strict=True))


def test_voxels_without_spread_are_left_out_and_one_draw_has_none():
    std = torch.zeros(4, 4, 4)
    std[0] = 1
    truth = torch.full((4, 4, 4), 100.0)
    truth[0] = 0
    assert calibration(torch.zeros(4, 4, 4), std, truth, 2)["coverage"] == [1.0] * 5
    with pytest.raises(ValueError, match="raise num_draws"):
        calibration(torch.zeros(4, 4, 4), std, truth, 1)
    with pytest.raises(ValueError, match="two draws"):
        calibration(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4), truth, 2)


# -- the prior's part -----------------------------------------------------------------------------
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_the_prior_fills_in_what_the_measurement_does_not_see(gap):
    y = Measured("image", ThroughPlaneSampling(axis=2, gap=gap))({"image": scan(normal(4, 5, 6, seed=1))})["image"]
    operator = operator_of(y)
    x = normal(*operator.domain_shape, seed=3)
    result = scan(x, (1.0, 1.0, 1.0))
    data = {"pred": result, "image": y}
    filled = findings_of(SplitEvidenced("pred")(data)["pred"]).maps["filled"][0]
    assert filled.norm() > 0.3 * x.norm()
    assert operator.forward(filled).abs().max() < 1e-4  # invisible
    measured = x - filled
    other = filled + normal(*operator.domain_shape, seed=5)
    unseen = other - operator.pseudo_inverse(operator.forward(other))
    assert abs(float(((measured - operator.background) * unseen).sum())) < 1e-2  # and perpendicular to the rest


def test_without_a_closed_form_the_part_is_found_by_conjugate_gradients():
    operator = ThroughPlaneSampling(axis=2).for_measurement(scan(normal(4, 5, 6, seed=1)))
    x = normal(*operator.domain_shape, seed=3)
    iterated = LinearOperator.pseudo_inverse(operator, operator.forward(x), iterations=50, tolerance=1e-7)
    assert torch.allclose(iterated, measured_part(x, operator), atol=1e-4)


# -- written --------------------------------------------------------------------------------------
def volumes(folder):
    (case,) = folder.iterdir()
    return {p.name.removeprefix(f"{case.name}_").removesuffix(".nii.gz"): nib.load(p) for p in case.glob("*.nii.gz")}


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, 1.0, 1.0, 1.0])], ids=["straight", "flipped"])
def test_the_maps_of_a_scan_are_written_in_its_units(affine, run_here, tiny_overrides, tmp_path):
    thick = head_voxels((20, 18, 24)).reshape(20, 18, 6, 4).mean(3)
    file = write_volume(tmp_path / "scans" / "thick.nii.gz", thick, affine=affine @ np.diag([1.0, 1.0, 4.0, 1.0]))
    folder = tmp_path / "results"
    run_here("inference", INFERENCE, tiny_overrides(file, num_draws=3, start_fraction=0.2, evidence=True))
    held = volumes(folder)
    assert held.keys() == {"recon", "std", "filled", "measured"}
    for image in held.values():
        np.testing.assert_allclose(image.affine, held["recon"].affine)
    recon, std, filled, measured = (held[n].get_fdata() for n in ("recon", "std", "filled", "measured"))
    full = np.ptp(thick)
    np.testing.assert_allclose(measured + filled, recon, atol=1e-4 * full)
    # What the prior filled in has no mean over a thick slice; the rest is the scan, in the scanner's units.
    np.testing.assert_allclose(filled.reshape(20, 18, 6, 4).mean(3), 0, atol=1e-3 * full)
    np.testing.assert_allclose(measured.reshape(20, 18, 6, 4).mean(3), thick, atol=1e-3 * full)
    assert std.min() >= 0 and 1e-3 * full < std.max() < 2 * full


@pytest.mark.slow
def test_the_spread_of_three_runs_is_that_of_one_with_three_draws(run_here, tiny_overrides, thick_file, tmp_path):
    """Draw k of a run is not run k with another seed, but has the same law: the spreads agree on average.

    Of independent draws. That of pairs is right to first order alone (tests/sampling/test_antithetic.py).
    """
    run_here(
        "inference",
        INFERENCE,
        tiny_overrides(thick_file, num_draws=6, antithetic=False, slice_axis=0, output_dir=str(tmp_path / "six")),
    )
    std = volumes(tmp_path / "six")["std"].get_fdata()
    singles = []
    for seed in range(6):
        run_here(
            "inference",
            INFERENCE,
            tiny_overrides(thick_file, seed=seed, slice_axis=0, output_dir=str(tmp_path / f"{seed}")),
        )
        singles.append(volumes(tmp_path / f"{seed}")["recon"].get_fdata())
    assert np.sqrt((std**2).mean()) == pytest.approx(np.sqrt((np.std(singles, 0, ddof=1) ** 2).mean()), rel=0.05)


@pytest.mark.slow
def test_the_maps_of_a_ct_scan_are_written_in_hounsfield_units(run_here, tiny_overrides, tmp_path):
    file = write_volume(tmp_path / "truth" / "chest.nii.gz", chest_voxels((24, 24, 8)), spacing=(2.5, 2.5, 2.5))
    configs = [INFERENCE, "configs/task_svct.json", EVALUATE]
    quick = {"baselines#total_variation#iterations": 20, "finish#iterations": 5, "num_views": 8, "num_draws": 2}
    run_here("inference", configs, tiny_overrides(file, evidence=True, **quick))
    held = volumes(tmp_path / "results")
    recon, filled, measured = (held[n].get_fdata() for n in ("recon", "filled", "measured"))
    np.testing.assert_allclose(measured + filled, recon, atol=0.1)
    assert measured.mean() == pytest.approx(recon.mean(), abs=60)  # HU; the rays see the mean of each slice
    assert filled.std() > 5
    metrics = json.loads((tmp_path / "results" / "chest" / "metrics.json").read_text(encoding="utf-8"))
    spread = metrics["recon"]["calibration"]
    assert spread["num_draws"] == 2 and len(spread["coverage"]) == len(spread["nominal"])
