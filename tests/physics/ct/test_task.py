"""The CT tasks end to end on tiny volumes: every task, geometry and way of calling that is shipped."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from interslice.physics.ct import Tomography
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.geometry import BEAMS
from interslice.physics.ct.read import read_projections
from tests.support.scans import EVALUATE, INFERENCE, ROOT, TRAIN, chest_voxels, write_volume
from tests.test_configs import TRAINED_HERE

SHAPE = (24, 24, 8)
AFFINE = np.array([[-2.5, 0, 0, 40], [0, 2.5, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])  # right to left
TASK = "configs/task_svct.json"
VIEWS = {"few": {}, "limited arc": {"num_views": 100, "arc": 100.0}}
QUICK = {"baselines#total_variation#iterations": 20, "finish#iterations": 5}


@pytest.fixture
def chest(tmp_path):
    return write_volume(tmp_path / "truth" / "chest.nii.gz", chest_voxels(SHAPE), affine=AFFINE)


def measure(folder, beam, values=None):
    """Projections of a tiny chest as a file with its geometry."""
    volume = torch.from_numpy(chest_voxels(SHAPE))
    image = MetaTensor(volume[None], affine=torch.diag(torch.tensor([2.5, 2.5, 2.5, 1.0])))
    operator = Tomography(beam=beam, num_views=12).for_volume(image)
    projections = operator.forward(HounsfieldScale().attenuation(volume)).numpy()
    folder.mkdir(parents=True)
    np.savez(folder / "scan.npz", projections=projections if values is None else values(projections))
    grid = {"shape": SHAPE, "spacing": [2.5] * 3}
    fields = json.loads(operator.geometry.to_json()) | {"grid": grid}
    (folder / "scan.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


@pytest.mark.parametrize("order", ["task first", "evaluation first"])
def test_the_order_of_task_and_evaluation_does_not_matter(order):
    parser = ConfigParser()
    task = ["configs/task_svct.json", EVALUATE]
    parser.read_config([INFERENCE, *(task if order == "task first" else task[::-1])])
    names = [type(t).__name__ for t in parser.get_parsed_content("preprocessing").transforms]
    wanted = ["CheckHounsfieldd", "SimulateProjectionsd", "Measured", "CheckOutputd", "ScaleProjectionsd", "WeighRaysd"]
    names = [name for name in names if name not in ("CarryMaskd", "Guided", "AsAcquiredd")]
    assert names[-7:] == [*wanted, "CheckMemoryd"]
    assert parser.get_parsed_content("dataset_dir") == "./sample_data/ct/truth"


@pytest.mark.slow
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("views", VIEWS)
def test_a_simulated_scan_is_reconstructed_where_the_volume_was(views, beam, run_here, tiny_overrides, chest, tmp_path):
    overrides = tiny_overrides(chest, photons=1e5, beam=beam, **VIEWS[views], **QUICK)
    run_here("inference", [INFERENCE, TASK, EVALUATE], overrides)
    case = tmp_path / "results" / "chest"
    recon = nib.load(case / "chest_recon.nii.gz")
    np.testing.assert_allclose(recon.affine, AFFINE, atol=1e-4)
    assert recon.shape == SHAPE
    truth = chest_voxels(SHAPE)
    assert np.corrcoef(recon.get_fdata().ravel(), truth.ravel())[0, 1] > 0.5  # in place, not mirrored
    metrics = json.loads((case / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics) == ["input", "least_squares", "total_variation", "recon"]
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert beam in record["scan"] and record["scan"].startswith(f"{VIEWS[views].get('num_views', 30)} ")
    assert 0 <= record["relative_residual"] < 1
    assert record["settings"]["photons"] == 1e5
    assert record["settings"]["finish"].startswith("TotalVariationProximal(rho='auto', ")


@pytest.mark.slow
@pytest.mark.parametrize("beam", BEAMS)
def test_measured_projections_bring_their_own_geometry(beam, run_here, tiny_overrides, tmp_path):
    """The task says parallel; the file knows better. With the data step alone the result is near the truth in HU."""
    overrides = tiny_overrides(measure(tmp_path / "scans", beam), start_fraction=0.001, num_steps=1, **QUICK)
    overrides |= {"data_consistency#iterations": 60, "data_consistency#rho": 1e-6, "finish": None}
    run_here("inference", [INFERENCE, TASK], overrides)
    case = tmp_path / "results" / "scan"
    recon = nib.load(case / "scan_recon.nii.gz").get_fdata()
    truth = chest_voxels(SHAPE)
    assert np.sqrt(np.square(recon - truth).mean()) < 0.5 * truth.std()
    assert beam in json.loads((case / "run.json").read_text(encoding="utf-8"))["scan"]


def test_the_embedded_projections_are_those_of_the_embedded_chest():
    scan = read_projections(ROOT / "sample_data/ct/measured/lidc_idri_0001_30views.npz")
    operator = Tomography().for_measurement(scan)
    image = nib.load(ROOT / "sample_data/ct/truth/lidc_idri_0001.nii.gz")
    truth = torch.from_numpy(image.get_fdata(dtype=np.float32))
    expected = operator.forward(HounsfieldScale().attenuation(truth))
    np.testing.assert_allclose(operator.domain_affine(), image.affine, atol=1e-3)
    spread = torch.sqrt(torch.exp(expected) / 1e5)  # of -log of a Poisson count
    z = (scan.as_tensor()[0] - expected) / spread
    assert abs(float(z.mean())) < 0.02 and 0.97 < float(z.std()) < 1.03


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [("not HU", "are not Hounsfield units"), ("NaN", "values are NaN or infinite"), ("size", "the geometry says")],
)
def test_bad_input_is_refused_before_any_sampling(what, message, run_here, tiny_overrides, tmp_path):
    if what == "not HU":
        source = write_volume(tmp_path / "mri.nii.gz", chest_voxels(SHAPE) / 2000 + 0.5)
        files = [INFERENCE, TASK, EVALUATE]
    else:
        damage = {"NaN": lambda p: np.where(p == p.max(), np.nan, p), "size": lambda p: p[1:]}[what]
        source, files = measure(tmp_path / "scans", "parallel", damage), [INFERENCE, TASK]
    with pytest.raises(Exception) as error:
        run_here("inference", files, tiny_overrides(source, **QUICK))
    causes, cause = [], error.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    assert message in "\n".join(causes)
    assert not list((tmp_path / "results").rglob("*.nii.gz"))


@pytest.mark.slow
def test_a_prior_is_trained_on_volumes_in_hounsfield_units(run_here, tmp_path):
    for seed in (0, 1):
        write_volume(tmp_path / "bodies" / f"body{seed}.nii.gz", chest_voxels((24, 20, 24), seed))
    overrides = TRAINED_HERE | {"dataset_dir": str(tmp_path / "bodies"), "output_dir": str(tmp_path / "run")}
    run_here("training", [TRAIN, "configs/train_ct.json"], overrides)
    assert (tmp_path / "run" / "model.pt").exists()


@pytest.mark.slow
def test_what_was_mended_and_what_is_doubtful_is_said_at_the_end(run_here, tiny_overrides, tmp_path, capsys):
    """Dead columns stand in run.json, on stderr and on the page; so does a result that follows no measurement."""

    def broken(projections):
        projections[:, [11, 12]] = 7.0
        return projections

    overrides = tiny_overrides(measure(tmp_path / "scans", "parallel", broken), report=True, **QUICK)
    run_here("inference", [INFERENCE, TASK], overrides | {"judge#slack": 1e-6})
    case = tmp_path / "results" / "scan"
    doubts = json.loads((case / "run.json").read_text(encoding="utf-8"))["doubts"]
    assert "2 columns (11, 12)" in doubts[0] and "does not agree with the measurement" in doubts[1]
    assert all(f"doubt about scan: {sentence}" in capsys.readouterr().err for sentence in doubts[:1])
    assert "2 columns (11, 12)" in (case / "report.html").read_text(encoding="utf-8")
