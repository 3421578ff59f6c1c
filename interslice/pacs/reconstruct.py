"""The ordinary reconstruction of a folder with one series, in a process of its own, which knows no password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pydicom

from interslice.files.command_line import pairs
from interslice.home import PACKAGE
from interslice.pacs.archive import PASSWORD, TOKEN, USER
from interslice.usage import UsageError

OWN = ("output", "output_dir", "output_format", "dry_run")
"""Options that are set here."""


def check_options(options: Sequence[str]) -> None:
    """UsageError for options of a reconstruction that are set here, or words that are no options."""
    for name, word in pairs(options):
        if name is None:
            raise UsageError(f"{word!r} is no option: after -- come those of the reconstruction, such as --preset fast")
        if name in OWN:
            raise UsageError(f"--{name} is set by this command, and cannot be given after --")


def reconstruct(source: Path, output_dir: Path, options: Sequence[str] = ()) -> list[Path]:
    """Reconstruct a DICOM folder; returns the folders of the series that were made, `*_recon` and its like.

    Args:
        source: the folder; the case is called by it.
        output_dir: where cases go.
        options: more options of `interslice run`, such as `--preset fast`.

    Raises:
        RuntimeError: the reconstruction failed, with its words on the screen.
    """
    before = series_in(output_dir)
    command = [sys.executable, "-P", "-m", "interslice", "run", "-o", str(output_dir), "--output-format", "dicom"]
    environment = {k: v for k, v in os.environ.items() if k not in (USER, PASSWORD, TOKEN)}
    paths = [str(PACKAGE.parent), *filter(None, [environment.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, *options, "--", str(source)], env=environment | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    if done.returncode:
        raise RuntimeError(f"the reconstruction ended with status {done.returncode}, as said above: nothing is stored")
    return sorted(folder for uid, folder in series_in(output_dir).items() if uid not in before)


def series_in(folder: Path) -> dict[str, Path]:
    """SeriesInstanceUID -> folder of every DICOM series of the cases in a folder of results."""
    found = {}
    for path in folder.glob("*/*/0001.dcm"):
        found[str(pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)] = path.parent
    return found
