"""The processes that work together, as torchrun starts them: which is this one, what is its share, what all have.

    rank r of R has of n items those from floor(r n / R) to below floor((r + 1) n / R)

So shares are contiguous, follow one another, and differ by at most one item. Where torchrun has started nothing there
is one rank, 0, whose share is everything, and nothing is sent: parts that use this need not ask how many they are.
Tensors on the CPU travel by gloo, those on CUDA by NCCL, which torch brings (torch.distributed).
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from interslice.usage import UsageError

STARTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun puts into the environment of each process."""
PATIENCE = timedelta(days=7)
"""How long ranks wait for one another: one may reconstruct for hours while others are done. A rank that ends is noticed
at once: its connections close, and torchrun ends the others."""
_store: dist.Store | None = None
"""That of the ranks, once they have joined."""


def start(device: torch.device | str) -> None:
    """Join the ranks that torchrun has started.

    Args:
        device: of this rank; see `device_of_rank`.

    Raises:
        UsageError: this process was not started by torchrun, or several ranks of this machine would have one GPU.
    """
    if dist.is_initialized():
        return
    _check_started()
    device = torch.device(device)
    if device.type == "cuda":
        if device.index != int(os.environ["LOCAL_RANK"]):
            raise UsageError(f"each process has a GPU of its own, got device {device} for all: leave --device out")
        torch.cuda.set_device(device)
    store, number, ranks = next(dist.rendezvous("env://"))
    join(store, number, ranks, "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def join(store: dist.Store, number: int, ranks: int, backend: str = "gloo", patience: timedelta = PATIENCE) -> None:
    """Join as rank `number` of `ranks` that share a store of torch.distributed."""
    global _store
    store.set_timeout(patience)
    _store = dist.PrefixStore("board", store)
    hook = sys.excepthook
    dist.init_process_group(backend, store=store, rank=number, world_size=ranks, timeout=patience)
    # torch's swallows the last words of a hook that ends the process (interslice.files.last_words)
    sys.excepthook = hook


def end() -> None:
    """Leave the others: nothing is sent any more."""
    global _store
    _store = None
    if dist.is_initialized():
        dist.destroy_process_group()


def device_of_rank(device: str | torch.device | None = None) -> torch.device:
    """`device` itself if it is given, else this rank's GPU, or the CPU where the machine has none.

    Raises:
        UsageError: this process was not started by torchrun.
    """
    _check_started()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type != "cuda":
        return device
    local, there_are = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there_are:
        raise UsageError(
            f"torchrun has started {on_this_machine()} processes on this machine, which has GPUs for {there_are}: "
            f"start it with --nproc_per_node={max(1, there_are)}, or give --device cpu"
        )
    return torch.device("cuda", local)


def _check_started() -> None:
    missing = [name for name in STARTED if not os.environ.get(name)]
    if missing:
        raise UsageError(
            "this config is for several processes, and torchrun has started none "
            f"({', '.join(missing)} not set): write `torchrun --standalone --nproc_per_node=2 -m monai.bundle run ...` "
            "in place of `python -m monai.bundle run ...`, or leave the config out"
        )


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is rank 0, which writes and says what is said once."""
    return rank() == 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def on_this_machine() -> int:
    """How many of the processes run on this machine, and share its memory and its processors."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def share(count: int, of: int | None = None) -> slice:
    """Which of `count` items are this rank's, or those of rank `of`; none where there are fewer items than ranks."""
    of, ranks = rank() if of is None else of, world_size()
    return slice(of * count // ranks, (of + 1) * count // ranks)


def gather(part: torch.Tensor, count: int, dim: int = 0, out: torch.Tensor | None = None) -> torch.Tensor:
    """The whole that the ranks' parts make, side by side along `dim`: the same tensor on every rank.

    Parts are sent one after the other, so that besides the whole one of them is held at most.

    Args:
        part: this rank's, `share(count)` of the whole along `dim`; all else of its shape is that of the others.
        count: items of the whole along `dim`.
        out: where the whole is to go; else a new tensor.

    Raises:
        ValueError: the part is not as long as this rank's share.
    """
    mine = share(count)
    if part.shape[dim] != mine.stop - mine.start:
        raise ValueError(f"rank {rank()} has items {mine.start} to {mine.stop} of {count}, got {part.shape[dim]}")
    if world_size() == 1 and out is None:
        return part
    part = part.movedim(dim, 0)
    whole = part.new_empty((count, *part.shape[1:])) if out is None else out.movedim(dim, 0)
    for sender in range(world_size()):
        place = share(count, sender)
        if place.start == place.stop:
            continue
        sent = part.contiguous() if place == mine else part.new_empty((place.stop - place.start, *part.shape[1:]))
        if world_size() > 1:
            dist.broadcast(sent, sender)
        whole[place] = sent
    return whole.movedim(0, dim)


def agreed(value):
    """Rank 0's value, whatever the others have: for what goes by time, free memory, or a look at the disk."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def all_of(value) -> list:
    """The values of all ranks, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until all ranks are here."""
    if world_size() > 1:
        all_of(None)


class Board:
    """What ranks tell one another at any time, without waiting for one another as they do in `gather`.

    Args:
        name: of the board; ranks that give the same name see the same.
    """

    def __init__(self, name: str) -> None:
        self._store = dist.PrefixStore(name, dist.HashStore() if _store is None else _store)

    def take(self, name: str) -> int:
        """The next whole number, from 0, that no rank has taken yet."""
        return self._store.add(f"taken/{name}", 1) - 1

    def taken(self, name: str) -> int:
        """How many numbers have been taken."""
        return self._store.add(f"taken/{name}", 0)

    def write(self, name: str, text: str) -> None:
        self._store.set(name, text)

    def read(self, name: str) -> str | None:
        """What has been written under this name; None if nothing."""
        return self._store.get(name).decode() if self._store.check([name]) else None
