"""Unfinished reconstructions of several ranks that share the slices of one scan: one state, which rank 0 keeps."""

from __future__ import annotations

from pathlib import Path

import torch

from interslice.files.shared_cases import shares_slices
from interslice.files.unfinished import Unfinished
from interslice.ranks import agreed, rank


class SharedUnfinished(Unfinished):
    """See `Unfinished`; where ranks share cases, each keeps those of its own.

    Args:
        share: what the ranks share, "cases" or "slices".
    """

    def __init__(self, output_dir: str | Path, resume: bool | str = False, save_minutes: float | None = 5.0,
                 sampler=None, share: str = "cases") -> None:  # fmt: skip
        self.together = shares_slices(share)
        super().__init__(output_dir, resume, save_minutes, sampler)

    def begin(self, measurement: object, others: object, total: int, device: torch.device) -> dict | None:
        state = super().begin(measurement, others, total, device) if rank() == 0 or not self.together else None
        if not self.together:
            return state
        # What rank 0 has found all go on with, whatever they see of its disk.
        return moved(agreed(moved(state, torch.device("cpu"))), device)

    def offer(self, state: dict) -> None:
        if rank() == 0 or not self.together:
            super().offer(state)


def moved(value, device: torch.device):
    """A state, or a part of it, with its tensors on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item, device) for item in value)
    return value
