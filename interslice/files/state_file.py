"""A file with the sampler's state: whole or not there, read without running code, and sure to be what was written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from interslice.files.digest import digest
from interslice.files.whole import HIDDEN, TAIL, written_whole

ROOM = 3
"""States that must fit on the disk for one to be written: the old one stays until the new one is whole, and the results
that are to come need room, too."""


def write_state(path: Path, state: dict, there: str) -> None:
    """Write a state and what it was computed on (`where`) in the place of an older one.

    Raises:
        TypeError: it holds what could not be read again.
        OSError: there is no room, or nothing can be written there.
    """
    check_plain(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    for half in halves(path):
        half.unlink(missing_ok=True)
    need, free = ROOM * size_of(state), shutil.disk_usage(path.parent).free
    if free < need:
        raise OSError(f"{free / 1e9:.1f} GB are free, and {need / 1e9:.1f} are needed")
    with written_whole(path) as partial, partial.open("wb") as file:
        # torch's own checksums are not looked at when a file is read
        torch.save({"state": state, "where": there, "digest": digest(state, there)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path, device: torch.device) -> tuple[dict, str]:
    """A state that was written, with its tensors on `device`, and what it was computed on.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        state, there, stated = content["state"], content["where"], content["digest"]
    except Exception:  # torch and pickle know many words for it
        raise ValueError(f"{path} is damaged") from None
    if digest(state, there) != stated:
        raise ValueError(f"{path} is damaged")
    return state, there


def halves(path: Path) -> list[Path]:
    """What a run that was killed while it wrote has left."""
    return list(path.parent.glob(f"{HIDDEN[0]}*{path.name[-TAIL:]}"))


def where(device: torch.device) -> str:
    """What rounding depends on: the GPU, or the processor's instructions and how many threads share the work."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of {torch.backends.cpu.get_cpu_capability()}"


def check_plain(value: object, name: str = "state") -> None:
    """Raise TypeError unless a value consists of tensors, numbers, text and lists: no code is run to read it."""
    if type(value) is dict:
        for key, item in value.items():
            check_plain(key, name)
            check_plain(item, str(key))
    elif type(value) in (list, tuple):
        for item in value:
            check_plain(item, name)
    elif type(value) not in (torch.Tensor, bool, int, float, str, type(None)):
        raise TypeError(f"{name} is a {type(value).__name__}, not a tensor, a number, text, or a list of these")


def size_of(value: object) -> int:
    """Bytes of all tensors in a value."""
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(size_of(item) for item in items)
