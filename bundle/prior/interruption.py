"""What is left of a training that was interrupted, and how to go on."""

from __future__ import annotations

from pathlib import Path

from ignite.engine import Engine


def run_training(trainer: Engine, folder: str | Path) -> None:
    """Train; `folder` is where checkpoints go.

    Raises:
        KeyboardInterrupt: says what is written, and how to go on.
    """
    try:
        trainer.run()
    except KeyboardInterrupt as stop:
        raise type(stop)(left_by_training(folder)) from None


def left_by_training(folder: str | Path) -> str:
    """In words, what `--resume True` would go on from."""
    found = sorted(Path(folder).glob("checkpoint_epoch=*.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        return f"no epoch is complete in {folder}: there is nothing to go on from"
    epoch = found[-1].stem.rpartition("=")[2]
    return f"epoch {epoch} is saved in {found[-1]}: the same command with --resume True goes on from there"
