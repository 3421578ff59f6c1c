"""A training that was stopped, wherever, and resumed leaves the bits of one that was never interrupted."""

import multiprocessing
import os
import signal

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.scans import (
    ROOT,
    TRAIN,
    chest_voxels,
    cut_short,
    tiny_training,
    whole_message,
    write_volume,
)

pytestmark = pytest.mark.slow
ADAPT, TRAIN_CT = [TRAIN, "configs/adapt.json"], [TRAIN, "configs/train_ct.json"]


class Killed(BaseException):
    """Stands for a kill: nothing in the package expects it."""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a training of 3 epochs on 4 volumes, of which 3 are trained on: epochs end in the middle of a pass."""
    monkeypatch.chdir(ROOT)
    return tiny_training(tmp_path, max_epochs=3)


def train(folder, settings, config=TRAIN, stop=None, run_id="training"):
    """Train in this process; `stop(trainer)` adds what kills it."""
    workflow = ConfigWorkflow(
        config, logging_file=False, workflow_type="train", run_id=run_id, output_dir=str(folder), **settings
    )
    workflow.initialize()
    try:
        if stop is not None:
            stop(workflow.parser.get_parsed_content("train#trainer"))
        workflow.run()
    except Killed:
        pass
    finally:
        workflow.parser.get_parsed_content("summary_writer").close()
    return workflow


def at_iteration(number, error=Killed):
    def kill():
        raise error

    return lambda trainer: trainer.add_event_handler(Events.ITERATION_COMPLETED(once=number), kill)


def bits(folder):
    """All that a training leaves but TensorBoard's events, by file name."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".pt":
            found[path.name] = plain(torch.load(path, weights_only=True))
        elif path.is_file() and "tfevents" not in path.name:
            found[path.name] = path.read_bytes()
    return found


def plain(value):
    """Numbers that == compares bit by bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def assert_same(folder, other):
    ours, theirs = bits(folder), bits(other)
    assert ours.keys() == theirs.keys() and {"history.jsonl", "samples.png"} < ours.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize(
    ("others", "iterations"),
    [
        ({}, (1, 3, 4)),
        ({"num_workers": 2, "coarser": False}, (5,)),
        ({"val_interval": 2}, (3,)),
        ({"seed": 7, "foreground": 0.5}, (5,)),
    ],
    ids=["plain", "workers", "rarely validated", "another seed"],
)
def test_killed_within_an_epoch_and_resumed(tmp_path, settings, others, iterations):
    settings |= others
    train(tmp_path / "whole", settings)
    for n, iteration in enumerate(iterations):
        resume = n > 1  # by then an epoch has ended, so that there is something to go on from
        train(tmp_path / "parts", settings | {"resume": resume}, stop=at_iteration(iteration))
    train(tmp_path / "parts", settings | {"resume": "True"})
    assert_same(tmp_path / "whole", tmp_path / "parts")


PLACES = [
    ("model.pt", 2, "before"), ("history.jsonl", 2, "before"), ("history.jsonl", 2, "after"),
    ("samples.png", 2, "before"), ("checkpoint_epoch=2.pt", 1, "before"), ("checkpoint_epoch=2.pt", 1, "after"),
]  # fmt: skip
"""File, how often it is written by then, and whether the process dies before or after it gets its name."""


def test_killed_by_the_system_while_it_writes(tmp_path, settings):
    train(tmp_path / "whole", settings)
    for name, times, when in PLACES:
        parts = tmp_path / f"{name} {when}"
        child = multiprocessing.get_context("fork").Process(target=_die, args=(parts, settings, name, times, when))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL, (name, when)
        assert when == "after" or list(parts.glob(f".partial-*-{name}"))
        train(parts, settings | {"resume": "True"})
        assert_same(tmp_path / "whole", parts)


def _die(folder, settings, name, times, when):
    """Train, and be killed when the file `name` is to get its name for this time."""
    replace, seen = os.replace, []

    def deadly(source, target):
        if os.path.basename(target) != name:
            return replace(source, target)
        seen.append(target)
        if len(seen) == times and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if len(seen) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly
    train(folder, settings)


def test_an_adaptation_too(tmp_path, settings, thick_file, tiny_weights):
    settings |= {"dataset_dir": str(thick_file), "checkpoint": str(tiny_weights)}
    train(tmp_path / "whole", settings, ADAPT, run_id="adaptation")
    train(tmp_path / "parts", settings, ADAPT, at_iteration(5), "adaptation")
    train(tmp_path / "parts", settings | {"resume": "yes"}, ADAPT, run_id="adaptation")
    assert "thick_prior.pt" in bits(tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_training_whose_volumes_are_given_one_by_one(tmp_path, settings):
    """As MONAI Label gives them; there is no dataset_dir."""
    volumes = [{"image": str(p), "label": str(p)} for p in sorted((tmp_path / "heads").iterdir())]
    given = {"dataset_dir": "none", "train#dataset#data": volumes[:2], "validate#dataset#data": volumes[2:]}
    train(tmp_path / "run", settings | given, stop=at_iteration(3))
    with pytest.warns(UserWarning, match="the data was 2 volumes .* and 2 volumes .* is 2 volumes .* and 1 volumes"):
        train(tmp_path / "run", settings | given | {"validate#dataset#data": volumes[3:], "resume": True})


def test_a_budget_in_minutes_goes_on_with_what_is_left(tmp_path, settings, monkeypatch):
    """Iterations of 10 s and epochs of two: a minute is three epochs, in one run or in two."""
    now = [0.0]
    monkeypatch.setattr("interslice.prior.clock.time.monotonic", lambda: now[-1])

    def passing(stop=lambda trainer: None):
        def watch(trainer):
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: now.append(now[-1] + 10))
            stop(trainer)

        return watch

    settings |= {"max_minutes": 1.0, "max_epochs": 1}
    train(tmp_path / "whole", settings, stop=passing())
    train(tmp_path / "parts", settings, stop=passing(at_iteration(3)))
    with pytest.raises(Exception, match="Failed") as refused:
        train(tmp_path / "parts", settings)
    assert "stopped after 0.3 of 1 minutes: go on with --resume" in whole_message(refused.value)
    train(tmp_path / "parts", settings | {"resume": True}, stop=passing())
    assert_same(tmp_path / "whole", tmp_path / "parts")  # as time passes here in the same way
    before = bits(tmp_path / "parts")
    assert "checkpoint_epoch=3.pt" in before and "checkpoint_epoch=1.pt" not in before
    train(tmp_path / "parts", settings | {"resume": True}, stop=passing())
    assert bits(tmp_path / "parts") == before  # nothing is left


def test_a_training_on_ct_too(tmp_path, settings):
    for seed, name in enumerate("ab"):
        write_volume(tmp_path / "chests" / f"{name}.nii.gz", chest_voxels((24, 24, 16), seed), spacing=(2, 2, 2))
    settings |= {"dataset_dir": str(tmp_path / "chests")}
    train(tmp_path / "whole", settings, TRAIN_CT)
    train(tmp_path / "parts", settings, TRAIN_CT, at_iteration(3))
    train(tmp_path / "parts", settings | {"resume": "yes"}, TRAIN_CT)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_from_the_checkpoint_before_where_the_last_is_damaged(tmp_path, settings):
    train(tmp_path / "whole", settings)
    train(tmp_path / "parts", settings, stop=at_iteration(5))
    cut_short(tmp_path / "parts" / "checkpoint_epoch=2.pt")
    with pytest.warns(UserWarning, match="checkpoint_epoch=2.pt is cut or damaged: the training goes on from .*=1.pt"):
        train(tmp_path / "parts", settings | {"resume": "True"})
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_training_is_left_as_it_is(tmp_path, settings):
    train(tmp_path / "run", settings | {"max_epochs": 1})
    before = bits(tmp_path / "run")
    train(tmp_path / "run", settings | {"max_epochs": 1, "resume": "True"})
    assert bits(tmp_path / "run") == before


def test_a_longer_run_sees_what_one_of_that_length_sees_at_its_learning_rate(tmp_path, settings):
    """Made longer, a training draws what a run of the new length draws, and the cosine is that of the new length."""

    def watched(folder, **others):
        seen = []

        def note(engine):
            images = engine.state.batch["image"].numpy().tobytes()
            seen.append((engine.state.iteration, engine.optimizer.param_groups[0]["lr"], images))

        train(folder, settings | others,
              stop=lambda trainer: trainer.add_event_handler(Events.ITERATION_COMPLETED, note))  # fmt: skip
        return seen

    whole = watched(tmp_path / "whole", max_epochs=4)
    watched(tmp_path / "parts", max_epochs=2)
    with pytest.warns(
        UserWarning, match="was to take 2 epochs, and is to take 4 epochs: from here on the learning rate"
    ):
        assert watched(tmp_path / "parts", max_epochs=4, resume=True) == whole[4:]


def test_tensorboard_shows_each_iteration_once(tmp_path, settings):
    run = tmp_path / "run"
    train(run, settings, stop=at_iteration(3))
    train(run, settings | {"resume": "True"})
    shown = EventAccumulator(str(run)).Reload()
    losses = [event.step for tag in shown.Tags()["scalars"] if tag == "train_loss" for event in shown.Scalars(tag)]
    assert losses == [1, 2, 3, 4, 5, 6]


def test_a_stop_from_the_keyboard_says_how_to_go_on(tmp_path, settings):
    def stopped(iteration, words, **others):
        with pytest.raises(KeyboardInterrupt) as told:
            train(tmp_path / "run", settings | others, stop=at_iteration(iteration, KeyboardInterrupt))
        assert words in str(told.value)

    stopped(1, "stopped in epoch 1 of 3; nothing is written yet: begin anew")
    stopped(3, f"stopped in epoch 2 of 3; {tmp_path}/run/checkpoint_epoch=1.pt holds all before: go on with --resume")
    train(tmp_path / "run", settings | {"resume": True})
    train(tmp_path / "whole", settings)
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_what_would_be_another_training_is_refused_before_a_volume_is_read(tmp_path, settings, monkeypatch):
    train(tmp_path / "run", settings, stop=at_iteration(3))
    monkeypatch.setattr("interslice.prior.pool.VolumePool.__init__", None)
    for others, words in (
        ({"patch_size": 32, "seed": 1}, "seed was 0 and is 1, patch_size was 16 and is 32; give seed, patch_size as"),
        ({"network_def#channels": [8, 8]}, r"network#channels was [8, 16] and is [8, 8]"),
        ({"schedule#beta_end": 0.02}, "schedule#beta_end was 0.012 and is 0.02"),
        ({"learning_rate": 0.1}, "learning_rate was 0.0005 and is 0.1"),
    ):
        with pytest.raises(Exception, match="Failed") as refused:
            train(tmp_path / "run", settings | {"resume": "True"} | others)
        assert words in whole_message(refused.value)
    with pytest.raises(Exception, match="Failed") as refused:
        train(tmp_path / "run", settings)
    assert "stopped after 1 of 3 epochs: go on with --resume True, begin anew in another" in whole_message(
        refused.value
    )
