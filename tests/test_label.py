"""A real MONAI Label server serves the bundle (docs/how_to/label.md): its volumes are a direct run's, and it trains."""

import json
import shutil
import subprocess
import urllib.error

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.noise.named import FIELDS, named_noise
from interslice.prior.weights import load_weights
from tests.support.dicom_files import write_series
from tests.support.environments import clean_environment, copy_bundle
from tests.support.label_server import label_environment, served
from tests.support.scans import (
    CHANNELS,
    GROUPS,
    INFERENCE,
    OBLIQUE,
    ROOT,
    head_voxels,
    random_network,
    thick_voxels,
    write_volume,
)

TINY = {"network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS}
TINY_TRAINING = TINY | {
    "epoch_length": 2, "patch_size": 16, "batch_size": 2, "learning_rate": 1e-5,
    "validate#cut#num_patches": 8, "validate#levels": [100, 600], "sample_grid#size": 16, "sample_grid#num_steps": 2,
}  # fmt: skip
THICK = OBLIQUE @ np.diag([1.0, 1.0, 4.0, 1.0])


# -- names of noise fields --------------------------------------------------------------------------
def test_the_first_of_a_list_is_taken_and_the_shown_list_is_complete():
    shown = json.loads((ROOT / INFERENCE).read_text(encoding="utf-8"))["displayable_configs"]["noise"]
    assert shown == list(FIELDS)
    assert repr(named_noise(shown)) == "SlerpNoise(angle='orthogonal')"
    assert repr(named_noise(["ou"], length=7.0)) == "OrnsteinUhlenbeckNoise(length=7.0)"


@pytest.mark.parametrize("name", ["rice", "", [], None, 3, ["rice"]])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="noise must be one of slerp, independent, .*, auto, got "):
        named_noise(name)


def test_what_a_server_shows_is_set_on_the_command_line_as_before(run_here, tiny_overrides, thick_file, tmp_path):
    """`--seed 4` and the part of displayable_configs are the same, and overlays go before the shown name."""
    results = {}
    overlay = tmp_path / "overlay.json"
    overlay.write_text('{"noise_field": {"_target_": "interslice.noise.OrnsteinUhlenbeckNoise", "length": 20.0}}')
    ids = {"seed": 4, "num_steps": 1, "operator#ratio": 3.0}
    for name, configs, others in (
        ("id", [INFERENCE], ids),
        ("shown", [INFERENCE], {f"displayable_configs#{k}": v for k, v in SHOWN.items()}),
        ("overlay", [INFERENCE, str(overlay)], ids),
        ("name", [INFERENCE], ids | {"noise": "ou"}),
    ):
        settings = tiny_overrides(thick_file, output_dir=str(tmp_path / name)) | others
        if name == "shown":
            del settings["num_steps"]  # it would go before
        run_here("inference", configs, settings)
        results[name] = nib.load(tmp_path / name / "thick" / "thick_recon.nii.gz").get_fdata()
    assert np.array_equal(results["id"], results["shown"]) and results["id"].shape == (20, 18, 18)
    assert not np.allclose(results["id"], results["overlay"])
    assert np.array_equal(results["name"], results["overlay"])


SHOWN = {"seed": 4, "num_steps": 1, "ratio": 3.0, "noise": "slerp"}


# -- the server -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def label_python(tmp_path_factory):
    return label_environment(tmp_path_factory.mktemp("label_environment"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, label_python, tiny_weights):
    """Folder with `app/monaibundle`, two bundles in it, and `studies`."""
    folder = tmp_path_factory.mktemp("label")
    copy_app = [label_python, "-m", "monailabel.main", "apps", "--download", "--name", "monaibundle", "--output", "app"]
    settings = {"cwd": folder, "env": clean_environment(), "capture_output": True, "timeout": 120}
    subprocess.run(list(map(str, copy_app)), check=True, **settings)
    for name in ("slices", "trained"):
        target = folder / "app/monaibundle/model" / name
        copy_bundle(target, tiny_weights, inference=TINY | {"num_draws": 1}, train=TINY_TRAINING)
    write_volume(folder / "studies" / "straight.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    write_volume(folder / "studies" / "oblique.nii.gz", thick_voxels(1), THICK)
    for seed, name in enumerate(("one", "two", "three")):
        for part in ("studies", "studies/labels/final"):  # the server trains on images that have a label
            write_volume(folder / part / f"{name}.nii.gz", head_voxels((24, 24, 20), seed), spacing=(2, 2, 2))
    return folder


@pytest.fixture(scope="module")
def server(place, label_python):
    bundle = place / "app/monaibundle/model/slices"
    before = sorted(bundle.rglob("*"))
    with served(label_python, place / "app/monaibundle", place / "studies", ["slices", "trained"], place) as running:
        yield running
    assert sorted(bundle.rglob("*")) == before, "serving wrote into the bundle's folder"


@pytest.fixture
def direct(run_here, tiny_overrides, tmp_path):
    """The same reconstruction by `run inference`."""

    def run(source, configs=(INFERENCE,), **others):
        settings = tiny_overrides(source, num_steps=10, output_dir=str(tmp_path / "direct")) | others
        run_here("inference", list(configs), settings)
        return nib.load(next((tmp_path / "direct").rglob("*_recon.nii.gz")))

    return run


def assert_same(volume, reference):
    """Equal up to the rounding of the network, which the server lays out otherwise in memory."""
    assert volume.shape == reference.shape
    np.testing.assert_allclose(volume.affine, reference.affine, atol=1e-4)
    scale = np.abs(reference.get_fdata()).max()
    np.testing.assert_allclose(volume.get_fdata(), reference.get_fdata(), atol=1e-4 * scale)


@pytest.mark.tools
def test_the_server_shows_the_parameters(server):
    models = server.get("/info/")["models"]
    assert models.keys() == {"slices", "trained"}
    shown = models["slices"]["config"]
    assert (shown["seed"], shown["num_steps"], shown["ratio"]) == (0, 0, 0.0)
    assert shown["noise"] == list(FIELDS) and shown["preset"] == ["best", "fast", "sharp"]
    assert shown["model_filename"] == ["model.pt"]


@pytest.mark.tools
@pytest.mark.parametrize("image", ["straight", "oblique"])
def test_the_served_volume_is_that_of_a_direct_run(image, server, place, direct, tmp_path):
    served_volume = nib.load(server.infer("slices", tmp_path / "served.nii.gz", image=image))
    reference = direct(place / "studies" / f"{image}.nii.gz")
    assert served_volume.shape == (20, 18, 24) and served_volume.get_data_dtype() == np.float32
    np.testing.assert_allclose(nib.affines.voxel_sizes(served_volume.affine), 1, atol=1e-5)
    assert_same(served_volume, reference)


@pytest.mark.tools
def test_a_file_that_is_sent_gives_the_same_as_one_of_the_folder(server, place, tmp_path):
    kept = nib.load(server.infer("slices", tmp_path / "kept.nii.gz", image="oblique"))
    sent = nib.load(server.infer("slices", tmp_path / "sent.nii.gz", file=place / "studies/oblique.nii.gz"))
    assert np.array_equal(sent.get_fdata(), kept.get_fdata()) and np.array_equal(sent.affine, kept.affine)


@pytest.mark.tools
def test_a_dicom_series_is_served_with_an_older_pydicom(server, direct, tmp_path, label_python):
    write_series(tmp_path / "series", np.round(thick_voxels()), THICK)
    parameters = {"image": str(tmp_path / "series"), "result_extension": ".nii.gz"}
    volume = nib.load(server.infer("slices", tmp_path / "served.nii.gz", **parameters))
    assert_same(volume, direct(tmp_path / "series"))
    version = [label_python, "-c", "import pydicom; print(pydicom.__version__)"]
    assert subprocess.run(version, capture_output=True, encoding="utf-8", timeout=60).stdout.startswith("2.")


@pytest.mark.tools
@pytest.mark.parametrize(
    ("chosen", "others"),
    [
        ({"seed": 7}, {"seed": 7}),
        ({"num_steps": 1}, {"num_steps": 1}),
        ({"ratio": 3.0}, {"operator#ratio": 3.0}),
        ({"noise": "matern"}, {"noise": "matern"}),
        ({"noise": "auto", "seed": 2}, {"noise": "auto", "seed": 2}),
    ],
    ids=["seed", "num_steps", "ratio", "noise", "two"],
)
def test_parameters_are_those_of_a_direct_run(chosen, others, server, place, direct, tmp_path):
    volume = nib.load(server.infer("slices", tmp_path / "served.nii.gz", image="straight", **chosen))
    assert_same(volume, direct(place / "studies/straight.nii.gz", [INFERENCE], **others))
    plain = nib.load(server.infer("slices", tmp_path / "plain.nii.gz", image="straight"))  # not kept from before
    assert plain.shape == (20, 18, 24)
    assert volume.shape == (20, 18, 18) if "ratio" in chosen else not np.allclose(volume.get_fdata(), plain.get_fdata())


@pytest.mark.tools
def test_an_empty_ratio_is_none(server, tmp_path):
    """Slicer sends an empty text for a number that was left empty."""
    assert nib.load(server.infer("slices", tmp_path / "v.nii.gz", image="straight", ratio="")).shape == (20, 18, 24)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"noise": "rice"}, "noise must be one of slerp, independent"),
        ({"seed": -1}, "seed must be a whole number from 0, got -1"),
        ({"seed": "x"}, "seed must be a whole number from 0, got 'x'"),
        ({"num_steps": 201}, "num_steps must lie between 1 and 200"),
        ({"preset": "x"}, "preset must be one of best, fast, sharp"),
        ({"ratio": 20.0}, "ratio 20 is outside 1.5 to 10"),
    ],
)
def test_a_bad_value_is_told_in_the_log(chosen, message, server, tmp_path):
    before = server.log.stat().st_size
    with pytest.raises(urllib.error.HTTPError, match="500"):
        server.infer("slices", tmp_path / "none.nii.gz", image="straight", **chosen)
    assert server.logs(message, since=before)


# -- training through the server --------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(place):
    return place / "app/monaibundle/model/trained"


@pytest.mark.tools
def test_training_goes_on_from_the_served_weights(server, trained):
    record = server.train("trained", run_id="training", max_epochs=2, val_split=0.34)
    assert record["status"] == "DONE", record["details"]
    run = trained / "runs/prior"
    assert any(line.endswith(f"wrote {run}/model.pt") for line in record["details"])
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["epoch"], line["iteration"]) for line in lines] == [(1, 2), (2, 4)]
    assert moved(run / "model.pt") < 1e-3  # a few steps of 1e-5 from the served weights, the average too
    shutil.copyfile(run / "model.pt", trained / "models/trained_prior.pt")


@pytest.mark.tools
def test_training_from_nothing_takes_the_name_of_no_file(server, trained):
    record = server.train("trained", run_id="training", max_epochs=1, val_split=0.34, model_filename="none")
    assert record["status"] == "DONE", record["details"]
    assert moved(trained / "runs/prior/model.pt") > 0.1


def moved(path):
    """Largest change of a weight from the served ones; 0 is no training."""
    after, before = load_weights(random_network(5), path).state_dict(), random_network().state_dict()
    change = max(float((after[k] - before[k]).abs().max()) for k in before)
    assert 0 < change < torch.inf
    return change


@pytest.mark.tools
def test_other_weights_are_served_by_their_name(server, place, trained, direct, tmp_path):
    other = trained / "models/other.pt"
    torch.save(random_network(3).state_dict(), other)
    volume = nib.load(server.infer("trained", tmp_path / "v.nii.gz", image="straight", model_filename="other.pt"))
    assert_same(volume, direct(place / "studies/straight.nii.gz", checkpoint=str(other)))
