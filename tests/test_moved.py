"""Names that overlays of version 0.4.0 use are found where they have moved to, and said to have moved."""

import json
import warnings
from pydoc import locate

import pytest
from monai.bundle import ConfigParser

import bundle

NAMES = [
    "dicom_input.LoadVolumed", "inputs.CheckVolumed", "inputs.CheckHounsfieldd", "inputs.one_scan",
    "inputs.case_name", "patches.RandSlicePatchesd", "training.KeepBest", "weights.load_weights",
    "attenuation.HounsfieldScale", "baselines.Interpolation", "baselines.LeastSquares",
    "baselines.LinearReconstruction", "baselines.TotalVariation", "data_consistency.ConjugateGradient",
    "data_consistency.NullSpace", "data_consistency.Proximal", "data_consistency.TotalVariationProximal",
    "data_consistency.Unconditional", "inferers.DiffusionInverseInferer", "inferers.ForegroundInferer",
    "intensity.ScalePercentilesd", "kspace.LoadKspaced", "markov_noise.MaternNoise",
    "markov_noise.OrnsteinUhlenbeckNoise", "network.SliceUNet", "noise_choice.named_noise", "noise_length.AutoLength",
    "posterior_steps.GaussianPosterior", "posterior_steps.NoisyNullSpace", "posterior_steps.PosteriorGradient",
    "posterior_steps.SliceTotalVariation", "posterior_steps.Variational", "projections.LoadProjectionsd",
    "trajectory.Trajectory", "trajectory_output.WriteTrajectory", "adapters.FieldRandn",
    "dicom_output.save_series", "diffusion.renoise", "evidence.SplitEvidenced", "html_report.write_page",
    "linear_solvers.conjugate_gradient", "metrics.calibration", "outputs.Restored", "outputs.write_nifti",
    "run_record.RunRecord", "save_results.SaveResults", "step.Step", "total_variation.minimise_total_variation",
    "variance_exploding.FromVarianceExploding",
]  # fmt: skip
STAYED = [
    "noise.SlerpNoise",
    "noise.MixedNoise",
    "prior.SlicePrior",
    "prior.OdePrior",
    "operators.Tomography",
    "operators.SparseRadon",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_moved_is_found(name):
    with pytest.warns(FutureWarning, match=f"bundle.{name.split('.')[0]} is in bundle"):
        found = locate(f"bundle.{name}")
    assert found.__name__ == name.split(".")[1] and found.__module__.startswith("bundle.")


def test_every_old_module_is_tried_and_none_is_in_the_way():
    assert {name.split(".")[0] for name in NAMES} == bundle.MOVED.keys()
    with pytest.raises(AttributeError, match="no attribute 'elsewhere'"):
        bundle.elsewhere  # noqa: B018


@pytest.mark.parametrize("name", STAYED)
def test_a_name_that_stayed_is_found_without_a_word(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert locate(f"bundle.{name}").__name__ == name.split(".")[1]


def test_an_overlay_of_version_0_4_is_read(tmp_path):
    overlay = {
        "noise_field": {"_target_": "bundle.markov_noise.MaternNoise", "length": 7.0},
        "data_consistency": {"_target_": "bundle.data_consistency.ConjugateGradient", "rho": 0.01},
        "operator": {"_target_": "bundle.operators.ThroughPlaneSampling", "gap": 1.0},
    }
    (tmp_path / "overlay.json").write_text(json.dumps(overlay))
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "overlay.json"))
    with pytest.warns(FutureWarning):
        field, step, scanner = (parser.get_parsed_content(name) for name in overlay)
    assert repr(field) == "MaternNoise(length=7.0)" and (step.iterations, scanner.gap) == (5, 1.0)
