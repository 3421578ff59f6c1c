"""Unfinished reconstructions: a long one is saved every few minutes, so that another run goes on where it stopped.

    <output_dir>/.unfinished/<measurement>-<others>.pt

The name holds the digests (interslice.files.digest) of what comes from the scan and of all else that the result is a
function of: settings, weights, versions, kind of device. So a state is never used for another reconstruction, and
nobody needs to name the cases. What another processor, or another number of its threads, changes is rounding: that is
said, and the state is used. A file that is damaged (interslice.files.state_file) is said to be, and is not.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from interslice.files.digest import digest, of_versions
from interslice.files.paths import path_of
from interslice.files.state_file import halves, read_state, where, write_state
from interslice.files.switch import is_on
from interslice.files.values import number

FOLDER = ".unfinished"
FORGOTTEN = 30
"""Days after which a state that no run has gone on with is named."""


class Unfinished:
    """The sampler's keeper (interslice.sampling.state): saves the states of long reconstructions, and gives them back.

    A state is saved if `save_minutes` have passed since the last one, or the beginning, and the steps that are left
    will take longer than that; and after the last step of whatever took longer. So a short run saves nothing. What
    was saved stays until `forget`: as a handler of an engine, when all other handlers have written the case. A state
    that cannot be saved is said, once, and nothing else: the reconstruction goes on.

    Args:
        output_dir: of the results; states lie in its folder `.unfinished`.
        resume: a switch: go on from a state, if there is one of the same reconstruction.
        save_minutes: from 0, which saves after every step; None saves nothing.
        sampler: whose keeper to be (interslice.sampling.DiffusionInverseInferer); or give it as the sampler's argument.

    Raises:
        ValueError: resume and an observer.
    """

    def __init__(self, output_dir: str | Path, resume: bool | str = False, save_minutes: float | None = 5.0,
                 sampler=None) -> None:  # fmt: skip
        self.folder = path_of("output_dir", output_dir) / FOLDER
        self.resume = is_on(resume, "resume")
        self.seconds = None
        if save_minutes is not None:
            self.seconds = 60 * number("save_minutes", save_minutes, 0, kind="a number of minutes")
        self.begun: list[Path] = []
        self._said: set[str] = set()
        if sampler is not None:
            sampler.kept_by(self)

    # -- what the sampler calls -------------------------------------------------------------------
    def begin(self, measurement: object, others: object, total: int, device: torch.device) -> dict | None:
        """The state to go on from, or None; see `interslice.sampling.state.Keeper`."""
        self._named = lambda: f"{digest(measurement)}-{digest(others, of_versions())}.pt"
        self._path, self._total, self._where, self._further = None, total, where(device), 0
        state = None
        try:
            self._say_old()
            state = self._found(device)
        except Exception as error:  # a file can be damaged, and a folder closed, in as many ways as there are
            _say(f"{self.folder} cannot be read ({error}): the reconstruction begins anew")
        self._first = state["done"] if state else 0
        self._started = self._last = time.monotonic()
        return state

    def offer(self, state: dict) -> None:
        """Save the state, if it is time to."""
        if self.seconds is None or state["done"] <= self._further:
            return
        now = time.monotonic()
        if state["done"] == self._total:
            due = now - self._started >= self.seconds or (self._path is not None and self._path.exists())
        else:
            left = (now - self._started) / (state["done"] - self._first) * (self._total - state["done"])
            due = now - self._last >= self.seconds and left >= self.seconds
        if due:
            self._save(state)
            self._last = time.monotonic()
        if state["done"] == self._total:
            self._named = None  # or it would hold the measurement until the next one

    # -- what the run calls -----------------------------------------------------------------------
    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, lambda _: self.begun.clear())  # states of failed cases stay
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.forget())

    def taken(self) -> list[Path]:
        """The states of what was begun, for who will `forget` them once it is written, after the next one has begun."""
        states, self.begun[:] = self.begun.copy(), []
        return states

    def forget(self, states: list[Path] | None = None) -> None:
        """The results of what was begun (or whose states these are) are written: its states are not needed any more."""
        states = self.taken() if states is None else states
        with suppress(OSError):  # what cannot be deleted does no harm
            for path in states:
                for file in (path, *halves(path)):
                    file.unlink(missing_ok=True)
            if states and not any(self.folder.iterdir()):
                self.folder.rmdir()

    @property
    def kept(self) -> bool:
        """Whether another run can go on with what this one has begun: a message of an interruption says so."""
        return any(path.exists() for path in self.begun)

    # -- files ------------------------------------------------------------------------------------
    def _file(self) -> Path:
        """Of the reconstruction under way; what tells it takes seconds for a large one, and a short one never asks."""
        if self._path is None:
            self._path, self._named = self.folder / self._named(), None
            self.begun.append(self._path)
        return self._path

    def _found(self, device: torch.device) -> dict | None:
        """The state of an earlier run, if this one is to go on with it."""
        states = sorted(self.folder.glob("*"))
        state = None
        if states and (path := self._file()) in states:
            try:
                state, there = read_state(path, device)
            except ValueError as error:
                _say(f"{error} and is not used")
        if state is not None and self.resume:
            _say(f"going on after {state['done']} of {self._total} steps, saved in {self._path}")
            if there != self._where:
                _say(f"they were done on {there}, the others will be on {self._where}: rounding differs")
            return state
        if state is not None:
            self._further = state["done"]
            _say(f"{state['done']} of {self._total} steps are saved in {self._path}: --resume True goes on from there")
        elif self.resume:
            scan = f"{self._path.name.split('-')[0]}-" if self._path else "none"
            same = any(other != self._path and other.name.startswith(scan) for other in states)
            others = ", but for this scan with other settings, weights or versions" if same else ""
            self._say_once("new", f"nothing to resume in {self.folder}{others}: the reconstruction begins anew")
        return None

    def _save(self, state: dict) -> None:
        try:
            write_state(self._file(), state, self._where)
        except Exception as error:
            self._say_once("failed", f"what is done cannot be saved in {self.folder}: {error}. The run goes on without")
        else:
            self._say_once("saved", f"what is done is saved in {self.folder}; when interrupted, go on by --resume True")

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            _say(text)

    def _say_old(self) -> None:
        before = time.time() - FORGOTTEN * 86400
        found = [p.stat() for p in self.folder.glob("*")]
        old = [f.st_size for f in found if f.st_mtime < before]
        if old:
            self._say_once(
                "old",
                f"{len(old)} files of unfinished reconstructions in {self.folder}, {sum(old) / 1e9:.1f} GB, are older "
                f"than {FORGOTTEN} days: delete them if no run is to go on with them",
            )


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
