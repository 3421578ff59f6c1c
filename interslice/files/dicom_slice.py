"""One image of a DICOM file: what its header says of it, read from single-frame and multi-frame MR and CT."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import UID

from interslice.files.dicom_size import check_deflated
from interslice.files.scan import Refusal

GRID_TOLERANCE = 1e-3
"""By which direction cosines, and relative pixel spacings, may differ within a stack."""
SQUARE_TOLERANCE = 1e-2
"""By which directions may be off length one and off a right angle."""
ECHO_TOLERANCE = (0.01, 0.002)
"""Echo times that differ by less, in ms or as a share, are one echo, rounded."""
THICKNESS_TOLERANCE = 0.01
"""Share by which slice thicknesses may differ within a stack."""
MODALITIES = ("MR", "CT")
DISC_INDEX = "DICOMDIR"
"""The file that is a disc's table of contents."""
FIRST_GROUPS = (0x0002, 0x0008)
"""With one of these a DICOM file begins, after the preamble if it has one."""
LARGEST_FIRST_ELEMENT = 0x10000
"""Bytes. What a file without preamble begins with is a length, a character set or an image type."""


@dataclass(frozen=True, eq=False)  # arrays inside have no one truth
class Slice:
    """One image: its file and, of a multi-frame file, its frame, and what the header says of it. Lengths in mm, LPS.

    `series` and `instance` are UIDs, `sop_class` too, empty where there is none; `size` is (rows, columns). `position`
    is NaN where the header does not place the image, `echo_time` (ms) where there is none. `order` is that of images at
    one place (interslice.files.dicom_time).
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
    echo_time: float
    image_type: tuple[str, ...]
    order: tuple[float, ...] = ()

    def belongs_with(self, other: Slice) -> bool:
        """Whether both are of one stack: the same series, size and kind; grid, echo and thickness but for rounding."""
        atol, rtol = ECHO_TOLERANCE
        return (
            (self.series, self.size, self.image_type) == (other.series, other.size, other.image_type)
            and np.allclose(self.orientation, other.orientation, atol=GRID_TOLERANCE)
            and np.allclose(self.spacing, other.spacing, rtol=GRID_TOLERANCE)
            and np.isclose(self.echo_time, other.echo_time, atol=atol, rtol=rtol, equal_nan=True)
            and (
                not (self.thickness and other.thickness)
                or np.isclose(self.thickness, other.thickness, atol=0, rtol=THICKNESS_TOLERANCE)
            )
        )

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


class Groups:
    """What a multi-frame file says of a frame: its own functional groups before the shared ones, flattened."""

    def __init__(self, own: Dataset, shared: Dataset) -> None:
        self.parts = [e.value[0] for d in (own, shared) for e in d if e.VR == "SQ" and e.value]

    def get(self, keyword: str, default=None):
        return next((p.get(keyword) for p in self.parts if keyword in p), default)


def is_dicom(path: Path) -> bool:
    """True for a file of DICOM, with its preamble or, as old ones are, without."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (begins_with_an_element(start) and says_what_it_is(path))


def says_what_it_is(path: Path) -> bool:
    """Whether a file, read as DICOM, has the elements that every object has: raw voxels may begin like one."""
    try:
        check_deflated(path)
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality"])
        return UID(str(header.get("SOPClassUID", ""))).is_valid or str(header.get("Modality", "")).isalpha()
    except Exception:  # noqa: BLE001 - whatever it is, it is no DICOM
        return False


def begins_with_an_element(start: bytes) -> bool:
    """Whether bytes begin as a data set does: a tag of a first group, then a length or a type and a length."""
    if len(start) < 12:
        return False
    group, _, length = struct.unpack("<HHI", start[:8])
    kind, short = start[4:6], struct.unpack("<H", start[6:8])[0]
    explicit = kind.isalpha() and kind.isupper() and short < LARGEST_FIRST_ELEMENT
    return group in FIRST_GROUPS and (explicit or length < LARGEST_FIRST_ELEMENT)


def slices_of(path: Path) -> list[tuple[Slice, Dataset, Groups | None]]:
    """The slices of a DICOM file, its header, and what a multi-frame file says of the frame.

    Raises:
        ValueError: the file holds no image of MR or CT whose grid is known; what it is, or lacks, in a few words.
    """
    try:
        check_deflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        kind, sop_class = modality_of(header), UID(str(header.get("SOPClassUID", "")))
    except Refusal:
        raise
    except Exception as error:  # a header can be damaged in as many ways as there are elements
        raise ValueError(f"damaged ({type(error).__name__})") from None
    if not kind:
        raise ValueError("no Modality and no SOPClassUID say what it is" if not sop_class else f"{sop_class.name}")
    if kind not in MODALITIES:
        raise ValueError(f"no MR or CT, but {kind}")
    if "Rows" not in header or "Columns" not in header:
        raise ValueError(f"no image ({sop_class.name})" if sop_class else "no image")
    if header.get("SamplesPerPixel", 1) != 1:
        raise ValueError("a picture in colours")
    try:
        return [(one_slice(path, frame, header, about), header, groups) for frame, about, groups in frames_of(header)]
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from None


def modality_of(header: Dataset) -> str:
    """Modality, or what the kind of object implies where the header lacks it; "" if it implies neither MR nor CT."""
    words = UID(str(header.get("SOPClassUID", ""))).name.split()
    return str(header.get("Modality") or next((m for m in MODALITIES if m in words), ""))


def frames_of(header: Dataset) -> Iterator[tuple[int | None, Dataset | Groups, Groups | None]]:
    """(frame, what is said of it, the same if the file is multi-frame); one of a single-frame file."""
    if "PerFrameFunctionalGroupsSequence" in header:
        shared = header.SharedFunctionalGroupsSequence[0] if header.get("SharedFunctionalGroupsSequence") else Dataset()
        for k, own in enumerate(header.PerFrameFunctionalGroupsSequence):
            groups = Groups(own, shared)
            yield k, groups, groups
    elif int(header.get("NumberOfFrames") or 1) > 1:
        raise ValueError("several frames, and nothing says where they lie")
    else:
        yield None, header, None


def one_slice(path: Path, frame: int | None, header: Dataset, about: Dataset | Groups) -> Slice:
    """What a header says of one image; ValueError if it does not say what grid the pixels form."""
    orientation, spacing = numbers(about, "ImageOrientationPatient", 6), numbers(about, "PixelSpacing", 2)
    axes = orientation.reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=SQUARE_TOLERANCE):  # NaN is not close to anything
        raise ValueError(f"ImageOrientationPatient is {said(orientation)}; it must be two directions at a right angle")
    if not (spacing > 0).all():
        raise ValueError(f"PixelSpacing is {said(spacing)}; it must be two lengths in mm")
    slope, intercept = number(about, "RescaleSlope", 1.0), number(about, "RescaleIntercept", 0.0)
    echo = number(about, "EffectiveEchoTime", number(about, "EchoTime", float("nan")))
    return Slice(
        path, frame, str(header.get("SeriesInstanceUID") or ""), str(header.get("SOPClassUID") or ""),
        str(header.get("SOPInstanceUID") or ""), (int(header.Rows), int(header.Columns)),
        numbers(about, "ImagePositionPatient", 3), orientation, (float(spacing[0]), float(spacing[1])),
        number(about, "SliceThickness", 0.0),
        (slope, intercept), echo, tuple(about.get("FrameType") or header.get("ImageType") or ()),
        order_of(header, about, frame),
    )  # fmt: skip


def order_of(header: Dataset, about: Dataset | Groups, frame: int | None) -> tuple[float, ...]:
    """What images at one place are ordered by; what is not stated comes first."""

    def stated(where: Dataset | Groups, keyword: str) -> float:
        try:
            return number(where, keyword, -1.0)
        except ValueError:  # text: nothing to order by, and no reason to refuse an image
            return -1.0

    within = (stated(about, k) for k in ("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber"))
    return (*within, stated(header, "InstanceNumber"), float(frame or 0))


def number(about: Dataset | Groups, keyword: str, default: float) -> float:
    """The value of an element, `default` where it is missing or empty; ValueError if it is no number."""
    value = numbers(about, keyword, 1)
    return default if np.isnan(value[0]) else float(value[0])


def numbers(about: Dataset | Groups, keyword: str, count: int) -> np.ndarray:
    """The values of an element, or NaN where it is missing or has another number of them; ValueError if it is text."""
    try:
        value = about.get(keyword)
        value = () if value is None or value == "" else np.atleast_1d(np.array(value, float))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{keyword} is no number ({error})") from None
    return value if len(value) == count else np.full(count, np.nan)


def said(values: np.ndarray) -> str:
    """Numbers in words: missing if none is given."""
    return "missing" if np.isnan(values).all() else "\\".join(f"{v:g}" for v in values)
