"""The time that a training has taken, over all the runs that it was made of, and a budget in minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ignite.engine import Engine, Events
from tqdm import tqdm

from interslice.files.values import number, whole_number
from interslice.ranks import agreed, is_first

ENDLESS = 1_000_000_000
"""Epochs of a training that ends by its time."""


def last_epoch(max_epochs: int, max_minutes: float | None = None) -> int:
    """`max_epochs`, or with a budget in minutes so many that it ends the training first."""
    return max_epochs if max_minutes is None else ENDLESS


class Clock:
    """Handler of a trainer: counts its seconds from the start on, validation too, and ends it at the end of an epoch.

    Seconds are its state: a training that goes on has what is left. Attach it after what loads the state.

    Args:
        max_minutes: the budget; None counts only.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.budget = math.inf if max_minutes is None else 60 * number("max_minutes", max_minutes, above=0)
        self._before, self._since = 0.0, None

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    @property
    def agreed_seconds(self) -> float:
        """By the clock of rank 0, which all ranks have to ask at once: they end, and learn, together."""
        return agreed(self.seconds)

    @property
    def share(self) -> float:
        """Of the budget that is used: 0 to 1; asked by all ranks at once."""
        return min(1.0, self.agreed_seconds / self.budget)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, self.end)

    def start(self) -> None:
        self._since = time.monotonic()

    def end(self, engine: Engine) -> None:
        """End the training if the budget is used up."""
        if math.isfinite(self.budget) and self.agreed_seconds >= self.budget:
            engine.terminate()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._before, self._since = float(state["seconds"]), None


def cosine_decay(epochs: int, clock: Clock | None = None, floor: float = 0.02) -> Callable[[int], float]:
    """Factor of the learning rate in each epoch: from 1 along a cosine to `floor`.

    It follows the share of the epochs that are done or, where `clock` has a budget, of the time that is used.

    A plain function, so that no checkpoint keeps its length: a run resumed with more epochs follows the longer cosine.
    """
    whole_number("max_epochs", epochs, 1)
    timed = clock is not None and math.isfinite(clock.budget)

    def factor(epoch: int) -> float:
        share = clock.share if timed else min(epoch / epochs, 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))

    return factor


class TrainingBar:
    """Handler of a trainer, on rank 0: a bar on a terminal with the time that is left, of iterations or the budget."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.bar = clock, None

    def attach(self, engine: Engine) -> None:
        if not is_first():
            return
        engine.add_event_handler(Events.STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.move)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def open(self, engine: Engine) -> None:
        timed = math.isfinite(self.clock.budget)
        state = engine.state
        total = self.clock.budget if timed else state.max_epochs * state.epoch_length
        done = min(self.clock.seconds, total) if timed else state.iteration
        shown = "{l_bar}{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(total=total, initial=done, desc="training", unit="s" if timed else "iteration", leave=False,
                        disable=None, bar_format=shown)  # fmt: skip

    def move(self, engine: Engine) -> None:
        timed = math.isfinite(self.clock.budget)
        now = min(self.clock.seconds, self.bar.total) if timed else engine.state.iteration
        self.bar.update(now - self.bar.n)

    def close(self) -> None:
        self.bar.close()
