"""Arrays that lie in a file and are used like those in memory: the system keeps in memory what it has room for."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from interslice.files.machine import free_disk, in_gigabytes
from interslice.files.memory import FLOAT


def mapped(shape: Sequence[int], folder: str | Path) -> torch.Tensor:
    """A float32 tensor of zeros in a file of `folder`, which goes when nobody uses the tensor any more.

    Raises:
        OSError: there is no room for it, or the folder cannot be written to.
    """
    folder, size = Path(folder), math.prod(shape)
    folder.mkdir(parents=True, exist_ok=True)
    there = free_disk(folder)
    if there is not None and FLOAT * size > there:  # a file with holes would end the process when it is written to
        raise OSError(
            f"a volume of {in_gigabytes(FLOAT * size)} does not fit into {folder}, where {in_gigabytes(there)} are "
            "free: choose another --output_dir"
        )
    handle, name = tempfile.mkstemp(prefix=".volume-", dir=folder)
    try:
        with os.fdopen(handle, "wb"):
            if hasattr(os, "posix_fallocate") and size:
                os.posix_fallocate(handle, 0, FLOAT * size)
        return torch.from_file(name, shared=True, size=size, dtype=torch.float32).reshape(shape)
    finally:
        with suppress(OSError):  # where the system allows it: the mapping keeps the file
            os.unlink(name)
