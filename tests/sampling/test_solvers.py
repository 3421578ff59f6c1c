"""Every solver overlay end to end, for every kind of measurement; what a step costs; the examples of the docs."""

import json
import math
import re
import sys
import types

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

import interslice.sampling
from interslice.prior.diffusion import X0_FROM
from interslice.prior.variance_exploding import FromVarianceExploding
from interslice.sampling.data_consistency import NullSpace
from interslice.sampling.posterior_steps import PosteriorGradient
from tests.physics.ct.test_task import measure
from tests.support.gaussian_models import AffineNetwork, Gaussian, case, exact_sampler
from tests.support.helpers import sampled
from tests.support.scans import EVALUATE, INFERENCE, ROOT, head_voxels, write_volume

DATA_STEPS = {
    "solver_daps": "GaussianPosterior",
    "solver_ddnm": "NullSpace",
    "solver_ddnm_plus": "NoisyNullSpace",
    "solver_dds": "Proximal",
    "solver_diffpir": "Proximal",
    "solver_dps": "PosteriorGradient",
    "solver_mbir": "SliceTotalVariation",
    "solver_planes": "Proximal",
    "solver_red_diff": "Variational",
    "solver_unconditional": "Unconditional",
}
SOLVERS = sorted(path.stem for path in (ROOT / "configs").glob("solver_*.json"))
every_solver = pytest.mark.parametrize("solver", SOLVERS)
PAGE = (ROOT / "docs/reference/solvers.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def configs(task, *overlays):
    tasks = {"mri": [], "ct": ["configs/task_svct.json"], "k-space": ["configs/task_csmri.json", EVALUATE]}
    return [INFERENCE, *tasks[task], *[f"configs/{name}.json" for name in overlays]]


@pytest.fixture
def reconstruct(run_here, tiny_overrides, thick_file, tmp_path):
    """Reconstructs a tiny scan of a task with some overlays in two steps; returns (voxels, run.json)."""

    def run(task, *overlays, **others):
        output, quick = tmp_path / "-".join([task, *overlays]), {}
        if task == "mri":
            source = thick_file
        elif task == "ct":
            source = measure(output / "projections", "parallel")
            quick = {"baselines#total_variation#iterations": 20, "finish": None}
        else:
            source = write_volume(output / "truth" / "head.nii.gz", head_voxels((20, 18, 8)))
            quick = {
                "baselines#total_variation#iterations": 10,
                "postprocessing#transforms": "$[@restore]",
            }  # no metrics
        settings = tiny_overrides(source, output_dir=str(output / "results"), **(quick | others))
        run_here("inference", configs(task, *overlays), settings)
        (record,) = (output / "results").glob("*/run.json")
        (recon,) = (output / "results").glob("*/*_recon.nii.gz")
        return nib.load(recon).get_fdata(), json.loads(record.read_text(encoding="utf-8"))

    return run


@pytest.fixture(scope="module")
def misfits():
    """Task -> relative residual of a sample that never saw the data, once there is one."""
    return {}


def test_every_overlay_is_here_with_its_data_step():
    assert list(DATA_STEPS) == SOLVERS


@every_solver
@pytest.mark.parametrize("task", ["mri", "ct", "k-space"])
def test_a_solver_reconstructs_and_knows_the_data(task, solver, reconstruct, misfits):
    voxels, record = reconstruct(task, solver)
    assert np.isfinite(voxels).all() and voxels.std() > 0
    assert record["settings"]["data_consistency"].split("(")[0] == DATA_STEPS[solver]
    overlay = json.loads((ROOT / f"configs/{solver}.json").read_text(encoding="utf-8"))
    for name in overlay.keys() & {"eta", "sigma_rule", "slice_axis", "eps_after_data"}:
        assert record["settings"][name] == overlay[name]
    if solver == "solver_unconditional":
        assert record["relative_residual"] > 0.1
        return
    if task not in misfits:
        misfits[task] = reconstruct(task, "solver_unconditional")[1]["relative_residual"]
    assert record["relative_residual"] < 0.1 * misfits[task]


@pytest.mark.parametrize(
    ("solver", "passes"), [("solver_ddnm", 1), ("solver_dps", 2), ("solver_daps", 3), ("solver_red_diff", 1)]
)
def test_the_network_passes_of_a_step(solver, passes, reconstruct):
    """DPS denoises and goes through the network once more for the gradient; DAPS follows the ODE in three steps."""
    steps, batches = 2, 3  # twenty slices, eight at a time
    assert reconstruct("mri", solver, slice_axis=0)[1]["network_calls"] == steps * batches * passes


def test_dps_keeps_the_activations_of_one_batch_and_only_for_its_second_pass():
    """Of the forward passes, one in two records a graph: with its way back, about three passes in place of one."""
    operator, _, y = case(closed_form=True)
    modes = {}
    for consistency in (NullSpace(), PosteriorGradient()):
        network = AffineNetwork(Gaussian())
        inferer = exact_sampler(consistency, num_steps=5)  # four slices in batches of three
        sampled(inferer, y, operator, network)
        assert inferer.prior.calls == len(network.calls) and {size for size, _ in network.calls} == {3, 1}
        modes[type(consistency).__name__] = [graph for _, graph in network.calls]
    assert modes["NullSpace"] == [False, False] * 5
    assert modes["PosteriorGradient"] == [False, False, True, True] * 5


# -- the examples of the documentation --------------------------------------------------------------------


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


def test_the_page_has_a_row_for_every_overlay():
    rows = re.findall(r"^\| `(solver_\w+)` \| [^|]+ \| `(\w+)`", PAGE, flags=re.MULTILINE)
    assert dict(rows) == DATA_STEPS
    for name in re.findall(r"configs/\w+\.json", PAGE):
        assert (ROOT / name).exists()


def test_solver_task_and_noise_go_together(reconstruct):
    """The command of the page."""
    _, record = reconstruct("ct", "solver_diffpir", noise="ou")
    assert record["settings"]["data_consistency"].startswith("Proximal(")
    assert record["noise"].startswith("OrnsteinUhlenbeckNoise")


def test_the_prediction_is_set_by_its_id(reconstruct):
    by_name = {name: reconstruct("mri", "solver_ddnm", **{"prior#prediction": name})[0] for name in X0_FROM}
    for name in ("v_prediction", "sample"):
        assert np.abs(by_name[name] - by_name["epsilon"]).max() > 0.1 * by_name["epsilon"].std()


@pytest.mark.slow
def test_the_overlay_for_a_variance_exploding_network_runs(
    run_here, tiny_overrides, tiny_weights, thick_file, tmp_path
):
    (overlay,) = blocks(PAGE, "json")
    path = tmp_path / "variance_exploding.json"
    path.write_text(overlay, encoding="utf-8")
    run_here("inference", [*configs("mri", "solver_dps"), str(path)], tiny_overrides(thick_file))
    (recon,) = (tmp_path / "results").glob("*/*_recon.nii.gz")
    parser = ConfigParser()
    parser.read_config([INFERENCE, str(path)])
    parser.update({"checkpoint": str(tiny_weights), "device": "cpu"})
    network = parser.get_parsed_content("network")
    assert isinstance(network, FromVarianceExploding) and network.output == "denoised"
    assert network.condition(torch.tensor(math.e**4)) == 1
    assert np.isfinite(nib.load(recon).get_fdata()).all()


@pytest.fixture
def landweber(monkeypatch):
    """The example of CONTRIBUTING.md, as the module that the page calls it."""
    section = CONTRIBUTING[CONTRIBUTING.index("## Add a solver") : CONTRIBUTING.index("## What a good change")]
    module = types.ModuleType("interslice.sampling.landweber")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(interslice.sampling, "landweber", module, raising=False)
    code, test = blocks(section, "python")
    exec(code, vars(module))
    (overlay,) = blocks(section, "json")
    return types.SimpleNamespace(module=module, test=test, overlay=overlay)


def test_the_test_of_the_example_passes(landweber):
    names = {}
    exec(landweber.test, names)
    names[re.search(r"def (\w+)", landweber.test)[1]]()
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        landweber.module.Landweber(0)


def test_the_overlay_of_the_example_runs(landweber, run_here, tiny_overrides, thick_file, tmp_path):
    path = tmp_path / "solver_landweber.json"
    path.write_text(landweber.overlay, encoding="utf-8")
    run_here("inference", [INFERENCE, str(path)], tiny_overrides(thick_file))
    (record,) = (tmp_path / "results").glob("*/run.json")
    record = json.loads(record.read_text(encoding="utf-8"))
    assert record["settings"]["data_consistency"].startswith("Landweber") and record["relative_residual"] < 0.1
