"""What the machine has to give: memory and disk, in bytes.

    memory   the least of: what the system can hand out, what the process's control groups leave it (both versions), and
             what its own limits leave it (RLIMIT_AS, RLIMIT_DATA); on a GPU, what is free there
    disk     what is free at the nearest folder that exists

Pages of files that the system keeps cached do not count as used: it gives them back.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

if sys.platform != "win32":
    import resource

GROUPS = Path("/sys/fs/cgroup")
GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60
"""A limit from here on is none: version 1 writes no limit as a number."""
GIGA = 1e9


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be taken on a device."""
    if (device := torch.device(device)).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, min([psutil.virtual_memory().available, *left_by_groups(), *left_by_limits()]))


def left_by_limits() -> Iterator[int]:
    """Bytes that the limits of this process leave it: of addresses, and of its data."""
    if sys.platform == "win32":
        return
    used = psutil.Process().memory_info()
    for limit, taken in (("RLIMIT_AS", used.vms), ("RLIMIT_DATA", getattr(used, "data", 0))):
        soft, _ = resource.getrlimit(getattr(resource, limit))
        if soft != resource.RLIM_INFINITY and soft < UNLIMITED:
            yield soft - taken


def left_by_groups(groups: Path = GROUPS, of_process: Path = GROUPS_OF_PROCESS) -> Iterator[int]:
    """Bytes that the control groups of this process leave it: its own, and each that holds it.

    Args:
        groups: where the system shows them.
        of_process: the file that names those of this process: lines of `id:controllers:path`.
    """
    try:
        lines = of_process.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = (line + "::").split(":")[:3]
        if controllers == "":
            root, names = groups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        # In a container the path may be that of the host: then the root is the container's own group.
        for group in [folder, *(p for p in folder.parents if p == root or root in p.parents)]:
            left = _left_in(group, *names)
            if left is not None:
                yield left


def _left_in(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """Bytes left in one group; None where it has no limit."""
    try:
        most, used = (int((group / name).read_text(encoding="ascii")) for name in (limit, usage))
    except (OSError, ValueError):  # not there, or "max"
        return None
    if most >= UNLIMITED:
        return None
    try:
        words = (group / "memory.stat").read_text(encoding="ascii").split()
        used -= int(words[words.index(cached) + 1])
    except (OSError, ValueError):
        pass
    return most - used


def free_disk(folder: str | Path) -> int | None:
    """Bytes free where a folder is, or will be; None where the file system does not say."""
    folder = Path(folder).absolute()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        usage = shutil.disk_usage(there)
    except OSError:
        return None
    return usage.free if usage.total else None  # some network file systems state nothing


def in_gigabytes(number: float) -> str:
    """Bytes in words: "4.3 GB", "120 MB"."""
    return f"{number / GIGA:.1f} GB" if number >= 0.95 * GIGA else f"{number / 1e6:.3g} MB"
