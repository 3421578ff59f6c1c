"""A training that was stopped goes on: its state is written after every epoch, and read again.

What is not in the state is drawn anew by epoch (interslice.prior.keyed_epochs), so that the bits are those of a
training that was never interrupted, where the conditions are the same. docs/how_to/training.md says what they are.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from ignite.engine import Engine, Events

from interslice.files.paths import path_of
from interslice.files.switch import is_on
from interslice.files.whole import written_whole
from interslice.prior.clock import ENDLESS
from interslice.prior.conditions import compare, other_data
from interslice.ranks import is_first

CONDITIONS = "conditions"
"""Where a checkpoint keeps the conditions of its training (interslice.prior.conditions)."""
NEEDED = ("network", "optimizer", "trainer")
"""What every checkpoint of a training holds, of any version."""
LEFT_OVER = (".partial-*.pt", ".partial-*-history.jsonl", ".partial-*-samples.png")
"""What a training that was killed while it wrote leaves behind."""


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Epoch -> its checkpoint, the newest epoch first."""
    found = {p.stem.partition("=")[2]: p for p in folder.glob("checkpoint_epoch=*.pt")}
    return {int(n): found[n] for n in sorted((n for n in found if n.isdecimal()), key=int, reverse=True)}


class SaveCheckpoints:
    """Handler of a trainer, on rank 0: writes `folder`/checkpoint_epoch=N.pt after epoch N, whole or not at all.

    The one before stays, in case that the disk damages the last; older ones and those of a former training in the same
    folder go. Attach it after the handlers whose state it saves.

    Args:
        folder: made if it does not exist.
        state: name -> object with `state_dict`; None where a run has none, as a gradient scaler on CPUs.
        conditions: of interslice.prior.conditions, kept with the state.
        keep: checkpoints to keep.
    """

    def __init__(self, folder: str | Path, state: Mapping, conditions: Mapping, keep: int = 2) -> None:
        self.folder, self.state, self.conditions, self.keep = path_of("run_dir", folder), state, dict(conditions), keep

    def attach(self, engine: Engine) -> None:
        if not is_first():
            return
        engine.add_event_handler(Events.STARTED, self.tidy)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def tidy(self) -> None:
        """Remove what a killed training left of files that it was about to write."""
        for path in (p for pattern in LEFT_OVER for p in self.folder.glob(pattern)):
            path.unlink()

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        content = {name: part.state_dict() for name, part in self.state.items() if part is not None}
        with written_whole(self.folder / f"checkpoint_epoch={epoch}.pt") as partial:
            torch.save(content | {CONDITIONS: self.conditions}, partial)
        others = checkpoints_in(self.folder)
        kept = [n for n in others if n <= epoch][: self.keep]
        for n in others.keys() - kept:
            others[n].unlink()


class LastCheckpoint:
    """Where a training begins: after the last epoch whose checkpoint in `folder` is whole, or at the beginning.

    Args:
        folder: where SaveCheckpoints writes.
        conditions: of this run; see interslice.prior.conditions.
        enabled: a switch, `resume`. If off, the training begins anew, and what a former one left in `folder` to go on
            from is taken away when it starts.
        same_data: whether the former one must be of the same data, as where it was adapted to a scan; or else it is
            said that they differ.

    Attributes:
        path: of the checkpoint; None at the beginning.
        epoch, iteration: that are done.

    Raises:
        FileNotFoundError: there is no checkpoint to go on from.
        FileExistsError: without `enabled`, the folder holds a training that is not finished, which would be lost, or,
            with `same_data`, one of other data.
        ValueError: no checkpoint is whole, or the last one is of a training under other conditions.
    """

    def __init__(
        self, folder: str | Path, conditions: Mapping, enabled: bool | str = True, same_data: bool = False
    ) -> None:
        self.path, self.epoch, self.iteration, self._content, self._former = None, 0, 0, {}, []
        folder, same_data = path_of("run_dir", folder), is_on(same_data, "same_data")
        found = checkpoints_in(folder)
        if not is_on(enabled, "resume"):
            _refuse_to_lose(found, conditions, same_data)
            self._former = [folder / "history.jsonl", *reversed(found.values())]
            return
        if not found:
            raise FileNotFoundError(
                f"no checkpoint_epoch=*.pt in {folder} to resume from: train without --resume first"
            )
        self.path, self._content = _last_whole(found)
        trainer = self._content["trainer"]
        self.iteration = int(trainer["iteration"])
        self.epoch = self.iteration // int(trainer["epoch_length"])
        if conditions.get("max_minutes") is None and self.epoch > conditions["max_epochs"]:
            raise ValueError(
                f"{self.path} has {self.epoch} epochs already, more than max_epochs {conditions['max_epochs']}: give a "
                "larger max_epochs"
            )
        if CONDITIONS in self._content:
            compare(self.path, self._content[CONDITIONS], conditions)
        else:
            warnings.warn(
                f"{self.path} is of version 0.6.0 or older, which did not note how it was trained: the training goes "
                "on, but not to the same bits as one that was never interrupted",
                stacklevel=2,
            )

    def attach(self, engine: Engine, state: Mapping) -> None:
        """As `engine` starts, load the checkpoint into the objects of `state` (see SaveCheckpoints); or begin anew."""
        if self.path is not None:
            engine.add_event_handler(Events.STARTED, self.load, state)
        else:
            engine.add_event_handler(Events.STARTED, self.take_away_former)

    def take_away_former(self) -> None:
        """Remove the checkpoints and the history of the former training: this one must not be taken to go on from it.

        The newest goes last, so that what a kill leaves of them is of a finished training still.
        """
        for path in self._former if is_first() else ():
            path.unlink(missing_ok=True)
        self._former = []

    def load(self, engine: Engine, state: Mapping) -> None:
        """Load the checkpoint, whose memory is then free."""
        max_epochs = engine.state.max_epochs
        for name, part in state.items():
            if part is None or name not in self._content:
                continue
            ways = ways_of(part)
            try:
                part.load_state_dict(self._content[name])
            except (RuntimeError, ValueError, KeyError) as error:
                first = " ".join(str(error).split())[:300]
                raise ValueError(f"{self.path} does not fit this run's {name}: {first}") from None
            for group, way in zip(getattr(part, "param_groups", ()), ways):
                group |= way
        engine.state.max_epochs = max_epochs
        if "lr_scheduler" in state:
            follow(state["lr_scheduler"])
        self._content = {}


def ways_of(part: object) -> list[dict]:
    """How an optimiser computes its steps, per group: this is of the device, and not of the training."""
    return [{n: group[n] for n in ("fused", "foreach") if n in group} for group in getattr(part, "param_groups", ())]


def follow(lr_scheduler: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Give the optimiser the learning rate of the epoch that comes: of this run's decay, and not of the one before."""
    groups = lr_scheduler.optimizer.param_groups
    for group, base, factor in zip(groups, lr_scheduler.base_lrs, getattr(lr_scheduler, "lr_lambdas", ())):
        group["lr"] = base * factor(lr_scheduler.last_epoch)


def read_checkpoint(path: Path) -> dict:
    """What a checkpoint holds, on the CPU; nothing in it is run.

    Raises:
        ValueError: the file is cut, damaged, or no checkpoint of a training.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a file can be damaged in as many ways as there are bytes
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is cut or damaged")
    if missing := [name for name in NEEDED if not isinstance(content.get(name), Mapping)]:
        raise ValueError(f"{path} is no checkpoint of a training: it lacks {', '.join(missing)}")
    return content


def _last_whole(found: Mapping[int, Path]) -> tuple[Path, dict]:
    """The newest checkpoint that can be read, and what it holds; says which could not."""
    refused = []
    for path in found.values():
        try:
            content = read_checkpoint(path)
        except ValueError as error:
            refused.append(str(error))
            continue
        if refused:
            warnings.warn(f"{'; '.join(refused)}: the training goes on from {path}", stacklevel=3)
        return path, content
    raise ValueError(f"{'; '.join(refused)}: remove it, and train without --resume")


def _refuse_to_lose(found: Mapping[int, Path], conditions: Mapping, same_data: bool) -> None:
    """Raise FileExistsError if the newest checkpoint is of a training that is not finished; say if it had other data.

    With `same_data`, other data are refused, too.
    """
    for epoch, path in found.items():
        try:
            content = read_checkpoint(path)
        except ValueError:
            continue
        differs = other_data(content.get(CONDITIONS, {}), conditions)
        if differs and same_data:
            raise FileExistsError(
                f"{path.parent} holds a training on other data ({differs}), which would be lost: choose another "
                f"--output_dir, or remove the checkpoints of {path.parent}"
            )
        if done := _unfinished(epoch, content):
            raise FileExistsError(
                f"{path} is of a training that stopped after {done}: go on with --resume True, begin anew in another "
                f"--output_dir, or remove the checkpoints of {path.parent}"
            )
        if differs:
            warnings.warn(
                f"{path.parent} holds a finished training on other data ({differs}), which this one replaces: to keep "
                "it, choose another --output_dir",
                stacklevel=3,
            )
        return


def _unfinished(epoch: int, content: Mapping) -> str:
    """How much of how much a training did that is not finished, in words; empty if it is."""
    minutes = content.get(CONDITIONS, {}).get("max_minutes")
    if minutes is not None:
        done = float(content.get("clock", {}).get("seconds", 0)) / 60
        return f"{done:.1f} of {minutes:g} minutes" if done < minutes else ""
    planned = content["trainer"].get("max_epochs") or 0
    return f"{epoch} of {planned} epochs" if epoch < planned else ""


def run_training(trainer: Engine, folder: str | Path) -> None:
    """Run `trainer` to its end. KeyboardInterrupt says what is written and how to go on."""
    try:
        trainer.run()
    except KeyboardInterrupt as stop:
        last = next(iter(checkpoints_in(path_of("run_dir", folder)).values()), None)
        done = f"{last} holds all before: go on with --resume True" if last else "nothing is written yet: begin anew"
        planned = "" if trainer.state.max_epochs >= ENDLESS else f" of {trainer.state.max_epochs}"
        raise type(stop)(f"stopped in epoch {trainer.state.epoch}{planned}; {done}") from None
