"""To the archive: derived series of this program, added to what it holds. Nothing is replaced, nothing deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.errors import InvalidDicomError

from interslice.files.dicom_write import KINDS, NAME
from interslice.pacs.archive import Archive, ArchiveError
from interslice.usage import UsageError

if TYPE_CHECKING:
    import requests

BATCH = 32 * 2**20
"""Bytes of one request, at most, or one image: all of it is held in memory."""
LOOKS = 5
"""How often the archive is asked whether it holds what it took: some take their time to list it."""
REASONS = {0x0110: "processing failed", 0x0122: "this kind of image is not taken", 0x0124: "not authorised",
           0xC000: "not understood", 0xA700: "out of resources", 0xA900: "not the class it says"}  # fmt: skip
"""Failure reasons of a STOW answer (PS3.18, table I.2-2); of the last three the first digits count."""


@dataclass(frozen=True)
class Derived:
    """A series that this program made.

    Attributes:
        folder: where it is.
        files: SOPInstanceUID -> file, in the order of the slices.
    """

    folder: Path
    study: str
    series: str
    description: str
    files: dict[str, Path]


def derived_series(path: Path, kinds: tuple[str, ...] = ("recon",)) -> list[Derived]:
    """The derived series in a folder: it is one, or holds some, at any depth, of these kinds.

    Args:
        path: a folder `<case>_recon`, that of a case, or of many.
        kinds: of volumes, see `interslice.files.dicom_write.KINDS`.

    Raises:
        UsageError: there is none, or an unknown kind is asked for.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"kinds must be of {', '.join(KINDS)}, got {', '.join(unknown)}")
    if not path.is_dir():
        raise UsageError(f"{path} is no folder")
    if any(path.glob("*.dcm")):
        return [derived(path)]
    found = sorted(folder for kind in kinds for folder in path.rglob(f"*_{kind}") if any(folder.glob("*.dcm")))
    if not found:
        raise UsageError(
            f"{path} holds no DICOM series called {' or '.join(f'*_{kind}' for kind in kinds)}: reconstruct with "
            "--output_format dicom"
        )
    return [derived(folder) for folder in found]


def derived(folder: Path) -> Derived:
    """What is in a folder `<case>_recon`.

    Raises:
        ValueError: some file is no image of this program, or they are of several series. What else is sent by mistake,
            such as the scan itself, could not be taken back.
    """
    files, series = {}, set()
    for path in sorted(folder.iterdir()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, EOFError):
            raise ValueError(f"{path} is no DICOM image: nothing of {folder} is stored") from None
        makers = [item.get("ManufacturerModelName") for item in header.get("ContributingEquipmentSequence") or []]
        if NAME not in makers or header.get("ImageType", [""])[0] != "DERIVED":
            raise ValueError(f"{path} was not made by this program: nothing of {folder} is stored")
        series.add((header.StudyInstanceUID, header.SeriesInstanceUID, header.get("SeriesDescription", "")))
        files[str(header.SOPInstanceUID)] = path
    if len(series) != 1:
        raise ValueError(f"{folder} holds images of {len(series)} series: nothing of it is stored")
    return Derived(folder, *map(str, series.pop()), files)


def store(archive: Archive, made: Derived, sent: Callable[[int, int], object] = lambda n, of: None) -> int:
    """Add a series to the archive, and see that it holds all of it; returns how many images it had not before.

    Args:
        archive: whom to send it.
        made: what.
        sent: is told how many were sent, of how many.

    Raises:
        ArchiveError: it refuses some, or does not list them afterwards. What it has taken stays there, and the same
            call sends the rest.
    """
    there = archive.instances(made.study, made.series)
    missing = {uid: path for uid, path in made.files.items() if uid not in there}
    done = 0
    for batch in batches(list(missing.values())):
        images = [pydicom.dcmread(path) for path in batch]
        try:
            answer = archive.ask(
                f"series {made.series}",
                lambda c, images=images: c.store_instances(images, study_instance_uid=made.study),
            )
            refused = refusals(answer)
        except ArchiveError as error:
            refused = told_by(error.answer)
            if not refused:
                raise ArchiveError(f"{error}; {done} of {len(missing)} images were taken before, {AGAIN}") from None
        if refused:
            which = "; ".join(f"{uid}: {why}" for uid, why in refused[:3])
            raise ArchiveError(
                f"{archive.host} does not take {len(refused)} of {len(batch)} images of {made.series} ({which}); "
                f"{done} of {len(missing)} were taken before, {AGAIN}"
            )
        done += len(batch)
        sent(done, len(missing))
    confirm(archive, made)
    return len(missing)


AGAIN = "and stay there: the same command sends the rest"


def batches(files: list[Path]) -> Iterator[list[Path]]:
    """Files in groups of at most BATCH bytes."""
    group: list[Path] = []
    size = 0
    for path in files:
        if group and size + path.stat().st_size > BATCH:
            yield group
            group, size = [], 0
        group.append(path)
        size += path.stat().st_size
    if group:
        yield group


def refusals(answer: pydicom.Dataset) -> list[tuple[str, str]]:
    """(SOPInstanceUID, reason) of what an archive did not take, by its answer (PS3.18, annex I)."""
    items = [*(answer.get("FailedSOPSequence") or []), *(answer.get("OtherFailuresSequence") or [])]
    return [(str(i.get("ReferencedSOPInstanceUID", "an image")), reason(i.get("FailureReason"))) for i in items]


def reason(code: int | None) -> str:
    """A failure reason in words."""
    if code is None:
        return "no reason given"
    kind = next((kind for kind in (code, code & 0xFF00, code & 0xF000) if kind in REASONS), None)
    return f"{REASONS.get(kind, 'refused')} ({code:04X})"


def told_by(answer: requests.Response | None) -> list[tuple[str, str]]:
    """The refusals in an answer whose status is an error; none if it holds no such list."""
    try:
        return refusals(pydicom.Dataset.from_json(answer.json()))
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def confirm(archive: Archive, made: Derived) -> None:
    """ArchiveError unless the archive lists all images of the series."""
    for look in range(LOOKS):
        if not (missing := made.files.keys() - archive.instances(made.study, made.series)):
            return
        if look < LOOKS - 1:
            archive.pause(2.0**look)
    raise ArchiveError(
        f"{archive.host} took series {made.series} and lists only {len(made.files) - len(missing)} of its "
        f"{len(made.files)} images: look into the archive before you rely on it"
    )
