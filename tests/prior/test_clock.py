"""A budget in minutes: counted over all runs, followed by the learning rate, and kept to the end of an epoch."""

import time

import pytest
import torch
from ignite.engine import Engine

from interslice.prior import clock as clocks
from interslice.prior.clock import ENDLESS, Clock, TrainingBar, cosine_decay, last_epoch


@pytest.fixture
def now(monkeypatch):
    """The time, which tests move: now.append(seconds)."""
    times = [1000.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: times[-1])
    return times


def run(clock, now, seconds_per_iteration, max_epochs=50):
    """Epochs that a training of three iterations an epoch takes."""
    trainer = Engine(lambda *_: now.append(now[-1] + seconds_per_iteration))
    clock.attach(trainer)
    TrainingBar(clock).attach(trainer)
    trainer.run([0, 1, 2], max_epochs=max_epochs)
    return trainer.state.epoch


def test_the_first_end_of_an_epoch_after_the_budget_ends_it(now):
    assert run(Clock(1.0), now, 7.0) == 3  # 21 s an epoch: 60 s end in the third
    assert run(Clock(1.0), now, 20.0) == 1  # just used up
    assert run(Clock(None), now, 1e6) == 50


def test_what_is_left_is_what_former_runs_did_not_take(now):
    first = Clock(1.0)
    run(first, now, 5.0, max_epochs=2)
    assert first.state_dict() == {"seconds": 30.0} and first.share == 0.5
    now.append(now[-1] + 1e9)  # nobody trains
    second = Clock(1.0)
    second.load_state_dict({"seconds": 30.0})
    assert second.seconds == 30.0
    assert run(second, now, 4.0) == 3
    third = Clock(1.0)
    third.load_state_dict(second.state_dict())
    assert third.share == 1.0 and run(third, now, 4.0) == 0  # nothing is left: no epoch begins


def test_longer_budgets_go_on_from_there(now):
    clock = Clock(2.0)
    clock.load_state_dict({"seconds": 60.0})
    assert clock.share == 0.5 and run(clock, now, 10.0) == 2


def test_the_learning_rate_follows_the_share_of_the_budget(now):
    clock = Clock(1.0)
    clock.start()
    timed, counted = cosine_decay(ENDLESS, clock), cosine_decay(60)
    for seconds in range(0, 61, 10):
        now.append(1000.0 + seconds)
        assert timed(12345) == pytest.approx(counted(seconds))
    now.append(5000.0)
    assert timed(0) == pytest.approx(0.02) and counted(0) == 1.0 and counted(1000) == pytest.approx(0.02)


def test_without_a_budget_epochs_count():
    assert cosine_decay(10, Clock(None))(5) == cosine_decay(10)(5) == pytest.approx(0.51)
    assert last_epoch(20) == 20 and last_epoch(20, 5.0) == ENDLESS


def test_no_checkpoint_keeps_the_budget():
    """A run that goes on follows its own budget: LambdaLR saves objects that are called, and no functions."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine_decay(ENDLESS, Clock(1.0)))
    assert decay.state_dict()["lr_lambdas"] == [None]


@pytest.mark.parametrize("minutes", [0, -1, "x", float("inf")])
def test_budgets_without_sense_are_refused(minutes):
    with pytest.raises(ValueError, match="max_minutes must be a number above 0"):
        Clock(minutes)


def test_the_clock_is_that_of_the_machine():
    clock = Clock(1.0)
    clock.start()
    time.sleep(0.02)
    assert 0.02 <= clock.seconds < 30
