"""A stack of DICOM slices: which images belong together, in which order, and where they lie.

    place      n . ImagePositionPatient along the normal n of the slices orders them, whatever the files' names
    affine     (RAS, mm) columns: pixels along a row, pixels down a column, slice to slice, first pixel; DICOM is LPS

Single-frame and multi-frame ("enhanced") MR and CT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag

from bundle.files.carried import carried

TOLERANCE = 0.02
"""Share of the slice distance by which distances may differ, and slices lie off their line."""
GRID_TOLERANCE = 1e-3
"""By which direction cosines, and relative pixel spacings, may differ within a stack."""
MODALITIES = ("MR", "CT")
PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True, eq=False)  # arrays inside have no one truth
class Slice:
    """One image: its file and, of a multi-frame file, its frame, and what the header says of it. Lengths in mm, LPS.

    `series` and `instance` are UIDs, `sop_class` too; `size` is (rows, columns).
    """

    path: Path
    frame: int | None
    series: str
    sop_class: str
    instance: str
    size: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    thickness: float
    rescale: tuple[float, float]
    echo: str
    image_type: tuple[str, ...]

    def belongs_with(self, other: Slice) -> bool:
        """Whether both are of one stack: the same series, size, kind and echo, and a grid that differs by rounding."""
        return (
            self.series == other.series
            and self.size == other.size
            and (self.image_type, self.echo) == (other.image_type, other.echo)
            and np.allclose(self.orientation, other.orientation, atol=GRID_TOLERANCE)
            and np.allclose(self.spacing, other.spacing, rtol=GRID_TOLERANCE)
        )

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


@carried
@dataclass(frozen=True, eq=False)  # arrays inside have no one truth
class Stack:
    """Slices in the order of their places along the normal.

    Args:
        source: the folder, or the one file, in which they were found.
        slices: at least one.
        header: the attributes that are the same in all of them.
        about: of a multi-frame file, what it says of its first frame.
    """

    source: Path
    slices: tuple[Slice, ...]
    header: Dataset = field(repr=False)
    about: Groups | None = field(default=None, repr=False)

    def __fspath__(self) -> str:
        return str(self.source)

    def __str__(self) -> str:
        h = self.header
        number, text = h.get("SeriesNumber") or "?", h.get("SeriesDescription", "")
        return f"series {number} {text!r}, {len(self.slices)} images, {'/'.join(self.slices[0].image_type)}"

    @property
    def places(self) -> np.ndarray:
        """mm along the normal, ascending."""
        return np.array([s.position @ self.slices[0].normal for s in self.slices])

    @property
    def affine(self) -> np.ndarray:
        """(4, 4), voxel (column, row, slice) to RAS in mm."""
        first, last = self.slices[0], self.slices[-1]
        affine = np.eye(4)
        affine[:3, 0] = first.orientation[:3] * first.spacing[1]
        affine[:3, 1] = first.orientation[3:] * first.spacing[0]
        affine[:3, 2] = (last.position - first.position) / (len(self.slices) - 1)
        affine[:3, 3] = first.position
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

    def check(self) -> None:
        """Raise ValueError, naming the places, unless the slices are evenly spaced on a line.

        A line that is not along the normal, of a tilted gantry, is a sheared affine, which `CheckVolumed` refuses.
        """
        steps = np.diff(self.places)
        pitch = float(np.median(steps))
        if (same := np.flatnonzero(steps < TOLERANCE * max(pitch, 0.1))).size:
            at = self.places[same[0]]
            raise ValueError(
                f"{self}: {int(same.size) + 1} images share a place with another, the first {at:.2f} mm along the "
                "normal; these are several time points or weightings: keep the files of one"
            )
        gaps = np.flatnonzero(np.abs(steps - pitch) > TOLERANCE * pitch)
        if gaps.size:
            missing = np.round(steps[gaps] / pitch).astype(int) - 1
            where = ", ".join(f"{self.places[g]:.2f} and {self.places[g + 1]:.2f} mm" for g in gaps[:5])
            what = f"{missing.sum()} slices are missing" if missing.all() else "slices are not evenly spaced"
            raise ValueError(
                f"{self}: {what}, between {where} along the normal, where neighbours are {pitch:.2f} mm apart; fetch "
                "the whole series"
            )
        line = np.array([s.position for s in self.slices])
        along = (self.places - self.places[0]) / (self.places[-1] - self.places[0])
        off = line - line[0] - np.outer(along, line[-1] - line[0])
        if np.abs(off).max() > max(TOLERANCE * pitch, 0.05):
            raise ValueError(
                f"{self}: slices lie up to {np.abs(off).max():.2f} mm off a straight line; resample the series to "
                "straight slices first"
            )

    def voxels(self) -> np.ndarray:
        """(columns, rows, slices) float32, in the units that the rescale slope and intercept give.

        Raises:
            ValueError: the pixels of a file cannot be decoded.
        """
        volume, path, pixels = np.empty(self.shape, np.float32), None, None
        for k, s in enumerate(self.slices):
            if s.path != path:
                path, pixels = s.path, read_pixels(s.path)
            image = pixels if s.frame is None else pixels[s.frame]
            volume[:, :, k] = image.T * np.float64(s.rescale[0]) + s.rescale[1]
        return volume

    @property
    def shape(self) -> tuple[int, int, int]:
        """(columns, rows, slices)."""
        rows, columns = self.slices[0].size
        return columns, rows, len(self.slices)


def read_pixels(path: Path) -> np.ndarray:
    """Stored values of a file, (rows, columns) or (frames, rows, columns); ValueError where they cannot be decoded."""
    try:
        return pydicom.dcmread(path).pixel_array
    except Exception as error:  # decoders fail in as many ways as there are formats
        raise ValueError(f"{path}: the pixels cannot be decoded ({error}); the file may be truncated") from None


def common_header(headers: Sequence[Dataset]) -> Dataset:
    """The attributes that have one value in all headers, less what a multi-frame file says of each frame."""
    first, *others = {id(h): h for h in headers}.values()
    common = Dataset()
    for tag in list(first.keys()):  # to go through the elements themselves would parse them
        if tag != PER_FRAME and all(tag in h and _alike(first, h, tag) for h in others):
            common[tag] = first[tag]
    return common


def _alike(a: Dataset, b: Dataset, tag: BaseTag) -> bool:
    """Whether both have the same value; parsed only where they are not stored alike."""
    x, y = a.get_item(tag), b.get_item(tag)
    raw = isinstance(x, RawDataElement) and isinstance(y, RawDataElement)
    return bool(raw and (x.VR, x.value) == (y.VR, y.value)) or a[tag] == b[tag]


def slices_of(path: Path) -> Iterator[tuple[Slice, Dataset, Groups | None]]:
    """The slices of a file, its header, and what a multi-frame file says of the frame.

    None of a file that is no DICOM image of MR or CT in space.
    """
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return
    if header.get("Modality") not in MODALITIES or "Rows" not in header or header.get("SamplesPerPixel", 1) != 1:
        return
    if "PerFrameFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0] if header.get("SharedFunctionalGroupsSequence") else Dataset()
        for k, own in enumerate(header.PerFrameFunctionalGroupsSequence):
            about = Groups(own, shared)
            yield from ((s, header, about) for s in _slice(path, k, header, about))
    else:
        yield from ((s, header, None) for s in _slice(path, None, header, header))


class Groups:
    """What a multi-frame file says of a frame: its own functional groups before the shared ones, flattened."""

    def __init__(self, own: Dataset, shared: Dataset) -> None:
        self.parts = [e.value[0] for d in (own, shared) for e in d if e.VR == "SQ" and e.value]

    def get(self, keyword: str, default=None):
        return next((p.get(keyword) for p in self.parts if keyword in p), default)


def _slice(path: Path, frame: int | None, header: Dataset, about: Dataset | Groups) -> Iterator[Slice]:
    position, orientation = about.get("ImagePositionPatient"), about.get("ImageOrientationPatient")
    spacing = about.get("PixelSpacing")
    if not position or not orientation or not spacing:
        return
    image_type = about.get("FrameType") or header.get("ImageType") or ()
    slope, intercept = about.get("RescaleSlope"), about.get("RescaleIntercept")
    yield Slice(
        path, frame, str(header.SeriesInstanceUID), str(header.SOPClassUID), str(header.SOPInstanceUID),
        (int(header.Rows), int(header.Columns)), np.array(position, float), np.array(orientation, float),
        (float(spacing[0]), float(spacing[1])),
        float(about.get("SliceThickness") or 0),
        (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        str(about.get("EffectiveEchoTime", about.get("EchoTime", ""))), tuple(image_type),
    )  # fmt: skip
