"""A stack of DICOM slices: which images belong together, in which order, and where they lie.

    place      n . ImagePositionPatient along the normal n of the slices orders them, whatever the files' names
    affine     (RAS, mm) columns: pixels along a row, pixels down a column, slice to slice, first pixel; DICOM is LPS

Single-frame and multi-frame ("enhanced") MR and CT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from interslice.files.carried import carried
from interslice.files.dicom_size import check_deflated, check_pixels
from interslice.files.dicom_slice import Groups, Slice
from interslice.files.limits import Limits
from interslice.files.scan import Refusal

PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")


@carried
@dataclass(frozen=True, eq=False)  # arrays inside have no one truth
class Stack:
    """Slices in the order of their places along the normal.

    Args:
        source: the folder, or the one file, in which they were found; the first of several.
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

    @classmethod
    def of(cls, source: Path, found: Sequence[tuple[Slice, Dataset, Groups | None]]) -> Stack:
        """Of slices in any order, each with its header and what a multi-frame file says of it."""
        slices, headers, about = zip(*found)
        return cls(source, in_order(slices), common_header(headers), about[0])

    def joined(self, slices: Sequence[Slice], header: Dataset) -> Stack:
        """With the slices of another part of it, and what they share."""
        return replace(self, slices=in_order((*self.slices, *slices)), header=common_header([self.header, header]))

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

    def voxels(self, limits: Limits | None = None) -> np.ndarray:
        """(columns, rows, slices) float32, in the units that the rescale slope and intercept give.

        Raises:
            ValueError: the pixels of a file cannot be decoded, or are more than the limits allow.
        """
        limits = limits or Limits()
        limits.check(self.shape)
        volume, path, pixels = np.empty(self.shape, np.float32), None, None
        for k, s in enumerate(self.slices):
            if s.path != path:
                path, pixels = s.path, read_pixels(s.path, limits)
            image = pixels[s.frame or 0]
            volume[:, :, k] = image.T * np.float64(s.rescale[0]) + s.rescale[1]
        return volume

    @property
    def shape(self) -> tuple[int, int, int]:
        """(columns, rows, slices)."""
        rows, columns = self.slices[0].size
        return columns, rows, len(self.slices)


def in_order(slices: Sequence[Slice]) -> tuple[Slice, ...]:
    """Slices by their place along the normal of the first; those without one last."""
    normal = slices[0].normal
    return tuple(sorted(slices, key=lambda s: float(np.nan_to_num(s.position @ normal, nan=np.inf))))


def read_pixels(path: Path, limits: Limits | None = None) -> np.ndarray:
    """Stored values of a file, (frames, rows, columns); ValueError where they cannot be decoded, or are too many."""
    try:
        check_deflated(path)
        image = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in image.file_meta:  # as in files without a preamble
            with path.open("rb") as file:
                names_types = file.read(6)[4:].isalpha()
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if names_types else ImplicitVRLittleEndian
        check_pixels(image, limits or Limits())
        pixels = image.pixel_array
    except Refusal as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # decoders fail in as many ways as there are formats
        raise ValueError(f"{path}: the pixels cannot be decoded ({error}); the file may be truncated") from None
    return pixels if pixels.ndim == 3 else pixels[None]


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
