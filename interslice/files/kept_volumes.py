"""What is written of the volumes of a series, until the last is done and they are joined to one case.

    <output_dir>/.unfinished_series/<case>-<digest>/00007_recon.f32      voxels (X, Y, Z), float32, X fastest
                                                    00007.json           the record of volume 7, written last
                                                    first/               what is written of the first one alone

The digest tells the data and all that the results are a function of. A run that was stopped goes on with --resume or
--skip_finished after the last volume that has its record; any other begins anew.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from interslice.files.digest import digest, of_versions
from interslice.files.fingerprint import fingerprint, states_of
from interslice.files.paths import path_of
from interslice.files.series import Series, TimePoint
from interslice.files.switch import is_on
from interslice.files.whole import written_whole
from interslice.files.write import write_json

FOLDER = ".unfinished_series"
FIRST = "first"


@dataclass(frozen=True)
class Kept:
    """The volumes of one series that are done.

    Args:
        folder: where they lie.
        series: of which.
    """

    folder: Path
    series: Series

    @property
    def first(self) -> Path:
        """The folder of what is written of the first volume alone."""
        return self.folder / FIRST

    def keep(self, index: int, suffix: str, volume: torch.Tensor) -> None:
        """Write a volume (1, X, Y, Z)."""
        with written_whole(self._path(index, suffix)) as partial, partial.open("wb") as file:
            np.asarray(volume.as_tensor()[0].cpu(), np.float32).T.tofile(file)  # X fastest, as in NIfTI

    def finish(self, index: int, record: dict) -> None:
        """A volume is done, and this is its record."""
        write_json(self.folder / f"{index:05d}.json", record)

    def is_done(self, index: int) -> bool:
        return (self.folder / f"{index:05d}.json").is_file()

    def records(self) -> list[dict]:
        """Of all volumes, in order."""
        paths = (self.folder / f"{index:05d}.json" for index in self.series.chosen)
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def voxels(self, suffix: str) -> Iterator[bytes]:
        """Those of all volumes, volume after volume, in pieces."""
        for index in self.series.chosen:
            with self._path(index, suffix).open("rb") as file:
                while piece := file.read(1 << 20):
                    yield piece

    def _path(self, index: int, suffix: str) -> Path:
        return self.folder / f"{index:05d}_{suffix}.f32"


class KeptVolumes:
    """The volumes that are done, of all series of a run.

    Args:
        output_dir: of the results.
        resume, skip_finished: switches: go on with what an earlier run has done.
        of: what results are a function of, besides the data and the code.
        beside: paths of files and folders, or None, of which results are a function, too.
    """

    def __init__(self, output_dir: str | Path, resume: bool | str = False, skip_finished: bool | str = False,
                 of: Sequence[object] = (), beside: Sequence[str | None] = ()) -> None:  # fmt: skip
        self.folder = path_of("output_dir", output_dir) / FOLDER
        self.goes_on = is_on(resume, "resume") or is_on(skip_finished, "skip_finished")
        self.of = [*of, [states_of(path) for path in beside]]
        self._found: dict[str, Kept] = {}

    def kept(self, case: str, series: Series) -> Kept:
        """Those of a case."""
        if case not in self._found:
            told = digest(fingerprint(series), series.chosen, series.intensities, *self.of, of_versions())
            self._found[case] = Kept(self.folder / f"{case}-{told}", series)
        return self._found[case]

    def left(self, case: str, series: Series) -> tuple[int, ...]:
        """The volumes that are to be done: the last one in any case, as it joins them all."""
        kept = self.kept(case, series)
        for other in self.folder.glob(f"{escape(case)}-*"):
            if other.name.rpartition("-")[0] == case and (other != kept.folder or not self.goes_on):
                if self.goes_on and (lost := len(list(other.glob("*.json")))):
                    _say(f"{case}: {lost} volumes of a run with other data or settings cannot be gone on with")
                shutil.rmtree(other, ignore_errors=True)
        left = tuple(i for i in series.chosen if i == series.chosen[-1] or not kept.is_done(i))
        if (done := len(series.chosen) - len(left)) and self.goes_on:
            _say(f"{case}: going on after {done} of {len(series.chosen)} volumes")
        return left

    def begun(self, case: str, point: TimePoint) -> Kept:
        """Where a volume is kept, made ready for it."""
        kept = self.kept(case, point.series)
        kept.folder.mkdir(parents=True, exist_ok=True)
        return kept

    def forget(self, case: str) -> None:
        """The case is written."""
        shutil.rmtree(self._found.pop(case).folder, ignore_errors=True)
        with suppress(OSError):  # others are there, of this run or of another one
            self.folder.rmdir()


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # beside the bar
