"""A training that is interrupted says what `--resume True` goes on from."""

import os

import pytest
from ignite.engine import Engine, Events

from bundle.files.failure import Terminated
from bundle.prior.interruption import left_by_training, run_training


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_the_last_checkpoint_is_named(tmp_path, stop):
    trainer = Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def save(engine):
        (tmp_path / f"checkpoint_epoch={engine.state.epoch}.pt").touch()
        os.utime(tmp_path / f"checkpoint_epoch={engine.state.epoch}.pt", (engine.state.epoch,) * 2)
        if engine.state.epoch == 11:
            raise stop

    trainer.run = lambda run=trainer.run: run([0], max_epochs=20)
    with pytest.raises(stop, match=r"epoch 11 is saved in .*checkpoint_epoch=11\.pt: .* --resume True goes on"):
        run_training(trainer, tmp_path)


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    assert "no epoch is complete" in left_by_training(tmp_path / "none")


def test_other_exceptions_pass(tmp_path):
    def fail(engine, batch):
        raise ValueError("as it is")

    trainer = Engine(fail)
    trainer.run = lambda run=trainer.run: run([0])
    with pytest.raises(ValueError, match="^as it is$"):
        run_training(trainer, tmp_path)
