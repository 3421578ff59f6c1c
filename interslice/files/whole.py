"""Files and folders that appear whole or not at all.

What is not whole yet has a hidden name beside its own, so that a run that is killed leaves no half-written result.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HIDDEN = (".partial-", ".old-")
"""How the names begin of what is not whole yet, and of what a whole one takes the place of."""
TAIL = 24
"""Letters of a name that its hidden name ends with: its suffixes, and few enough for the longest name."""


def aside(path: Path) -> Path:
    """A hidden path beside `path` that nobody else has, with the same suffixes.

    A process id would not do: in containers it is always the same.
    """
    return path.with_name(f"{HIDDEN[0]}{secrets.token_hex(4)}-{path.name[-TAIL:]}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a hidden path beside `path` with the same suffixes; renames it to `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = aside(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path, keep: Callable[[Path], Sequence[str]] = lambda _: ()) -> Iterator[Path]:
    """Yields a hidden empty folder beside `path`; puts it in the place of `path` if all went well.

    Whoever looks, and whenever this process is killed: `path` is the old folder or the new one. Where the system cannot
    exchange two folders in one step, there is a moment without; `put_back` then brings the old one back.

    Args:
        path: the folder.
        keep: names in the old folder, given to it, that the new one has too, if it has no others of these names.

    Raises:
        ValueError: the path ends in `..`: what lies above is not replaced.
    """
    if path.name in ("", ".."):
        raise ValueError(f"{path} is no folder of its own, and is not replaced")
    path = Path(os.path.realpath(path))  # of a link, what it leads to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = aside(path)
    partial.mkdir()
    try:
        yield partial
        put_back(path)
        if path.exists():
            _like(path, partial)
            _link_all(keep(path), path, partial)
            old = _take_place(partial, path)
            _link_all(keep(old), old, path)  # what has come in meanwhile
            shutil.rmtree(old, ignore_errors=True)
            if old.exists():
                warnings.warn(f"{old}, which was replaced, cannot be removed: remove it", stacklevel=4)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _like(old: Path, new: Path) -> None:
    """Give a folder the rights of another, and its owner where that is allowed."""
    shutil.copymode(old, new)
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(new, old.stat().st_uid, old.stat().st_gid)


def _link_all(names: Sequence[str], old: Path, new: Path) -> None:
    """The same files, and folders of files, in a second folder; not those of a name that is taken there."""
    for name in names:
        if os.path.lexists(new / name):
            continue
        if (old / name).is_dir() and not (old / name).is_symlink():
            shutil.copytree(old / name, new / name, symlinks=True, copy_function=_link_file)
        else:
            _link_file(old / name, new / name)


def _link_file(old: str | Path, new: str | Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a file system without
        shutil.copy2(old, new, follow_symlinks=False)


def _take_place(new: Path, path: Path) -> Path:
    """Put `new` in the place of the folder `path`; returns where that is now."""
    if _exchange(new, path):
        return new
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)  # of a run that was killed after it had brought the new one
    path.rename(old)
    new.rename(path)
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, which Linux alone offers, on most file systems; False if they are as before."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _old(path: Path) -> Path:
    return path.with_name(f"{HIDDEN[1]}{path.name}")


def put_back(path: Path) -> None:
    """Bring the old folder back where a run was killed between taking it away and bringing the new one."""
    if _old(path).is_dir() and not os.path.lexists(path):
        _old(path).rename(path)
