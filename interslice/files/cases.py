"""The volumes of a run: found, read and checked before the first of them is reconstructed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ignite.engine import Engine, Events
from tqdm import tqdm

from interslice.files.case_folder import WriteCases, check_place
from interslice.files.companions import Companions
from interslice.files.deidentify import dates_of
from interslice.files.dicom_names import name_of
from interslice.files.dicom_read import is_dicom_source
from interslice.files.dicom_search import NoStackError, Search, choose, linked, search
from interslice.files.find import SUFFIXES, find_volumes, namesakes
from interslice.files.fingerprint import fingerprint
from interslice.files.groups import grouped, no_scan, roots_of, usable_stacks
from interslice.files.last_words import reason_of
from interslice.files.member import Member, paths_of
from interslice.files.nameless import nameless
from interslice.files.paths import path_of
from interslice.files.placement import apart
from interslice.files.record import is_whole, record_of
from interslice.files.root_cause import root_cause
from interslice.files.scan import unreadable
from interslice.files.series import TimePoint, checked, points_of
from interslice.files.series_bar import SeriesBar
from interslice.files.series_record import numbers_in
from interslice.files.switch import is_on
from interslice.files.unfinished import Unfinished

SAME = "same"
"""Data of an earlier run."""


class Cases:
    """The volumes of a run: each is read and checked before the first is reconstructed.

    Whatever was asked for is accounted for: written; finished by an earlier run; left out; refused before the work; or
    failed in it. `finish` names the last two again, and ends the process with status 1.

    Args:
        source: a volume, a DICOM series folder, a folder of volumes and of DICOM folders at any depth, or a list.
        preprocessing: the transform that every volume must pass.
        region_dir, mask_dir, guide: what goes with the scans by their names (interslice.files.companions), as "region",
            "mask" and "guide" of their items.
        reader: the first of the transforms. It may state the `suffixes` of the files that it reads, of which folders it
            `holds` true that they are one measurement, and the DICOM `series` that it takes; one that has no `series`
            reads no DICOM. One that states by what to `combine` scans (interslice.files.groups) reads all of one
            patient as one case, a `interslice.files.member.Group`. One that has `volumes_of` reads what holds several
            volumes one by one, a `interslice.files.series.Series`.
        skip_finished: a switch: leave out volumes whose case is whole in `output_dir`, its record (run.json) and all
            files that this names.
        output_dir: of the results.
        deidentify: a switch, or "shift_dates": name cases by their data (interslice.files.nameless).

    Attributes:
        usable: "image" (the path, the stack that was found of DICOM, the group of scans of one patient, or the series
            of volumes) and "case" (the name) of each.
        finished, written: names of cases, whose results an earlier run or this one has written.
        left_out, refused, failed: path -> why.

    Raises:
        ValueError: no volume is usable, and none is finished.
    """

    def __init__(self, source: str, preprocessing: Callable[[dict], dict], region_dir: str | None = None,
                 reader: Callable | None = None, skip_finished: bool | str = False, output_dir: str = ".",
                 deidentify: bool | str = False, mask_dir: str | None = None,
                 guide: str | None = None) -> None:  # fmt: skip
        self.skip_finished = is_on(skip_finished, "skip_finished")
        self.output_dir = path_of("output_dir", output_dir)
        self.companions = Companions.given(region_dir, mask_dir, guide)
        self.usable: list[dict] = []
        self.finished: list[str] = []
        self.written: list[str] = []
        self.left_out, self.refused, self.failed = {}, {}, {}
        self.volumes_of = getattr(reader, "volumes_of", lambda data: data)
        items = self._find(source, reader, deidentify)
        for companions in self.companions:
            companions.check(len(items))
        self._look_at(items, preprocessing)
        self._say_found(len(items))
        if not self.usable and not self.finished:
            raise ValueError("no usable volume:\n" + _list(self.refused))

    def _find(self, source: str, reader: Callable | None, deidentify: bool | str) -> list[dict]:
        """The items of a source that can be told apart; what is none of them is left out, or refused."""
        dicom, combine = hasattr(reader, "series"), getattr(reader, "combine", None)
        suffixes = getattr(reader, "suffixes", SUFFIXES)
        found = find_volumes(source, suffixes, self.output_dir, dicom or reader is None, deep=combine is not None,
                             holds=getattr(reader, "holds", None))  # fmt: skip
        self.left_out = found.left_out
        if combine is not None:
            items = self._groups(found.items, source, combine, reader.series)
        else:
            timed = hasattr(reader, "volumes_of")
            items = self._with_stacks(found.items, reader.series, timed) if dicom else found.items
        items = nameless(items) if dates_of(deidentify) else items
        for path, why in (found.unreadable | namesakes(items)).items():
            self._refuse(path, why)
        return [item for item in items if os.fspath(item["image"]) not in self.refused]

    def _look_at(self, items: Iterable[dict], preprocessing: Callable[[dict], dict]) -> None:
        """Find out of each item whether it is finished, usable or refused."""
        for item in tqdm(items, desc="reading", unit="case", leave=False, delay=5):
            try:
                check_place(self.output_dir, item["case"])
            except ValueError as error:
                self._refuse(os.fspath(item["image"]), str(error))
                continue
            earlier = self._earlier(item)
            if earlier == SAME and self.skip_finished and self._is_finished(item):
                self.finished.append(item["case"])
            elif earlier in (None, SAME):
                self._read(item, preprocessing)
            else:
                where = self.output_dir / item["case"]
                reason = f"{where} holds the results of {earlier}: choose another output_dir, or move them"
                self._refuse(os.fspath(item["image"]), reason)

    def _say_found(self, total: int) -> None:
        for path, why in self.left_out.items():
            _say(f"left out {path}: {why}")
        if self.finished:
            _say(f"{len(self.finished)} of {total} volumes are finished in {self.output_dir}")

    def _with_stacks(self, items: list[dict], series: int | str | None, timed: bool) -> list[dict]:
        """Items with the stack that is to be reconstructed in the place of each DICOM folder or file."""
        folders = {Path(item["image"]): item for item in items if is_dicom_source(item["image"])}
        absent: dict[str, str] = {}
        for found in self._searched(folders):
            item, *parts = (folders[source] for source in found.sources)
            items = [i for i in items if i not in parts]
            try:
                item["image"] = stack = choose(found, series, timed)
                if len(several := found.usable) > 1:  # or the results of two series would meet
                    item["case"] += "_" + re.sub(r"[^\w.]+", "-", name_of(stack, several))
            except NoStackError as error:
                absent[item["image"]] = str(error)
            except ValueError as error:
                self._refuse(item["image"], str(error))
        # Of several folders, those without the series that was asked for are not missed.
        some = series is not None and len(absent) < len(items)
        for path, why in absent.items():
            if some:
                self.left_out[path] = f"no series {series}"
            else:
                self._refuse(path, why)
        return [item for item in items if item["image"] not in absent and item["image"] not in self.refused]

    def _searched(self, folders: Iterable[Path]) -> list[Search]:
        """What folders of DICOM files, or single ones, hold; those that cannot be read are refused."""
        searches = []
        for folder in tqdm(list(folders), desc="reading headers", unit="folder", leave=False, delay=5):
            try:
                searches.append(search(folder))
            except Exception as error:  # a header can be damaged in as many ways as there are elements
                self._refuse(os.fspath(folder), unreadable(error))
        return linked(searches)

    def _groups(self, items: list[dict], source: str, combine: str, series: int | str | None) -> list[dict]:
        """Items of which each is all scans of one patient (interslice.files.groups)."""
        folders = {item["image"]: Path(item["image"]) for item in items if is_dicom_source(item["image"])}
        members = [Member.of_file(item["image"]) for item in items if item["image"] not in folders]
        for found in self._searched(folders.values()):
            stacks, left_out = usable_stacks(found, series)
            members += [Member.of_series(stack, stacks) for stack in stacks]
            self.left_out |= left_out
        apart = {os.fspath(member): no_scan(member) for member in members}
        self.left_out |= {path: why for path, why in apart.items() if why}
        members = [member for member in members if not apart[os.fspath(member)]]
        if not members:
            for path, why in self.left_out.items():
                self._refuse(path, why)
            self.left_out = {}
        found = grouped(members, combine, roots_of(source))
        for item in found:
            if len(several := item["image"].members) > 1:
                _say(f"{item['case']}: {len(several)} scans were found, {', '.join(m.label for m in several)}")
        return found

    def _earlier(self, item: dict) -> str | None:
        """Whose results the folder of a case holds: None for nobody's, SAME, or the path of other data.

        The same path with other data is a new version of them, whose results take the place of the old ones.
        """
        path, folder = os.fspath(item["image"]), self.output_dir / item["case"]
        record = record_of(folder)
        if record is None:
            return None
        source, known = record.get("source"), record.get("fingerprint")
        source = source if isinstance(source, str) else None
        if source is None and known is None:  # a record that says nothing of its data speaks of no others
            return SAME
        same_path = source is not None and os.path.realpath(source) in map(os.path.realpath, paths_of(item["image"]))
        if same_path if known is None else known == fingerprint(item["image"]):
            return SAME
        if not same_path:
            return source or "other data"
        _say(f"{path} has changed: its results in {folder} are replaced")
        return None

    def _is_finished(self, item: dict) -> bool:
        """Whether an earlier run has written all that its record names, and of the volumes that are asked for."""
        folder, record = self.output_dir / item["case"], record_of(self.output_dir / item["case"]) or {}
        if not is_whole(folder, record):
            _say(f"{folder} is not whole: {item['case']} is done again")
            return False
        if numbers_in(record) != self._numbers(item):
            _say(f"{folder} holds other volumes of its series: {item['case']} is done again")
            return False
        return True

    def _numbers(self, item: dict) -> list[int]:
        """Those of the volumes of a series that are asked for; none of what is one volume."""
        try:
            return [point["image"].index for point in points_of({"image": self.volumes_of(item["image"])})
                    if isinstance(point["image"], TimePoint)]  # fmt: skip
        except ValueError:  # what is wrong with it is said when it is read
            return []

    def _read(self, item: dict, preprocessing: Callable[[dict], dict]) -> None:
        path = os.fspath(item["image"])
        item |= {one.key: found for one in self.companions if (found := one.of(item))}
        item.pop("named", None)
        try:
            item["image"] = self.volumes_of(item["image"])
            item = checked(item, preprocessing, check_region)
        except Exception as error:  # a file can be broken in as many ways as readers can fail
            self._refuse(path, root_cause(error))
            return
        self.usable.append(item)

    def _refuse(self, path: str, why: str) -> None:
        self.refused[path] = why = why.removeprefix(f"{path}: ")
        _say(f"skipped {path}: {why}")

    def run(self, evaluator: Engine, unfinished: Unfinished | None = None, writing: WriteCases | None = None) -> None:
        """Reconstruct the usable volumes with MONAI's evaluator; what goes wrong with one does not end the others.

        Args:
            writing: writes the results, perhaps beside the next case; else what the evaluator is done with is written.

        Raises:
            KeyboardInterrupt: says what is written, once what is under way is, and how to go on: by `unfinished`, in
                the midst of a case.
        """

        def begun(_) -> None:
            bar.begin(waiting[0])

        def sampled(_) -> None:
            item = waiting.pop(0)
            bar.done()
            of_case = [] if any(other["case"] == item["case"] for other in waiting) else [(item["case"], None)]
            self._account(writing.ended() if writing else of_case)
            if self._drop_failed(waiting):
                evaluator.terminate()

        evaluator.add_event_handler(Events.ITERATION_STARTED, begun)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, sampled)
        waiting = [part for item in self.usable for part in (writing.left(item) if writing else points_of(item))]
        bar = SeriesBar()
        try:
            while waiting:
                evaluator.data_loader.dataset.data = list(waiting)
                evaluator.state.epoch_length = len(waiting)
                try:
                    evaluator.run()
                except BrokenPipeError:  # nobody reads any more what is said
                    raise
                except Exception as error:  # in a case's data, in its reconstruction, or on the disk
                    self._fail(waiting.pop(0), error)
                    self._drop_failed(waiting)
            bar.close()
            self._account(writing.ended(wait=True) if writing else [])
        except KeyboardInterrupt as stop:
            bar.close()
            if writing:
                with suppress(KeyboardInterrupt):  # a second one does not wait
                    self._account(writing.ended(wait=True))
            raise type(stop)(self._interrupted(unfinished)) from None

    def _account(self, ended: list[tuple[str, BaseException | None]]) -> None:
        """Count the cases whose writing has ended as written, or as failed."""
        for case, error in ended:
            if error is None:
                self.written.append(case)
            elif isinstance(error, BrokenPipeError) or not isinstance(error, Exception):
                raise error
            else:
                self._fail(next(item for item in self.usable if item["case"] == case), error)

    def _drop_failed(self, waiting: list[dict]) -> bool:
        """Leave out the other volumes of a series of which one has failed; whether there were any."""
        left = [item for item in waiting if os.fspath(item["image"]) not in self.failed]
        dropped = len(left) < len(waiting)
        waiting[:] = left
        return dropped

    def _fail(self, item: dict, error: Exception) -> None:
        path, which = os.fspath(item["image"]), item["image"] if isinstance(item["image"], TimePoint) else None
        self.failed[path] = (f"{which}: " if which else "") + reason_of(error).removeprefix(f"{path}: ")
        _say(f"failed {path}: {self.failed[path]}")

    def _interrupted(self, unfinished: Unfinished | None) -> str:
        done = f"{len(self.written)} of {len(self.usable)} volumes are written to {self.output_dir}"
        named = f" ({', '.join(self.written)})" if self.written else ""
        midst = " --resume True," if unfinished is not None and unfinished.kept else ""
        return f"{done}{named}; go on with{midst} --skip_finished True"

    def finish(self) -> None:
        """End the process with status 1, naming what was refused or has failed, if there is any."""
        lost = self.refused | self.failed
        total = len(self.usable) + len(self.finished) + len(self.refused)
        if total > 1 or self.left_out:
            _say(
                f"{len(self.written)} reconstructed, {len(self.finished)} finished before, {len(self.refused)} "
                f"skipped, {len(self.failed)} failed, {len(self.left_out)} left out"
            )
        if lost:
            raise SystemExit(f"{len(lost)} of {total} volumes have no result:\n{_list(lost)}")


def check_region(data: Mapping) -> None:
    """Raise ValueError unless the mask "region" of a truth "label", where there is one, lies on its grid."""
    region, truth = data.get("region"), data.get("label")
    if region is None or truth is None:
        return
    if tuple(region.shape) != tuple(truth.shape) or apart(region.affine.numpy(), truth.affine.numpy(), truth.shape[1:]):
        raise ValueError(
            f"its mask {region.meta.get('filename_or_obj', '')} has {tuple(region.shape[1:])} voxels, the volume "
            f"{tuple(truth.shape[1:])}, or they lie elsewhere: bring the mask to the volume's grid"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(refused: dict[str, str]) -> str:
    return "\n".join(f"  {path}: {reason}" for path, reason in refused.items())
