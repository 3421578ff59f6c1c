"""Checkpoints are whole or refused, the newest that is whole is taken, and nothing of a training is lost by mistake."""

import io
import math
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine, Events

from interslice.prior.checkpoints import (
    CONDITIONS,
    LastCheckpoint,
    SaveCheckpoints,
    checkpoints_in,
    read_checkpoint,
    run_training,
)
from interslice.prior.clock import cosine_decay
from tests.support.scans import Marker

EPOCH_LENGTH = 2


def conditions(max_epochs=4, **fixed):
    return {"fixed": {"seed": 0, **fixed}, "noted": {"torch": "2"}, "max_epochs": max_epochs}


class Training:
    """A linear model with momentum and a falling learning rate, whose data are its own predictions."""

    def __init__(self, folder, max_epochs=4, resume=False, planned=None):
        torch.manual_seed(0)
        self.network = torch.nn.Linear(2, 2)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 0.1)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)  # grows within epochs
        decay = torch.optim.lr_scheduler.LambdaLR(self.optimizer, cosine_decay(max_epochs))
        self.trainer, self.rates = Engine(self.step), []
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: decay.step())
        self.trainer.state.max_epochs = max_epochs
        state = {
            "network": self.network, "optimizer": self.optimizer, "lr_scheduler": decay, "trainer": self.trainer,
            "scaler": self.scaler, "none": None,
        }  # fmt: skip
        given = conditions(max_epochs)
        self.last = LastCheckpoint(folder, given, resume)
        self.last.attach(self.trainer, state)
        self.save = SaveCheckpoints(folder, state, given)
        self.save.attach(self.trainer)

    def step(self, engine, batch):
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        self.scaler.scale(self.network(torch.ones(2)).square().sum()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def run(self, stop=None):
        """Train to the end, or to the first iteration of epoch `stop`."""
        if stop is not None:
            self.trainer.add_event_handler(Events.EPOCH_STARTED(once=stop), self.trainer.terminate)
        self.trainer.run([0] * EPOCH_LENGTH, max_epochs=self.trainer.state.max_epochs)
        return self


def weights(training):
    return training.network.weight.tolist(), training.network.bias.tolist(), training.scaler.state_dict()


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@given(total=st.integers(2, 6), data=st.data())
@settings(max_examples=8, deadline=None)
def test_stopped_and_resumed_anywhere_a_training_is_one_that_was_not(tmp_path_factory, total, data):
    folder = tmp_path_factory.mktemp("runs")
    whole = Training(folder / "whole", total).run()
    stops = sorted(data.draw(st.sets(st.integers(2, total), max_size=3)))
    rates = []
    for n, stop in enumerate([*stops, None]):
        part = Training(folder / "parts", total, resume=n > 0).run(stop)
        rates += part.rates
    assert weights(part) == weights(whole)
    assert rates == whole.rates
    assert names(folder / "parts") == names(folder / "whole")


def test_the_rate_of_an_epoch_follows_from_its_number_and_the_length_of_the_run(tmp_path):
    Training(tmp_path, 2).run()
    with pytest.warns(
        UserWarning, match="was to take 2 epochs, and is to take 5 epochs: from here on the learning rate"
    ):
        longer = Training(tmp_path, 5, resume=True).run()
    expected = [0.1 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * e / 5))) for e in (2, 3, 4) for _ in range(2)]
    assert longer.rates == pytest.approx(expected, rel=1e-12)


def test_the_last_two_epochs_are_kept_and_those_of_a_former_training_go(tmp_path):
    Training(tmp_path, 4).run()
    assert names(tmp_path) == ["checkpoint_epoch=3.pt", "checkpoint_epoch=4.pt"]
    Training(tmp_path, 4).run(stop=2)  # the one before was finished: this one takes its place
    assert names(tmp_path) == ["checkpoint_epoch=1.pt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    training = Training(tmp_path, 3).run(stop=2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    training.trainer.state.iteration, training.trainer.state.epoch = 2 * EPOCH_LENGTH, 2
    with pytest.raises(OSError, match="No space left"):
        training.save(training.trainer)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_a_killed_training_left_half_written_goes(tmp_path):
    Training(tmp_path, 3).run(stop=2)
    for name in ("checkpoint_epoch=2.pt", "model.pt", "history.jsonl", "samples.png"):
        (tmp_path / f".partial-77-{name}").write_bytes(b"half")
    (tmp_path / ".partial-77-scan_recon.nii.gz").write_bytes(b"of another run")
    Training(tmp_path, 3, resume=True).run(stop=2)
    assert names(tmp_path) == [".partial-77-scan_recon.nii.gz", "checkpoint_epoch=1.pt"]


# -- damage ---------------------------------------------------------------------------------------
CONTENT = {
    "network": {"w": torch.arange(40.0)}, "optimizer": {"m": torch.ones(9)}, "trainer": {"epoch_length": 2},
    CONDITIONS: conditions(),
}  # fmt: skip


def written(content=CONTENT):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


WHOLE = written()


@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7), cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_damaged_checkpoint_is_refused_or_has_every_value(tmp_path_factory, place, bit, cut):
    path = tmp_path_factory.getbasetemp() / "checkpoint_epoch=1.pt"
    damaged = bytearray(WHOLE)
    damaged[place] ^= 1 << bit
    path.write_bytes(WHOLE[:place] if cut else damaged)
    try:
        content = read_checkpoint(path)
    except ValueError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return
    assert not cut
    assert all(torch.equal(content[a][b], CONTENT[a][b]) for a, b in (("network", "w"), ("optimizer", "m")))
    assert content["trainer"] == CONTENT["trainer"] and content[CONDITIONS] == CONTENT[CONDITIONS]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, mark = tmp_path / "checkpoint_epoch=1.pt", tmp_path / "mark"
    torch.save({**CONTENT, "ema": Marker(mark)}, path)
    with pytest.raises(ValueError, match="checkpoint_epoch=1.pt is cut or damaged"):
        read_checkpoint(path)
    assert not mark.exists()


def test_another_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint_epoch=1.pt"
    torch.save({"network": {}}, path)
    with pytest.raises(ValueError, match="is no checkpoint of a training: it lacks optimizer, trainer"):
        read_checkpoint(path)


def test_the_newest_that_is_whole_is_taken_by_its_epoch_and_not_by_its_date(tmp_path):
    Training(tmp_path, 12).run(stop=11)
    assert names(tmp_path) == ["checkpoint_epoch=10.pt", "checkpoint_epoch=9.pt"]
    (tmp_path / "checkpoint_epoch=9.pt").touch()
    assert LastCheckpoint(tmp_path, conditions(12)).epoch == 10
    newest = tmp_path / "checkpoint_epoch=10.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match="=10.pt is cut or damaged: the training goes on from .*=9.pt"):
        last = LastCheckpoint(tmp_path, conditions(12))
    assert (last.epoch, last.iteration) == (9, 9 * EPOCH_LENGTH)
    (tmp_path / "checkpoint_epoch=9.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="=10.pt is cut or damaged; .*=9.pt is cut or damaged: remove"):
        LastCheckpoint(tmp_path, conditions(12))


# -- where a training begins ----------------------------------------------------------------------
def test_nothing_to_resume_from_names_the_fix(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="to resume from: train without --resume first"):
            LastCheckpoint(folder, conditions())


def test_a_training_that_is_not_finished_is_not_begun_anew_by_mistake(tmp_path):
    Training(tmp_path, 4).run(stop=3)
    with pytest.raises(FileExistsError, match="=2.pt is of a training that stopped after 2 of 4 epochs: go on with"):
        LastCheckpoint(tmp_path, conditions(), enabled=False)
    Training(tmp_path, 4, resume=True).run()
    assert LastCheckpoint(tmp_path, conditions(), enabled="no").path is None


def test_a_finished_training_goes_when_another_starts_and_not_before(tmp_path):
    Training(tmp_path, 2).run()
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\n')
    before = names(tmp_path)
    anew = Training(tmp_path, 2)
    assert names(tmp_path) == before  # what is refused before the start loses nothing

    def killed():
        raise KeyboardInterrupt

    anew.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), killed)
    run = anew.trainer.run
    anew.trainer.run = lambda: run([0] * EPOCH_LENGTH, max_epochs=2)
    with pytest.raises(KeyboardInterrupt, match="^stopped in epoch 1 of 2; nothing is written yet: begin anew$"):
        run_training(anew.trainer, tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="train without --resume first"):
        LastCheckpoint(tmp_path, conditions(2))


def test_killed_while_a_finished_training_is_taken_away_it_is_finished_still(tmp_path, monkeypatch):
    Training(tmp_path, 3).run()
    removed, unlink = [], type(tmp_path).unlink
    monkeypatch.setattr(type(tmp_path), "unlink", lambda p, **how: (removed.append(p.name), unlink(p, **how)))
    LastCheckpoint(tmp_path, conditions(3), enabled=False).take_away_former()
    assert removed == ["history.jsonl", "checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]


@pytest.mark.parametrize("noted", [{"the data": "1 volumes (b)"}, {"the scan": "b"}])
def test_a_training_of_other_data_is_not_replaced_without_a_word(tmp_path, noted):
    Training(tmp_path, 2).run()
    path = checkpoints_in(tmp_path)[2]
    content = torch.load(path, weights_only=True)
    content[CONDITIONS]["noted"] |= {"the data": "1 volumes (a)", "the scan": "a"}
    torch.save(content, path)
    now, before = conditions(2), names(tmp_path)
    now["noted"] |= noted
    name, value = next(iter(noted.items()))
    differs = rf"\({name} was .*a\)? and is {re.escape(value)}\)"
    with pytest.warns(UserWarning, match=f"holds a finished training on other data {differs}, which this one replaces"):
        assert LastCheckpoint(tmp_path, now, enabled=False).path is None
    with pytest.raises(FileExistsError, match=f"on other data {differs}, which would be lost: choose another --output"):
        LastCheckpoint(tmp_path, now, enabled=False, same_data=True)
    assert names(tmp_path) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LastCheckpoint(tmp_path, content[CONDITIONS], enabled=False, same_data=True)


def test_fewer_epochs_than_there_are_is_refused(tmp_path):
    Training(tmp_path, 4).run(stop=4)
    with pytest.raises(ValueError, match="=3.pt has 3 epochs already, more than max_epochs 2: give a larger"):
        LastCheckpoint(tmp_path, conditions(2))


def test_a_checkpoint_of_version_0_6_goes_on_and_says_that_it_is_not_the_same(tmp_path):
    """It holds neither conditions nor the parts that are new."""
    Training(tmp_path, 4).run(stop=3)
    path = checkpoints_in(tmp_path)[2]
    content = torch.load(path, weights_only=True)
    del content[CONDITIONS]
    torch.save(content, path)
    with pytest.warns(UserWarning, match="is of version 0.6.0 or older, .* not to the same bits"):
        resumed = Training(tmp_path, 4, resume=True)
    assert resumed.run().trainer.state.epoch == 4 and len(resumed.rates) == 2 * EPOCH_LENGTH


def test_weights_of_another_network_are_told_in_one_sentence(tmp_path):
    Training(tmp_path, 4).run(stop=3)
    other = {"network": torch.nn.Linear(3, 2), "trainer": Engine(lambda *_: None)}
    with pytest.raises(ValueError, match=r"=2.pt does not fit this run's network: .*size mismatch") as told:
        LastCheckpoint(tmp_path, conditions()).load(other["trainer"], other)
    assert "\n" not in str(told.value)


def test_where_nothing_changed_nothing_is_said(tmp_path):
    Training(tmp_path, 4).run(stop=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Training(tmp_path, 4, resume=True).run()


def test_how_an_optimiser_computes_is_this_runs_own(tmp_path):
    """A training from a GPU, with a fused optimiser, goes on where there is none, and the other way round."""
    first = Training(tmp_path)
    first.optimizer.param_groups[0]["foreach"] = True
    first.trainer.run([0] * EPOCH_LENGTH, max_epochs=2)
    again = Training(tmp_path, resume=True)
    again.optimizer.param_groups[0] |= {"foreach": False, "fused": None}
    again.trainer.run([0] * EPOCH_LENGTH, max_epochs=4)
    (group,) = again.optimizer.param_groups
    assert (group["foreach"], group["fused"]) == (False, None) and group["betas"] == (0.9, 0.999)
