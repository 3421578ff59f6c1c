"""When a trainer validates: its start weights, every interval, and the end."""

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from interslice.prior.training import ValidateEnd, ValidateStart


class Validator(Evaluator):
    """Notes the epochs that it is asked for."""

    def __init__(self):  # nothing of MONAI's is used but the type
        self.epochs = []

    def run(self, global_epoch=1):
        self.epochs.append(global_epoch)


@pytest.mark.parametrize(
    ("epochs", "interval", "expected"),
    [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (1, 3, [1]), (3, 1, [1, 2, 3])],
)
def test_the_last_epoch_is_always_validated_and_none_twice(epochs, interval, expected):
    trainer, validator = Engine(lambda *_: None), Validator()
    ValidationHandler(interval, validator).attach(trainer)
    ValidateEnd(validator, interval).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert validator.epochs == expected


def test_a_training_that_its_clock_ends_is_validated_too():
    trainer, validator = Engine(lambda engine, _: engine.terminate() if engine.state.epoch == 3 else None), Validator()
    ValidateEnd(validator, 2).attach(trainer)
    trainer.run([0, 0], max_epochs=9)
    assert validator.epochs == [3]


@pytest.mark.parametrize(("enabled", "expected"), [(True, [1]), (False, [])])
def test_the_start_is_validated_if_it_is_of_trained_weights(enabled, expected):
    trainer, validator = Engine(lambda *_: None), Validator()
    ValidateStart(validator, enabled).attach(trainer)
    trainer.run([0], max_epochs=2)
    assert validator.epochs == expected
