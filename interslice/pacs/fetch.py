"""From the archive: which series it holds, and all images of one as files, or none."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from interslice.files.whole import folder_written_whole
from interslice.pacs.archive import Archive, ArchiveError, first
from interslice.usage import UsageError

ORIGINAL = (("application/dicom", "*"),)
"""Images as the archive keeps them, in whatever transfer syntax."""
UID = re.compile("[0-9A-Za-z][0-9A-Za-z.-]{0,63}")
"""Digits and dots, with the letters that some systems take besides; no separator of paths."""
FIELDS = ("SeriesDescription", "StudyDate", "PatientID", "NumberOfSeriesRelatedInstances")
"""What an answer need not hold unless it is asked for."""
SHOWN = 20
"""Series that a message lists at most."""


@dataclass(frozen=True)
class Series:
    """A series of an archive, as it describes it; texts are empty where it says nothing.

    Attributes:
        count: number of its images that the archive states, None if it does not.
    """

    study: str
    series: str
    modality: str = ""
    number: str = ""
    description: str = ""
    date: str = ""
    count: int | None = None

    @classmethod
    def of(cls, item: dict) -> Series:
        """From an answer to a search (PS3.18, 10.6.3.3)."""
        count = first(item, "00201209")
        return cls(
            *(first(item, tag) for tag in ("0020000D", "0020000E", "00080060", "00200011", "0008103E", "00080020")),
            int(count) if count.isdigit() else None,
        )

    def __post_init__(self) -> None:
        for uid in (self.study, self.series):  # one becomes the name of a folder
            if not UID.fullmatch(uid):
                raise ArchiveError(f"the archive names a study or series {uid!r}, which is no UID")

    def __str__(self) -> str:
        images = "" if self.count is None else f", {self.count} images"
        return (
            f"{self.modality or '?'} {self.number or '-'} {self.description!r} of {self.date or 'no date'}{images}: "
            f"--study {self.study} --series {self.series}"
        )


def search(archive: Archive, *, study: str | None = None, series: str | None = None, patient: str | None = None,
           description: str | None = None) -> list[Series]:  # fmt: skip
    """Series that match everything that is given, as the archive orders them.

    Args:
        archive: whom to ask.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        patient: PatientID.
        description: SeriesDescription; * stands for any letters, ? for one, and case does not count.

    Raises:
        UsageError: nothing is given.
    """
    if not (study or series or patient):
        raise UsageError("say which series: --study and --series, or --patient, perhaps with --description")
    given = {"SeriesInstanceUID": series, "PatientID": patient}
    filters = {key: value for key, value in given.items() if value}
    items = archive.search(
        "the search",
        "0020000E",
        lambda c, **page: c.search_for_series(study or None, search_filters=filters, fields=FIELDS, **page),
    )

    def fits(item: dict) -> bool:  # an archive may leave out what it cannot match, and seldom matches descriptions
        whose, said = first(item, "00100020"), first(item, "0008103E")
        if patient and not whose:
            raise ArchiveError(f"{archive.host} does not say whose series these are: name them by --study and --series")
        return (
            first(item, "0020000D") in ("", study or first(item, "0020000D"))
            and (not series or first(item, "0020000E") == series)
            and (not patient or whose == patient)
            and (not description or fnmatch.fnmatchcase(said.casefold(), description.casefold().replace("[", "[[]")))
        )

    asked = {"0020000D": {"Value": [study]}} if study else {}  # which the answer need not repeat
    return [Series.of(asked | item) for item in items if fits(item)]


def one(found: list[Series], host: str) -> Series:
    """The one series that was found; else an ArchiveError that lists those that there are."""
    if not found:
        raise ArchiveError(f"{host} holds no series that matches")
    if len(found) > 1:
        shown = "\n".join(f"  {series}" for series in found[:SHOWN])
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ArchiveError(f"{len(found)} series match, name one:\n{shown}{more}")
    return found[0]


def fetch(
    archive: Archive, series: Series, folder: Path, seen: Callable[[int, int], object] = lambda n, of: None
) -> int:
    """Write all images of a series into `folder`, which then holds them and nothing else; returns their number.

    Args:
        archive: where it is.
        series: which.
        folder: replaced if it exists, once the new images are there.
        seen: is told how many have arrived, of how many.

    Raises:
        ArchiveError: not all of it came, some is damaged, or it grows meanwhile: nothing is written.
    """
    wanted = archive.instances(series.study, series.series)
    if len(wanted) < (series.count or 1):
        raise ArchiveError(
            f"{archive.host} lists {len(wanted)} images of series {series.series}"
            + (f", and says that it has {series.count}" if series.count else "")
            + ": nothing is read of half a series"
        )
    with folder_written_whole(folder) as partial:
        archive.ask(f"series {series.series}", lambda client: _receive(client, series, wanted, partial, seen))
        if (now := archive.instances(series.study, series.series)) != wanted:
            raise ArchiveError(
                f"series {series.series} had {len(wanted)} images when it was asked for and now has {len(now)}: "
                "it is still being sent, try again when it is whole"
            )
    return len(wanted)


def _receive(client, series: Series, wanted: set[str], folder: Path, seen: Callable[[int, int], object]) -> None:
    """Write each image as it comes; of an earlier try nothing is left."""
    for path in folder.iterdir():
        path.unlink()
    arrived: set[str] = set()
    try:
        for image in client.iter_series(series.study, series.series, media_types=ORIGINAL):
            uid = str(image.get("SOPInstanceUID", ""))
            if uid not in wanted or image.get("SeriesInstanceUID") != series.series:
                raise ArchiveError(f"an image arrived that is not of series {series.series}: {uid or 'without a UID'}")
            if uid not in arrived:
                arrived.add(uid)
                check_whole(image)
                image.save_as(folder / f"{len(arrived):05d}.dcm", enforce_file_format=True)
                seen(len(arrived), len(wanted))
    except (InvalidDicomError, EOFError, ValueError, AttributeError) as error:  # the last: a header that lacks a part
        raise ArchiveError(f"image {len(arrived) + 1} of series {series.series} arrived damaged: {error}") from None
    if missing := wanted - arrived:
        raise ArchiveError(
            f"{len(missing)} of {len(wanted)} images of series {series.series} did not arrive, such as "
            f"{min(missing)}: nothing is read of half a series"
        )


def check_whole(image: pydicom.Dataset) -> None:
    """ValueError if an uncompressed image has fewer pixels than its header says, as one that was cut off."""
    syntax = image.file_meta.TransferSyntaxUID
    if "PixelData" not in image or syntax.is_compressed:
        return
    bits = image.Rows * image.Columns * image.get("SamplesPerPixel", 1) * image.BitsAllocated
    needed = (bits * int(image.get("NumberOfFrames") or 1) + 7) // 8
    if len(image.PixelData) < needed:
        raise ValueError(f"it has {len(image.PixelData)} of {needed} bytes of pixels")
