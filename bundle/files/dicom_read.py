"""DICOM in: finds the stack of slices in a folder and reads it as a volume.

A stack is the images of one series with the same orientation, size, pixel spacing, image type and echo. Localisers and
other small stacks are left out and named. A stack with missing slices, several images at one place, or slices that do
not lie on a line is refused. The affine of a tilted gantry is sheared, which `bundle.files.check` refuses.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import numpy as np
from monai.data import ImageReader

from bundle.files.dicom_stack import Stack, common_header, slices_of
from bundle.files.find import is_dicom, is_dicom_series
from bundle.files.source import Source

MIN_SLICES = 3


def find_stacks(source: str | Path) -> list[Stack]:
    """All stacks of MR and CT slices in a folder, or of one file; other objects and files are passed over."""
    source = Path(source)
    files = [source] if source.is_file() else sorted(p for p in source.iterdir() if not p.name.startswith("."))
    groups: list[list[tuple]] = []
    for found in chain.from_iterable(slices_of(p) for p in files if p.is_file()):
        group = next((g for g in groups if found[0].belongs_with(g[0][0])), None)
        if group is None:
            groups.append([found])
        else:
            group.append(found)
    return [_stack(source, g) for g in groups]


def _stack(source: Path, group: list[tuple]) -> Stack:
    """The stack of (slice, header, what a multi-frame file says of it), in order."""
    normal = group[0][0].normal
    group = sorted(group, key=lambda found: float(found[0].position @ normal))
    slices, headers, about = zip(*group)
    return Stack(source, slices, common_header(headers), about[0])


def find_stack(source: str | Path, series: int | str | None = None) -> Stack:
    """The one stack of a folder that can be reconstructed; says on stderr what was left out.

    The headers of all files are parsed, so what is found is kept: a volume that is read from it carries it ("dicom").

    Args:
        source: a folder, or one multi-frame file.
        series: SeriesNumber or SeriesInstanceUID of the one to take where there are several.

    Raises:
        ValueError: there is none, there are several, or `Stack.check` refuses it.
    """
    found = find_stacks(source)
    usable = [s for s in found if len(s.slices) >= MIN_SLICES and "LOCALIZER" not in s.slices[0].image_type]
    named = [s for s in usable if series is None or str(series) in (str(s.header.get("SeriesNumber")), _uid(s))]
    if not named:
        wanted = "" if series is None else f" number or UID {series}"
        raise ValueError(
            f"{source}: no series{wanted} of at least {MIN_SLICES} parallel MR or CT slices" + _list(found, "; found")
        )
    if len(named) > 1:
        raise ValueError(
            f"{source} holds {len(named)} stacks of slices; name one by --series, or keep one:" + _list(named, "")
        )
    (stack,) = named
    if others := [s for s in found if s is not stack]:
        _say(f"{source}: reading {stack}; left out" + _list(others, ""))
    stack.check()
    stated = stack.header.get("ImagesInAcquisition")
    if stated and stack.slices[0].frame is None and int(stated) > len(stack.slices) and len(found) == 1:
        _say(f"{source}: {stack}, but its header speaks of {stated}: slices at the ends may be missing")
    return stack


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _uid(stack: Stack) -> str:
    return stack.slices[0].series


def _list(stacks: list[Stack], before: str) -> str:
    return before + ("".join(f"\n  {s}, UID {_uid(s)}" for s in stacks) or " none")


class StackReader(ImageReader):
    """MONAI's reader protocol for a stack that was found; the voxels are (columns, rows, slices) float32, rescaled.

    Metadata: affine (RAS), spatial_shape, and slice_thickness in mm, 0 where the header has none; the stack goes with
    them, in "source".
    """

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.source = Source(dicom=stack)

    def verify_suffix(self, filename) -> bool:
        return True

    def read(self, data, **_) -> Stack:
        return self.stack

    def get_data(self, img: Stack) -> tuple[np.ndarray, dict]:
        meta = {
            "affine": img.affine,
            "original_affine": img.affine.copy(),
            "spatial_shape": np.array(img.shape),
            "original_channel_dim": float("nan"),  # MONAI's word for none
            "space": "RAS",
            "slice_thickness": img.slices[0].thickness,
        }
        return img.voxels(), meta


def is_dicom_source(source) -> bool:
    """True for a DICOM file, and for a folder with one directly inside and no volumes of other formats."""
    source = source[0] if isinstance(source, (list, tuple)) else source
    if not str(source):
        return False  # and not the current folder
    source = Path(source)
    return is_dicom_series(source) if source.is_dir() else source.is_file() and is_dicom(source)
