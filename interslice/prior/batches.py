"""How many slices go through a network at once, and with how many digits.

    size        "auto": on a CPU a fixed number, whose activations stay in its caches; on a GPU as many as fit into
                SHARE of its free memory, in batches of one size
    memory      a batch for which there is none is halved, and the halves go on: with one slice alone it is an error
    precision   "float32"; "tf32": factors of convolutions are rounded to 10 bits (GPUs); "bfloat16": factors of
                convolutions and most tensors to 7. "auto" is tf32 on a GPU, and bfloat16 on a CPU that multiplies it,
                where it takes half the time; both change a result by less than what a thousandth of its range would
                (docs/explanation/speed.md)

The result does not depend on the size, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from interslice.files.failure import NO_MEMORY
from interslice.files.machine import available_memory
from interslice.files.values import choice, whole_number

CPU_BATCH = 8
"""Slices at once on a CPU: more are not faster (`python -m scripts.benchmark --batch_sizes 1 2 4 8 16`)."""
MOST = 2.0**33
"""Bytes of a batch on a GPU: more is not faster, and kernels that count in 32 bits end somewhere beyond."""
SHARE = 0.5
"""Of the free memory of a GPU that a batch may take: the estimate of what it takes is one."""
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")


class Batches:
    """Takes slices through a function in batches.

    Args:
        size: slices at once, or "auto".
    """

    def __init__(self, size: int | str = "auto") -> None:
        if size != "auto":
            whole_number("slice_batch_size", size, 1, 'or "auto" to have it chosen')
        self.size = size
        self._sizes: dict[tuple, int] = {}

    @property
    def sizes(self) -> dict[tuple, int]:
        """Sizes in use that the memory has decided, by what is done, shape of all slices, and device."""
        return self._sizes

    def of(self, count: int, device: torch.device, key: tuple, bytes_of: Callable[[int], float]) -> int:
        """Slices at once, of `count`.

        Args:
            key: of `sizes`.
            bytes_of: what a batch of so many slices takes on the device.
        """
        if key in self._sizes:
            return self._sizes[key]
        if self.size != "auto":
            return min(self.size, count)
        if device.type == "cpu":
            return min(CPU_BATCH, count)
        fitting = int(min(SHARE * available_memory(device), MOST) / max(1.0, bytes_of(1)))
        self._sizes[key] = equal_parts(count, max(1, fitting))
        return self._sizes[key]

    def least(self, count: int, device: torch.device) -> int:
        """Slices at once for which there has to be memory; with less they go on in smaller batches, but say so late."""
        if self.size != "auto":
            return min(self.size, count)
        return min(CPU_BATCH, count) if device.type == "cpu" else 1

    def over(self, count: int, device: torch.device, key: tuple, bytes_of: Callable[[int], float],
             work: Callable[[slice], None]) -> None:  # fmt: skip
        """Call `work` with ranges that cover `count` slices; it may be called again with a part of one that failed."""
        start = 0
        while start < count:
            size = self.of(count, device, key, bytes_of)
            try:
                work(slice(start, min(start + size, count)))
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self._sizes[key] = math.ceil(size / 2)
            else:
                start += size
                continue
            if device.type == "cuda":  # after the exception, which holds what the batch had taken
                torch.cuda.empty_cache()


def equal_parts(count: int, most: int) -> int:
    """The size of the fewest parts of `count` that are equal, but for the last one, and at most `most`."""
    return math.ceil(count / math.ceil(count / most)) if count else 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory for what was asked."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(NO_MEMORY.search(str(error)))


def chosen_precision(device: torch.device) -> str:
    """What "auto" stands for on a device."""
    if device.type == "cuda":
        return "tf32"
    return "bfloat16" if device.type == "cpu" and multiplies_bfloat16() else "float32"


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it (AVX-512 BF16, AMX): without them it is slower than float32."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in tests)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, networks compute with this precision, one of PRECISIONS."""
    choice("precision", precision, PRECISIONS)
    if precision == "auto":
        precision = chosen_precision(device)
    parts = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # torch takes it ill if they differ
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        for part, value in zip(parts, before):
            part.fp32_precision = value
