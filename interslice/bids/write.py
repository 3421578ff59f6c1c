"""The files of each case into a BIDS derivatives data set, in place of a folder for each case.

A case's sidecar is written last: where it is, all is there that it names, and `--skip_finished` goes by it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interslice.bids.dataset import open_dataset
from interslice.bids.derivatives import Derivatives
from interslice.bids.names import MAPS, Derivative, derivative_of
from interslice.bids.sidecars import RUN_RECORD, fields_for
from interslice.files.case_folder import WriteCases, described
from interslice.files.member import paths_of
from interslice.files.nameless import without_paths
from interslice.files.record import RECORD
from interslice.files.source import source_of
from interslice.files.whole import aside
from interslice.files.write import write_json

VOLUME = ".nii.gz"


class WriteDerivatives(WriteCases):
    """Handler: as `WriteCases`, with the names of BIDS.

    Args:
        bids_dir: the data set that is read.
        desc: label of `desc` of the results.
        version: of this software.
        output_dir, others: those of `WriteCases`; `output_dir` is the derivatives data set.
    """

    def __init__(self, output_dir: str, bids_dir: str, desc: str, version: str, **others) -> None:
        super().__init__(output_dir, **others)
        self.derivatives = Derivatives(self.output_dir, open_dataset(bids_dir, described=False), desc, version)

    @contextmanager
    def set_of(self, case: str, result: Mapping) -> Iterator[Path]:
        """A hidden folder for a case's files, which then go to their places."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        new = aside(self.output_dir / case)
        new.mkdir()
        try:
            yield new
            self._place(case, [Path(path) for path in sources_of(result)], new)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def said_of(self, case: str, result: Mapping, new: Path) -> str:
        name = derivative_of(sources_of(result), self.derivatives.desc)
        places = places_of(case, name, sorted(p for p in new.iterdir() if p.name != RECORD))
        told = (described(path).replace(path.name, place.name) for path, place in places.items())
        return f"{self.output_dir / name.folder}: {', '.join(told)}"

    def _place(self, case: str, sources: list[Path], new: Path) -> None:
        name = derivative_of(sources, self.derivatives.desc)
        self.derivatives.begin()
        record = json.loads((new / RECORD).read_text(encoding="utf-8"))
        record["settings"] = without_paths(record["settings"])  # results are passed on, folders of a machine are not
        places = places_of(case, name, sorted(p for p in new.iterdir() if p.name != RECORD))
        sidecars = {name.path(kind, ".json"): kind for kind in kinds_in(case, new)}
        seal = self.output_dir / name.path(end=".json")
        self._remove_old(seal, keep={str(place) for place in (*places.values(), *sidecars)})
        for path, place in places.items():
            target = self.output_dir / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
        files = {str(place): count for path, place in places.items() if (count := record["files"].get(path.name))}
        record["files"] = files | {str(place): 1 for place in sidecars}
        sources = _used(sources, record, self.derivatives)
        for place, kind in sorted(sidecars.items(), key=lambda pair: pair[1] == "recon"):
            write_json(self.output_dir / place, fields_for(kind, sources, self.derivatives, record))

    def _remove_old(self, seal: Path, keep: set[str]) -> None:
        """Take away the sidecar of an earlier result, so that nothing half replaced looks whole, and what is stale."""
        old = record_in(seal)
        seal.unlink(missing_ok=True)
        for name in (old or {}).get("files", {}):
            path = self.output_dir / name
            if name not in keep and path.resolve().is_relative_to(self.output_dir.resolve()) and path.is_file():
                path.unlink()


def _used(sources: list[Path], record: dict, derivatives: Derivatives) -> list[Path]:
    """Of the scans of a group, those that the result was made from; in the record they are named by URIs."""
    stacks = record.get("stacks", [])
    files = {stack["file"] for stack in stacks if stack.get("file")}
    for stack in stacks:
        stack["file"] = derivatives.uri(stack["file"]) if stack.get("file") else None
    return [path for path in sources if os.path.abspath(path) in files] if files else sources


def sources_of(result: Mapping) -> list[str]:
    """The files that a result was made from: a scan, or all of a group."""
    image = result["image"]
    group = source_of(image).group
    return paths_of(group) if group is not None else [image.meta["filename_or_obj"]]


def kinds_in(case: str, folder: Path) -> list[str]:
    """Which kinds of volumes a case has."""
    return [kind for kind in (*MAPS, "mask") if (folder / f"{case}_{kind}{VOLUME}").is_file()]


def places_of(case: str, name: Derivative, files: list[Path]) -> dict[Path, Path]:
    """file of a case -> its place in the data set; what is no volume lies in the folder of figures."""
    volumes = {f"{case}_{kind}{VOLUME}": name.path(kind) for kind in (*MAPS, "mask")}
    others = name.figures / name.named()
    return {
        path: Path(volumes[path.name] if path.name in volumes else f"{others}_{path.name.removeprefix(f'{case}_')}")
        for path in files
    }


def record_in(seal: Path) -> dict | None:
    """The record of the run in a sidecar that this wrote; None where there is none."""
    try:
        found = json.loads(seal.read_text(encoding="utf-8"))[RUN_RECORD]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None
