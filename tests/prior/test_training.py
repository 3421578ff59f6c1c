"""Training: the noise levels it draws, the errors it reports, and a run that is short, resumed and adapted."""

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib import image as image_file
from monai.bundle import ConfigParser
from monai.networks.schedulers import DDIMScheduler
from monai.transforms import Compose, RandRotate90d
from scipy.stats import kstest

from interslice.files.find import one_scan
from interslice.prior.training import (
    ErrorPerNoiseLevel,
    FixedLevelPrepareBatch,
    HistoryFile,
    LowNoisePrepareBatch,
    SampleGrid,
    fixed_patches,
)
from interslice.prior.weights import EXTRA_STATE, load_weights
from tests.support.helpers import GaussianDenoiser, alpha_bars
from tests.support.scans import CHANNELS, GROUPS, ROOT, TRAIN, head_voxels, random_network, whole_message, write_volume

T = 1000


# -- noise levels ---------------------------------------------------------------------------------
@pytest.mark.parametrize("power", [0.5, 1.0, 1.5, 2.0])
def test_timesteps_follow_the_power_law(power):
    """t = T u^power, so that P(t / T < f) = f^(1 / power)."""
    torch.manual_seed(0)
    t = LowNoisePrepareBatch(T, power).get_timesteps(torch.zeros(20_000, 1)).numpy()
    assert t.dtype == np.int64 and t.min() >= 0 and t.max() < T
    spread = (t + np.random.default_rng(0).random(len(t))) / T  # uniform within each whole step
    assert kstest(spread, lambda f: np.clip(f, 0, 1) ** (1 / power)).statistic < 1.95 / len(t) ** 0.5  # p = 0.001


@pytest.mark.parametrize("power", [0, -1.0])
def test_power_must_be_positive(power):
    with pytest.raises(ValueError, match=f"power must be positive, got {power}"):
        LowNoisePrepareBatch(T, power)


def test_validation_sees_the_same_noise_every_time():
    prepare = FixedLevelPrepareBatch(T, [20, 300, 800], seed=3)
    images = torch.rand(7, 1, 8, 8)
    torch.manual_seed(1)
    first = prepare({"image": images})
    torch.manual_seed(2)
    again = prepare({"image": images})
    assert torch.equal(first[1], again[1])  # the noise is what the network is to predict
    assert torch.equal(first[3]["noise"], first[1])
    for batch in (first, again):
        assert batch[3]["timesteps"].tolist() == [20, 300, 800, 20, 300, 800, 20]
    assert not torch.equal(first[1], FixedLevelPrepareBatch(T, [20], seed=4)({"image": images})[1])


@pytest.mark.parametrize("levels", [[], [20, T], [-1]])
def test_levels_outside_the_schedule_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels must lie in \[0, 1000\), got"):
        FixedLevelPrepareBatch(T, levels)


# -- what is reported -----------------------------------------------------------------------------
def test_errors_per_level_are_those_computed_by_hand():
    prepare = FixedLevelPrepareBatch(T, [50, 600])
    pairs = [(torch.rand(n, 1, 4, 4), torch.rand(n, 1, 4, 4)) for n in (5, 2)]
    engine = Engine(lambda engine, batch: {"pred": batch[0], "label": batch[1]})
    ErrorPerNoiseLevel(prepare).attach(engine, "score")
    engine.run(pairs)
    engine.run(pairs)  # a second epoch starts anew
    squares = [(a - b).square().mean((1, 2, 3)) for a, b in pairs]
    at_50 = torch.cat([squares[0][[0, 2, 4]], squares[1][[0]]]).mean().item()
    at_600 = torch.cat([squares[0][[1, 3]], squares[1][[1]]]).mean().item()
    assert engine.state.metrics == pytest.approx(
        {"noise_mse_t050": at_50, "noise_mse_t600": at_600, "score": -(at_50 + at_600) / 2}, rel=1e-6
    )


def test_no_validation_image_is_an_error():
    metric = ErrorPerNoiseLevel(FixedLevelPrepareBatch(T, [20]))
    with pytest.raises(ValueError, match="no validation image was seen: check validation_dir"):
        metric.compute()


def test_the_grid_shows_samples_of_the_distribution_that_the_network_knows(tmp_path):
    """With the exact score of pixels N(0.4, 0.3^2), the picture's pixels have that law."""
    scheduler = DDIMScheduler(T, "scaled_linear_beta", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    path = tmp_path / "new" / "samples.png"
    network = GaussianDenoiser(alpha_bars(), mean=0.4, std=0.3)
    grid = SampleGrid(network, scheduler, str(path), torch.device("cpu"), num_samples=6, size=32, num_steps=100)
    grid(None)
    pixels = image_file.imread(path)[..., 0] * 2 - 1
    assert pixels.shape == (2 * 32, 3 * 32)
    assert pixels.mean() == pytest.approx(0.4, abs=0.03)
    assert pixels.std() == pytest.approx(0.3, abs=0.03)
    content = path.read_bytes()
    grid(None)
    assert path.read_bytes() == content


def test_fixed_patches_depend_on_the_seed_alone():
    transform = Compose([RandRotate90d("image", prob=0.5), lambda item: [item]])
    volumes = [{"image": torch.arange(16.0).view(1, 4, 4)}] * 12

    def patches(seed):
        return torch.stack([torch.as_tensor(p["image"]) for p in fixed_patches(volumes, transform, seed)])

    first = patches(1)
    np.random.seed(5)
    assert torch.equal(first, patches(1))
    assert not torch.equal(first, patches(2))


def line_of(epoch, run=0):
    return json.dumps({"epoch": epoch, "run": run})


@pytest.mark.parametrize(
    ("there", "epoch", "kept"),
    [
        ([line_of(1), line_of(2)], 3, [line_of(1), line_of(2)]),
        ([line_of(1), line_of(2), line_of(3)], 2, [line_of(1)]),
        ([line_of(1), '{"epoch": 2, "tra'], 2, [line_of(1)]),  # cut by a kill
        ([line_of(1), "", "[]", '"x"', "{}", line_of(2)], 3, [line_of(1), line_of(2)]),
        ([line_of(20)], 1, []),  # of a former training
        (None, 5, []),
    ],
)
def test_a_line_of_the_history_takes_the_place_of_those_of_its_epoch_and_later_ones(tmp_path, there, epoch, kept):
    path = tmp_path / "run" / "history.jsonl"
    if there is not None:
        path.parent.mkdir()
        path.write_text("\n".join(there) + "\n", encoding="utf-8")
    trainer, validator = Engine(lambda *_: {"loss": torch.tensor(0.5)}), Engine(lambda *_: None)
    HistoryFile(trainer, str(path)).attach(validator)
    trainer.run([0], max_epochs=1)
    trainer.state.epoch = epoch
    validator.run([0])
    new = {"epoch": epoch, "iteration": 1, "train_loss": 0.5}
    assert path.read_text(encoding="utf-8").splitlines() == [*kept, json.dumps(new)]


def test_the_mean_loss_is_over_all_iterations_since_the_last_validation_of_any_run(tmp_path):
    """Losses are state: a run that goes on adds to those of the one before."""
    trainer, validator = Engine(lambda engine, batch: [{"loss": torch.tensor(batch)}]), Engine(lambda *_: None)
    first, second = (HistoryFile(trainer, str(tmp_path / "h.jsonl")) for _ in range(2))
    first.attach(validator)
    trainer.run([1.0, 2.0], max_epochs=1)
    second.load_state_dict(first.state_dict())
    assert second.losses == [1.0, 2.0]
    second.keep_loss(trainer)
    second(validator)
    assert json.loads((tmp_path / "h.jsonl").read_text())["train_loss"] == pytest.approx(5 / 3)
    assert second.state_dict() == {"losses": []}


def test_adaptation_is_to_one_scan(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", head_voxels((12, 12, 12)))
    training, watched = one_scan(path)
    assert training == watched == [{"image": str(path)}]
    write_volume(tmp_path / "b.nii.gz", head_voxels((12, 12, 12)))
    with pytest.raises(ValueError, match="holds 2 volumes: .* name its file"):
        one_scan(tmp_path)


def test_a_place_that_cannot_be_written_is_told_before_a_volume_is_read(tmp_path):
    (tmp_path / "file").touch()
    config = ConfigParser.load_config_file(ROOT / TRAIN)
    parser = ConfigParser(config | {"output_dir": str(tmp_path / "file" / "x")})
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content("check_place")
    assert "file/x cannot be written (Not a directory): choose another --output_dir" in whole_message(refused.value)
    first = next(n for n, line in enumerate(config["run"]) if "@check_place" in line)
    assert first < config["run"].index("@load_last") and "@train" not in "".join(config["run"][:first])


# -- runs -----------------------------------------------------------------------------------------
@pytest.fixture
def overrides(tmp_path):
    for seed, name in enumerate("ab"):
        write_volume(tmp_path / "heads" / f"{name}.nii.gz", head_voxels((24, 24, 20), seed), spacing=(2, 2, 2))
    return {
        "dataset_dir": str(tmp_path / "heads"), "output_dir": str(tmp_path / "run"), "device": "$torch.device('cpu')",
        "network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS,
        "max_epochs": 2, "epoch_length": 2, "patch_size": 16, "batch_size": 2,
        "validate#cut#num_patches": 8, "validate#levels": [100, 600],
        "sample_grid#size": 16, "sample_grid#num_steps": 2,
    }  # fmt: skip


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_training_by_command_line_writes_everything_and_resumes(tmp_path, overrides, run_bundle, run_here):
    run = tmp_path / "run"
    finished = run_bundle("training", TRAIN, overrides)
    assert finished.returncode == 0, finished.stderr
    assert f"wrote {run}/model.pt" in finished.stdout
    assert [(line["epoch"], line["iteration"]) for line in history(run)] == [(1, 2), (2, 4)]
    for line in history(run):
        levels = [line["noise_mse_t100"], line["noise_mse_t600"]]
        assert line["neg_noise_mse"] == pytest.approx(-np.mean(levels), abs=2e-6)
        assert np.isfinite(line["train_loss"])
    assert list(run.glob("events.out.tfevents.*"))
    assert image_file.imread(run / "samples.png").shape[:2] == (2 * 16, 6 * 16)
    trained = load_weights(random_network(), run / "model.pt")
    assert all(torch.isfinite(w).all() for w in trained.parameters())
    second = torch.load(run / "checkpoint_epoch=2.pt", weights_only=True)

    run_here("training", TRAIN, overrides | {"resume": "True", "max_epochs": 3})
    assert [(line["epoch"], line["iteration"]) for line in history(run)] == [(1, 2), (2, 4), (3, 6)]
    third = torch.load(run / "checkpoint_epoch=3.pt", weights_only=True)
    assert {float(s["step"]) for s in third["optimizer"]["state"].values()} == {6}
    # Two steps of Adam move a weight by little more than twice the learning rate: these weights went on from those.
    moved = max(float((third["network"][k] - second["network"][k]).abs().max()) for k in second["network"])
    assert 0 < moved < 10 * 5e-4
    load_weights(random_network(), run / "model.pt")


@pytest.mark.slow
def test_a_resumed_learning_rate_goes_on_falling(tmp_path, overrides, run_here):
    """A run that is made longer follows the longer cosine, and does not climb back to the start."""
    run_here("training", TRAIN, overrides)
    run_here("training", TRAIN, overrides | {"resume": "True", "max_epochs": 4})
    state = torch.load(tmp_path / "run" / "checkpoint_epoch=4.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] < 0.2 * 5e-4


@pytest.mark.slow
def test_a_resumed_run_keeps_the_best_model(tmp_path, overrides, run_here):
    """An epoch that is worse than those before the interruption does not replace model.pt."""
    run = tmp_path / "run"
    run_here("training", TRAIN, overrides)
    best = (run / "model.pt").read_bytes()
    checkpoint = torch.load(run / "checkpoint_epoch=2.pt", weights_only=True)
    for part in ("network", "ema"):
        checkpoint[part] = {name: weight + 1 for name, weight in checkpoint[part].items()}
    torch.save(checkpoint, run / "checkpoint_epoch=2.pt")
    run_here("training", TRAIN, overrides | {"resume": "True", "max_epochs": 3})
    scores = [line["neg_noise_mse"] for line in history(run)]
    assert scores[2] < max(scores[:2])
    assert (run / "model.pt").read_bytes() == best


@pytest.mark.slow
def test_a_wrong_resume_is_told(tmp_path, overrides, run_here):
    with pytest.raises(RuntimeError) as failed:
        run_here("training", TRAIN, overrides | {"resume": True})
    cause = failed.value
    while cause.__cause__:
        cause = cause.__cause__
    assert "to resume from: train without --resume first" in str(cause)


@pytest.mark.slow
@pytest.mark.parametrize("adapt", [False, True], ids=["training", "adaptation"])
def test_weights_that_are_gone_on_from_are_never_lost_to_worse_ones(tmp_path, overrides, run_here, thick_file,
                                                                    tiny_weights, adapt):  # fmt: skip
    """A learning rate that ruins them: what is written is what the training began with, validated as epoch 0."""
    settings = overrides | {"learning_rate": 10.0, "ema_momentum": 0.9, "max_epochs": 1}
    start = random_network()
    if adapt:
        settings |= {"dataset_dir": str(thick_file), "checkpoint": str(tiny_weights)}
        run_here("adaptation", [TRAIN, "configs/adapt.json"], settings)
        run, name = tmp_path / "run" / "thick", "thick_prior.pt"
    else:
        run_here("training", TRAIN, settings | {"pretrained": str(tiny_weights)})
        run, name = tmp_path / "run", "model.pt"
    first, last = history(run)
    assert (first["epoch"], last["epoch"]) == (0, 1) and "train_loss" not in first and "train_loss" in last
    assert not last["neg_noise_mse"] > first["neg_noise_mse"]
    written = load_weights(random_network(seed=5), run / name).state_dict()
    assert all(torch.equal(written[n], w) for n, w in start.state_dict().items() if n != EXTRA_STATE)


@pytest.mark.slow
def test_a_compiled_network_trains_the_same_weights(tmp_path, overrides, run_here, monkeypatch):
    """torch.compile needs a C++ compiler: here it is given the backend that needs none."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network: compiled(network, backend="eager"))
    for folder, switch in (("a", "no"), ("b", "yes")):
        run_here("training", TRAIN, overrides | {"output_dir": str(tmp_path / folder), "compile": switch})
    a, b = (torch.load(tmp_path / f / "checkpoint_epoch=2.pt", weights_only=True)["network"] for f in "ab")
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[n].float(), b[n].float(), atol=1e-6) for n in a)


@pytest.mark.slow
def test_adaptation_starts_from_the_checkpoint(tmp_path, overrides, run_here, thick_file, tiny_weights):
    settings = overrides | {"dataset_dir": str(thick_file), "checkpoint": str(tiny_weights), "learning_rate": 1e-6}
    run_here("adaptation", [TRAIN, "configs/adapt.json"], settings | {"output_dir": str(tmp_path / "eval")})
    adapted = load_weights(random_network(seed=5), tmp_path / "eval" / "thick" / "thick_prior.pt")
    start = random_network().state_dict()
    assert all((w - start[k]).abs().max() < 1e-4 for k, w in adapted.state_dict().items())
