"""The volumes of a run: found, read and checked before the first of them is reconstructed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bundle.files.find import SUFFIXES, case_name, list_volumes
from bundle.files.paths import path_of
from bundle.files.source import source_of
from bundle.files.switch import is_on


class Cases:
    """The volumes of a run: each is read and checked before the first is reconstructed.

    Bad ones are reported and left out; `finish` names them again and ends the process with status 1.

    Args:
        source: a volume, a DICOM series folder, or a folder of volumes.
        preprocessing: the transform that every volume must pass.
        region_dir: a folder of masks; a volume's mask, of the same file name, becomes its "region".
        suffixes: of the files of a folder that are read; None for those of volumes.
        skip_finished: a switch: leave out volumes whose case has its record (run.json) in `output_dir`.
        output_dir: of the results.

    Raises:
        ValueError: no volume is usable.
        SystemExit: with status 0, all volumes are finished.
    """

    def __init__(self, source: str, preprocessing: Callable[[dict], dict], region_dir: str | None = None,
                 suffixes: Sequence[str] | None = None, skip_finished: bool | str = False, output_dir: str = ".",
                 ) -> None:  # fmt: skip
        suffixes = SUFFIXES if suffixes is None else suffixes
        skip = is_on(skip_finished, "skip_finished")
        found = list_volumes(source, suffixes)
        if skip:
            found = _unfinished(found, path_of("output_dir", output_dir), suffixes)
        self.usable: list[dict] = []
        self.refused: dict[str, str] = {}
        regions = None if region_dir is None else path_of("region_dir", region_dir)
        for item in found:
            if regions is not None and (region := regions / Path(item["image"]).name).is_file():
                item["region"] = str(region)
            try:
                image = preprocessing(dict(item))["image"]
                # A DICOM folder has been searched now: what was found is read, and the folder not searched again.
                self.usable.append(item | {"image": source_of(image).dicom or item["image"]})
            except Exception as error:  # a file can be broken in as many ways as readers can fail
                self.refused[item["image"]] = root_cause(error)
                print(f"skipped {item['image']}: {self.refused[item['image']]}", file=sys.stderr, flush=True)
        if not self.usable:
            raise ValueError("no usable volume:\n" + self._list())

    def finish(self) -> None:
        """End the process with status 1, naming the volumes left out, if there are any."""
        if self.refused:
            raise SystemExit(
                f"{len(self.refused)} of {len(self.usable) + len(self.refused)} volumes were skipped:\n{self._list()}"
            )

    def _list(self) -> str:
        return "\n".join(f"  {path}: {reason}" for path, reason in self.refused.items())


def _unfinished(found: list[dict[str, str]], results: Path, suffixes: Sequence[str]) -> list[dict[str, str]]:
    left = [item for item in found if not (results / case_name(item["image"], suffixes) / "run.json").is_file()]
    if finished := len(found) - len(left):
        print(f"{finished} of {len(found)} volumes are finished in {results}", file=sys.stderr, flush=True)
    if not left:
        raise SystemExit(0)
    return left


def root_cause(error: BaseException) -> str:
    """The message of the innermost exception: what went wrong, without the transforms it passed through."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__
