"""Weights: good files load, and no other file does, whatever it holds."""

import pickle

import pytest
import torch
from ignite.engine import Engine
from monai.networks.schedulers import DDIMScheduler

from interslice.prior.network import SliceUNet, network_for
from interslice.prior.weights import (
    DEFAULTS,
    EXTRA_STATE,
    SCALES,
    LoadWeights,
    Weights,
    load_weights,
    scheduler_for,
    start_from,
)
from tests.support.scans import INFERENCE, ROOT, TRAIN, Marker, cut_short, head_voxels, random_network, write_volume
from tests.test_configs import TRAINED_HERE


def differ(a, b):
    return any(not torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}], ids=["plain", "model"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_good_file_gives_the_network_that_was_saved(tmp_path, wrap, zipped):
    saved, network = random_network(seed=1), random_network(seed=2)
    path = tmp_path / "model.pt"
    torch.save(wrap(saved.state_dict()), path, _use_new_zipfile_serialization=zipped)
    assert differ(saved, network)
    load_weights(network, path)
    assert not differ(saved, network)


def test_the_handler_loads_before_the_first_iteration(tiny_weights):
    network, seen = random_network(seed=2), []
    engine = Engine(lambda engine, batch: seen.append(differ(network, random_network())))
    LoadWeights(network, str(tiny_weights)).attach(engine)
    assert differ(network, random_network())
    engine.run([0])
    assert seen == [False]


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match="model.pt do not exist: set checkpoint"):
        load_weights(random_network(), tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused_as_such(tmp_path, share, zipped):
    path = tmp_path / "model.pt"
    torch.save(random_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="cannot be read, the file may be truncated"):
        load_weights(random_network(), cut_short(path, share))


def pickled(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, pickled])
def test_pickled_code_is_refused_and_not_run(tmp_path, save):
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    save({"model": Marker(marker)}, path)
    with pytest.raises(ValueError, match="hold more than tensors .* could run code"):
        load_weights(random_network(), path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Marker(marker)))  # noqa: S301 - what an unsafe reader would have done
    assert marker.exists()


def test_the_refusal_of_code_does_not_teach_how_to_run_it(tmp_path):
    torch.save(Marker(tmp_path / "marker"), tmp_path / "model.pt")
    with pytest.raises(ValueError) as refused:
        load_weights(random_network(), tmp_path / "model.pt")
    assert "weights_only" not in str(refused.value)  # torch's advice is to switch the safety off


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>not found</html>"])
def test_a_file_that_is_no_checkpoint_is_not_taken_for_code(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(random_network(), path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {"epoch": 3}, {"model": None}, {"network": {"w": torch.zeros(1)}, "epoch": 3}],
    ids=["list", "tensor", "numbers", "model is None", "training checkpoint"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"are not a state dict of tensors: save network\.state_dict\(\)"):
        load_weights(random_network(), tmp_path / "model.pt")


@pytest.mark.parametrize("channels", [(8, 16, 16), (16, 16), (8,)], ids=["deeper", "wider", "shallower"])
def test_weights_of_another_architecture_are_refused_in_few_words(tmp_path, channels):
    torch.save(random_network(channels=channels).state_dict(), tmp_path / "model.pt")
    network = random_network(seed=2)
    with pytest.raises(ValueError, match="belong to another architecture than network_def") as refused:
        load_weights(network, tmp_path / "model.pt")
    assert len(str(refused.value)) < 1000  # and not the names of all the layers


# -- what weights say of themselves -----------------------------------------------------------------
SCHEDULE = {"num_train_timesteps": 500, "schedule": "linear_beta", "beta_start": 0.001, "beta_end": 0.02}
HOUNSFIELD = {"kind": "hounsfield", "low": -1200.0, "high": 800.0}


def test_a_file_says_which_network_schedule_scale_and_grid_it_is_for(tmp_path):
    saved = random_network(channels=(8, 16, 24), schedule=SCHEDULE, scale=HOUNSFIELD, grid={"spacing": 0.7})
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    weights = Weights(tmp_path / "model.pt", "hounsfield")
    network = load_weights(network_for(weights), weights)
    assert network.about == saved.about and not differ(network, saved)
    assert weights.network == {"channels": [8, 16, 24], "num_res_blocks": 1, "norm_num_groups": 4}
    assert (weights.schedule, weights.scale, weights.grid) == (SCHEDULE, HOUNSFIELD, {"spacing": 0.7})
    expected = DDIMScheduler(**SCHEDULE).alphas_cumprod
    assert torch.equal(scheduler_for(weights).alphas_cumprod, expected)
    wider = DDIMScheduler(**SCHEDULE | {"beta_end": 0.03}).alphas_cumprod
    assert torch.equal(scheduler_for(weights, beta_end=0.03).alphas_cumprod, wider)
    assert network_for(weights, num_res_blocks=2).about["network"]["num_res_blocks"] == 2  # what is given goes before
    assert network_for(weights, grid={"spacing": None}).about["grid"] == {"spacing": None}


def test_a_file_of_version_0_4_is_of_the_shipped_kind(tmp_path):
    """Tensors alone; the intensities are not known, so that any task takes it."""
    network = SliceUNet(**DEFAULTS["network"])
    old = {name: v for name, v in network.state_dict().items() if name != EXTRA_STATE}
    torch.save(old, tmp_path / "old.pt")
    network.load_state_dict(old)  # and by torch's own means, as a resumed training does
    for kind in ("percentiles", "hounsfield"):
        weights = Weights(tmp_path / "old.pt", kind)
        assert (weights.network, weights.schedule, weights.scale, weights.grid) == tuple(DEFAULTS.values())
        assert load_weights(network_for(weights), weights).about["network"] == network.about["network"]


@pytest.mark.parametrize("text", [b"schedule", b"\xff", b"[]", b'{"schedule": null}', b'{"network": 3}'])
def test_a_file_that_does_not_say_it_readably_is_named(tmp_path, text):
    state = random_network().state_dict() | {EXTRA_STATE: torch.tensor(list(text), dtype=torch.uint8)}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt do not say in readable words what they are for"):
        Weights(tmp_path / "model.pt").about  # noqa: B018


@pytest.mark.parametrize(("path", "kind"), [("models/model.pt", "percentiles"), ("models/ct/model.pt", "hounsfield")])
def test_the_shipped_files_are_refused_by_the_other_task(path, kind):
    weights, (other,) = Weights(ROOT / path, kind), SCALES.keys() - {kind}
    assert weights.scale["kind"] == kind and {**DEFAULTS, **weights.about} == weights.about
    assert weights.network == DEFAULTS["network"] and weights.schedule == DEFAULTS["schedule"]
    with pytest.raises(ValueError, match=f"model.pt were trained on {SCALES[kind]}, and this task brings"):
        Weights(ROOT / path, other).about  # noqa: B018


def test_loading_does_not_change_what_a_network_says(tmp_path):
    """As when a training with another schedule begins from given weights."""
    torch.save(random_network(schedule=SCHEDULE).state_dict(), tmp_path / "model.pt")
    network = random_network(seed=2)
    network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert "schedule" not in network.about and not differ(load_weights(network, tmp_path / "model.pt"), network)


@pytest.mark.slow
def test_what_training_writes_is_enough_for_inference(run_here, tiny_overrides, thick_file, tmp_path):
    """A network of another width, on another schedule: `--checkpoint` alone."""
    for seed in (0, 1):
        write_volume(tmp_path / "heads" / f"{seed}.nii.gz", head_voxels((24, 20, 24), seed))
    made = {"network_def#channels": [4, 8, 12], "network_def#norm_num_groups": 2, "schedule": SCHEDULE}
    folders = {"dataset_dir": str(tmp_path / "heads"), "output_dir": str(tmp_path / "prior"), "grid#spacing": 0.8}
    run_here("training", TRAIN, TRAINED_HERE | folders | made | {"validate#levels": [20, 400]})
    run_here("inference", INFERENCE, tiny_overrides(thick_file, checkpoint=str(tmp_path / "prior/model.pt")))
    weights = Weights(tmp_path / "prior/model.pt")
    assert weights.network["channels"] == [4, 8, 12] and weights.schedule == SCHEDULE
    assert weights.grid == {"spacing": 0.8}
    run_here(
        "adaptation", [TRAIN, "configs/adapt.json"],
        {k: v for k, v in TRAINED_HERE.items() if "network" not in k}
        | {"dataset_dir": str(thick_file), "checkpoint": str(tmp_path / "prior/model.pt"), "validate#levels": [20, 400],
           "output_dir": str(tmp_path / "adapted")},
    )  # fmt: skip
    adapted = Weights(tmp_path / "adapted/thick/thick_prior.pt")
    assert adapted.about == weights.about | {"grid": {"spacing": 1.0}}  # the scan's


# -- weights that a training starts from ------------------------------------------------------------
def test_a_training_starts_from_weights_of_its_own_kind_and_schedule(tmp_path, tiny_weights):
    start = random_network().state_dict()
    network = start_from(random_network(seed=9), tiny_weights, "percentiles")
    assert all(torch.equal(w, start[n]) for n, w in network.state_dict().items() if n != EXTRA_STATE)
    fresh = random_network(seed=9)
    assert start_from(fresh, None) is fresh
    about = {"kind": "hounsfield", "low": -1000.0, "high": 1000.0}
    torch.save(random_network(scale=about).state_dict(), tmp_path / "ct.pt")
    with pytest.raises(ValueError, match="were trained on Hounsfield units, .* and this task brings"):
        start_from(random_network(), tmp_path / "ct.pt", "percentiles")
    other = {"num_train_timesteps": 1000, "schedule": "linear_beta", "beta_start": 0.0001, "beta_end": 0.02}
    with pytest.raises(ValueError, match=r"were trained with schedule \{.*, and this training has \{.*linear_beta"):
        start_from(random_network(schedule=other), tiny_weights)
    with pytest.raises(FileNotFoundError):
        start_from(random_network(), tmp_path / "none.pt")
