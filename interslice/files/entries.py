"""What the entries of a folder are, asked so that an odd one does not end a run.

`Path.is_file` and `Path.exists` raise what the system says of a link whose target is too long, and of what lies in a
folder that may be listed and not entered.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

NO_FILE = "no file, but a pipe or a device"


class Kind(Enum):
    """What a path leads to; NOTHING where it does not exist, and for a link to nothing."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = NO_FILE
    NOTHING = "nothing"


def kind_of(path: str | Path) -> Kind:
    """What a path leads to, links followed; OSError where the system does not tell."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError of a NUL in the name
        return Kind.NOTHING
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Kind.NOTHING
        raise
    if stat.S_ISREG(mode):
        return Kind.FILE
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER


def kinds_of(folder: Path, paths: Sequence[Path], refused: dict[str, str]) -> dict[Path, Kind]:
    """What each entry of a folder is; those that the system does not tell get its words in `refused`.

    A folder none of whose entries may be looked at is refused once, and not for each of them.
    """
    kinds, errors = {}, {}
    for path in paths:
        try:
            kinds[path] = kind_of(path)
        except OSError as error:
            errors[path] = error
    if errors and not kinds and all(isinstance(e, PermissionError) for e in errors.values()):
        refused[str(folder)] = "Permission denied: give yourself the right to enter it (chmod u+x)"
    else:
        refused.update({str(path): in_words(error, path) for path, error in errors.items()})
    return kinds


def in_words(error: OSError, path: str | Path | None = None) -> str:
    """What the system says of an entry, and what helps."""
    said = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return f"{said}: give yourself the right to read it"
    return f"{said}: mend or remove the link" if path is not None and os.path.islink(path) else said
