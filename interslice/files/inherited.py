"""What JSON files higher up in a BIDS data set say of a scan.

    T2w.json                                   of every T2w of the data set
    sub-01/sub-01_acq-cor_T2w.json             of those of sub-01 with acq-cor
    sub-01/anat/sub-01_acq-cor_T2w.json        beside the scan: goes before the others

A file applies where its suffix is the scan's and each of its entities is the scan's. Source: Brain Imaging Data
Structure 1.10, "The Inheritance Principle".
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from interslice.files.bids_names import bids_name, bids_root
from interslice.files.limits import read_text

ABOVE = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)*)([A-Za-z0-9]+)\.json")


def inherited(volume: Path) -> list[tuple[Path, dict]]:
    """(file, what it says) of those that apply to a scan named by BIDS, the most general first; not the one beside it.

    Files that cannot be read are passed over: a validator of data sets names them.
    """
    name = bids_name(volume)
    if name is None:
        return []
    beside = f"{name}.json"
    found: list[tuple[Path, dict]] = []
    for folder in _folders(Path(os.path.abspath(volume))):
        try:
            names = [n for n in os.listdir(folder) if n != beside and _applies(n, name.suffix, dict(name.entities))]
        except OSError:
            continue
        for file in sorted(names, key=lambda n: (n.count("_"), n)):
            try:
                fields = json.loads(read_text(folder / file))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(fields, dict):
                found.append((folder / file, fields))
    return found


def _folders(volume: Path) -> list[Path]:
    """From the root of the data set to the folder of the scan."""
    root = bids_root(volume)
    return [folder for folder in reversed(volume.parents) if folder == root or root in folder.parents]


def _applies(file: str, suffix: str, entities: dict[str, str]) -> bool:
    match = ABOVE.fullmatch(file)
    if match is None or match[2] != suffix:
        return False
    stated = [part.split("-", 1) for part in match[1].split("_") if part]
    return all(entities.get(key) == label for key, label in stated)
