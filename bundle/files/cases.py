"""The volumes of a run: found, read and checked before the first of them is reconstructed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from bundle.files.dicom_names import name_of
from bundle.files.dicom_read import is_dicom_source
from bundle.files.dicom_search import NoStackError, choose, linked, search
from bundle.files.find import SUFFIXES, find_volumes
from bundle.files.fingerprint import fingerprint
from bundle.files.paths import path_of
from bundle.files.placement import apart
from bundle.files.root_cause import root_cause
from bundle.files.switch import is_on

SAME = "same"
"""Data of an earlier run."""


class Cases:
    """The volumes of a run: each is read and checked before the first is reconstructed.

    Whatever was asked for is accounted for: usable; finished by an earlier run; left out; or refused, which `finish`
    names again, ending the process with status 1.

    Args:
        source: a volume, a DICOM series folder, or a folder of volumes and of DICOM folders at any depth.
        preprocessing: the transform that every volume must pass.
        region_dir: a folder of masks; a volume's mask, of the same file name (of DICOM: <case>.nii.gz), becomes its
            "region".
        reader: the first of the transforms. It may state the `suffixes` of the files that it reads, and the DICOM
            `series` that it takes; one that has no `series` reads no DICOM.
        skip_finished: a switch: leave out volumes whose case has its record (run.json) in `output_dir`.
        output_dir: of the results.

    Attributes:
        usable: "image" (the path, or the stack that was found of DICOM) and "case" (the name) of each.
        finished: names of cases.
        left_out, refused: path -> why.

    Raises:
        ValueError: no volume is usable, and none is finished.
    """

    def __init__(self, source: str, preprocessing: Callable[[dict], dict], region_dir: str | None = None,
                 reader: Callable | None = None, skip_finished: bool | str = False, output_dir: str = ".",
                 ) -> None:  # fmt: skip
        skip_finished = is_on(skip_finished, "skip_finished")
        self.output_dir = path_of("output_dir", output_dir)
        dicom = hasattr(reader, "series")
        found = find_volumes(source, getattr(reader, "suffixes", SUFFIXES), self.output_dir, dicom or reader is None)
        self.region_dir = None if region_dir is None else path_of("region_dir", region_dir)
        self.usable: list[dict] = []
        self.finished: list[str] = []
        self.left_out, self.refused = found.left_out, {}
        items = self._with_stacks(found.items, reader.series) if dicom else found.items
        for item in tqdm(items, desc="reading", unit="case", leave=False, delay=5):
            earlier = self._earlier(item)
            if earlier == SAME and skip_finished:
                self.finished.append(item["case"])
            elif earlier in (None, SAME):
                self._read(item, preprocessing)
            else:
                where = self.output_dir / item["case"]
                reason = f"{where} holds the results of {earlier}: choose another output_dir, or move them"
                self._refuse(os.fspath(item["image"]), reason)
        for path, why in self.left_out.items():
            _say(f"left out {path}: {why}")
        if self.finished:
            _say(f"{len(self.finished)} of {len(items)} volumes are finished in {self.output_dir}")
        if not self.usable and not self.finished:
            raise ValueError("no usable volume:\n" + _list(self.refused))

    def _with_stacks(self, items: list[dict], series: int | str | None) -> list[dict]:
        """Items with the stack that is to be reconstructed in the place of each DICOM folder or file."""
        folders = {Path(item["image"]): item for item in items if is_dicom_source(item["image"])}
        searches = []
        for folder, item in tqdm(folders.items(), desc="reading headers", unit="folder", leave=False, delay=5):
            try:
                searches.append(search(folder))
            except Exception as error:  # a header can be damaged in as many ways as there are elements
                self._refuse(item["image"], f"{type(error).__name__}: {root_cause(error)}")
        absent: dict[str, str] = {}
        for found in linked(searches):
            item, *parts = (folders[source] for source in found.sources)
            items = [i for i in items if i not in parts]
            try:
                item["image"] = stack = choose(found, series)
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

    def _earlier(self, item: dict) -> str | None:
        """Whose results the folder of a case holds: None for nobody's, SAME, or the path of other data.

        The same path with other data is a new version of them, whose results take the place of the old ones.
        """
        path = os.fspath(item["image"])
        try:
            record = json.loads((self.output_dir / item["case"] / "run.json").read_text(encoding="utf-8"))
            source, known = record.get("source"), record.get("fingerprint")
        except (OSError, ValueError, AttributeError):
            return None
        if source is None:  # a record that says nothing of its data speaks of no others
            return SAME
        same_path = os.path.realpath(source) == os.path.realpath(path)
        if same_path if known is None else known == fingerprint(item["image"]):
            return SAME
        if not same_path:
            return source
        _say(f"{path} has changed: its results in {self.output_dir / item['case']} are replaced")
        return None

    def _read(self, item: dict, preprocessing: Callable[[dict], dict]) -> None:
        path = os.fspath(item["image"])
        if self.region_dir is not None:
            name = f"{item['case']}.nii.gz" if Path(path).is_dir() else Path(path).name
            if (region := self.region_dir / name).is_file():
                item["region"] = str(region)
        try:
            check_region(preprocessing(dict(item)))
        except Exception as error:  # a file can be broken in as many ways as readers can fail
            self._refuse(path, root_cause(error))
            return
        self.usable.append(item)

    def _refuse(self, path: str, why: str) -> None:
        self.refused[path] = why = why.removeprefix(f"{path}: ")
        _say(f"skipped {path}: {why}")

    def finish(self) -> None:
        """End the process with status 1, naming the volumes that were refused, if there are any."""
        total = len(self.usable) + len(self.finished) + len(self.refused)
        if total > 1 or self.left_out:
            _say(
                f"{len(self.usable)} reconstructed, {len(self.finished)} finished before, {len(self.refused)} skipped, "
                f"{len(self.left_out)} left out"
            )
        if self.refused:
            raise SystemExit(f"{len(self.refused)} of {total} volumes were skipped:\n{_list(self.refused)}")


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
