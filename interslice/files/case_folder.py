"""All files of a case as one set: prepared aside, and put in the place of the old set at once.

The record of a case, run.json, names the files of its set. What else lies in the folder (an adapted prior, drawings of
a reader) is not of the set, and stays.

On a GPU a case is written while the next one is sampled (interslice.files.handover). On a CPU the sampler needs the
same cores, so that nothing would be gained.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from interslice.files.find import case_of
from interslice.files.findings import findings_of
from interslice.files.handover import Handover
from interslice.files.kept_volumes import Kept, KeptVolumes
from interslice.files.paths import path_of
from interslice.files.record import RECORD, count, record_of
from interslice.files.series import Series, TimePoint, points_of
from interslice.files.source import series_of
from interslice.files.switch import is_on
from interslice.files.unfinished import FOLDER as STATES
from interslice.files.unfinished import Unfinished
from interslice.files.whole import HIDDEN, folder_written_whole, put_back
from interslice.files.write import check_writable
from interslice.usage import UsageError

LONGEST_NAME = 255
"""Bytes, of a file's name on the usual file systems."""
LONGEST_SUFFIX = "_measured.nii.gz"
STALE = 24 * 3600
"""Seconds after which what a killed run left aside is taken away; no set is that long in writing."""
UNNAMED = r"{}_(recon|std|filled|measured)(\.nii\.gz)?|(run|metrics)\.json|report\.(png|html)|trajectory"
"""Files of a case's set whose record does not name them, as version 0.6.0 wrote it."""


class Writer:
    """Writes some files of a case."""

    def start(self) -> None:
        """Called before each case (of the batches of a run: before each batch)."""

    def take(self, result: dict) -> dict:
        """The result with whatever else `write` needs: the next case may begin before this one is written."""
        return result

    def write(self, result: dict, folder: Path) -> None:
        """Write what is to be written of a result, "image" and "pred", into the folder; maybe in another thread."""
        raise NotImplementedError

    def keep(self, result: dict, point: TimePoint, kept: Kept) -> None:
        """Write what is to be written of a volume of a series, until the last is done: by default, of the first."""
        if point.first:
            self.write(result, kept.first)

    def join(self, result: dict, kept: Kept, folder: Path) -> None:
        """Write what is to be written of all volumes of a series; `result` is that of the last one."""


class WriteCases:
    """Handler: the files of each case, as one set that takes the place of the old one, `<output_dir>/<case>`.

    Args:
        output_dir: folder of the cases.
        writers: write the files.
        record: writes run.json, last, so that it can say which files there are and what they took.
        unfinished: of cases that are written beside the next one, keeps the states until then.
        beside: a switch: write a case while the next one is sampled. Whoever runs the engine asks `ended` what came of
            it, and waits for the last (`interslice.files.cases.Cases.run` does).
        kept: of series, keeps the volumes that are done until the last one is.
    """

    def __init__(self, output_dir: str, writers: Sequence[Writer], record: Writer, unfinished: Unfinished | None = None,
                 beside: bool | str = False, kept: KeptVolumes | None = None) -> None:  # fmt: skip
        if not isinstance(writers, (list, tuple)) or not writers or not all(hasattr(w, "write") for w in writers):
            raise UsageError(f"writers must be a list of interslice.files.case_folder.Writer, got {writers!r}")
        self.output_dir, self.writers = check_writable(output_dir), [*writers, record]
        self.unfinished, self.handover = unfinished, Handover(is_on(beside, "beside"))
        self.kept = kept or KeptVolumes(output_dir)
        self._states: dict[str, list[Path]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda _: take_away_stale(self.output_dir))
        engine.add_event_handler(Events.ITERATION_STARTED, lambda _: [writer.start() for writer in self.writers])
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the results of an iteration, or hand them over to be written."""
        for result in engine.state.output:
            case = case_of(result["image"])
            check_case(case)
            for writer in self.writers:
                result = writer.take(result)
            if self.handover.beside:
                self.handover.wait()  # so that no more than one is in the host's memory
                result = on_host(result)
                self._states[case] = self._states.get(case, []) + (self.unfinished.taken() if self.unfinished else [])
            point = series_of(result["image"])
            self.handover.give((case, point is None or point.last), partial(self._write, case, result))

    def left(self, item: Mapping) -> list[dict]:
        """What is to be reconstructed of an item of a run: itself, or the volumes of a series that are not done."""
        if not isinstance(series := item["image"], Series):
            return [dict(item)]
        left = self.kept.left(item["case"], series)
        return [one for one in points_of(item) if one["image"].index in left]

    @torch.no_grad()
    def _write(self, case: str, result: dict) -> None:
        result = result | {"writing_since": time.perf_counter()}
        point = series_of(result["image"])
        if point is not None:
            kept = self.kept.begun(case, point)
            for writer in self.writers:
                writer.keep(result, point, kept)
            if not point.last:
                return
        with self.set_of(case, result) as new:
            if point is not None and kept.first.is_dir():
                shutil.copytree(kept.first, new, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
            for writer in self.writers:
                writer.write(result, new) if point is None else writer.join(result, kept, new)
            said = self.said_of(case, result, new)
        if point is not None:
            self.kept.forget(case)
        tqdm.write(f"wrote {said}", file=sys.stdout)  # beside the bar of the next case
        sys.stdout.flush()

    def set_of(self, case: str, result: Mapping) -> AbstractContextManager[Path]:
        """Yields an empty folder for the files of a case, and brings them to their place if all went well."""
        return folder_written_whole(self.output_dir / case, keep=partial(others_in, case=case))

    def said_of(self, case: str, result: Mapping, new: Path) -> str:
        """In words, where the files of a case are, and which they are; `new` holds them."""
        return f"{self.output_dir / case}: {', '.join(described(path) for path in sorted(new.iterdir()))}"

    def ended(self, wait: bool = False) -> list[tuple[str, BaseException | None]]:
        """(case, what went wrong or None) of those whose writing has ended since the last call; a series at its end.

        Args:
            wait: until the last one has ended, too.
        """
        if wait:
            self.handover.wait()
        ended = [(case, error) for (case, whole), error in self.handover.ended() if whole or error is not None]
        for case, error in ended:
            states = self._states.pop(case, [])
            if error is None and states:
                self.unfinished.forget(states)
        return ended


def on_host(result: dict) -> dict:
    """The same with its volumes, and the maps that they carry, in the host's memory: the device is the next case's."""
    moved = {key: value.cpu() if isinstance(value, torch.Tensor) else value for key, value in result.items()}
    pred = moved.get("pred")
    if "findings" in getattr(pred, "meta", {}):
        pred.meta["findings"] = findings_of(pred).with_maps(lambda volume: volume.cpu())
    return moved


def described(path: Path) -> str:
    """Name of a file with its size, or of a folder with the number of its files."""
    if path.is_dir():
        return f"{path.name}/ ({count(path)} files)"
    size = path.stat().st_size
    return f"{path.name} ({size / 1e6:.1f} MB)" if size >= 1e5 else path.name


def others_in(folder: Path, case: str) -> list[str]:
    """Names in the folder of a case, or in what it was before, of what is not of the set that it holds."""
    if not folder.is_dir():
        return []
    named = (record_of(folder) or {}).get("files")
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith(HIDDEN))
    if isinstance(named, dict):
        return [name for name in names if name not in (RECORD, *named)]
    return [name for name in names if not re.fullmatch(UNNAMED.format(re.escape(case)), name)]


def check_case(case: str) -> None:
    """Raise ValueError for a name of a case that is none of a folder of its own in output_dir."""
    if case in ("", ".", "..") or case != os.path.basename(case) or case.startswith((*HIDDEN, STATES)):
        raise ValueError(f"its case would be called {case!r}, and no folder of results can be called that: rename it")


def check_place(output_dir: str | Path, case: str) -> None:
    """Raise ValueError where the results of a case cannot lie; put an old set back that a kill left aside."""
    check_case(case)
    folder = path_of("output_dir", output_dir) / case
    longest = len(os.fsencode(case + LONGEST_SUFFIX))
    if longest > LONGEST_NAME:
        raise ValueError(
            f"its name is too long: those of its results would have {longest} bytes, and the limit is {LONGEST_NAME}; "
            f"shorten it by {longest - LONGEST_NAME}"
        )
    put_back(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"its results go into {folder}, which is no folder: remove it, or choose another output_dir")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"its results go into {folder}, which you may not change: change its rights, or output_dir")


def take_away_stale(output_dir: Path) -> None:
    """Remove what runs that were killed a day ago or earlier have left aside."""
    for path in output_dir.glob(f"{HIDDEN[0]}*"):
        if time.time() - path.lstat().st_mtime > STALE:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True) if not path.is_dir() else None
