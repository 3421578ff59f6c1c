"""DICOM in: finds the stack of slices in a folder and reads it as a volume.

A stack is the images of one series with the same orientation, size, pixel spacing, image type and echo. Localisers and
other small stacks are left out and named. A stack with missing slices, several images at one place, or slices that are
shifted sideways (a tilted gantry) is refused.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Hashable, Mapping
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from monai.data import ImageReader
from monai.transforms import LoadImage, LoadImaged

from bundle.dicom_stack import Slice, Stack, slices_of
from bundle.inputs import is_dicom, is_dicom_series

MIN_SLICES = 3

# Every loader of MONAI says that its GPU decoder is missing, which nothing here uses.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*nvImageCodec decoder plugin did not register")


def find_stacks(source: str | Path) -> list[Stack]:
    """All stacks of MR and CT slices in a folder, or of one file; other objects and files are passed over."""
    source = Path(source)
    files = [source] if source.is_file() else sorted(p for p in source.iterdir() if not p.name.startswith("."))
    groups: list[list[Slice]] = []
    for s in chain.from_iterable(slices_of(p) for p in files if p.is_file()):
        group = next((g for g in groups if s.belongs_with(g[0])), None)
        if group is None:
            groups.append([s])
        else:
            group.append(s)
    return [Stack(tuple(sorted(g, key=lambda s: float(s.position @ g[0].normal)))) for g in groups]


def find_stack(source: str | Path, series: int | str | None = None) -> Stack:
    """The one stack of a folder that can be reconstructed; says on stderr what was left out.

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
        _say_once(f"{source}: reading {stack}; left out" + _list(others, ""))
    stack.check()
    stated = stack.header.get("ImagesInAcquisition")
    if stated and stack.slices[0].frame is None and int(stated) > len(stack.slices) and len(found) == 1:
        _say_once(f"{source}: {stack}, but its header speaks of {stated}: slices at the ends may be missing")
    return stack


@cache
def _say_once(text: str) -> None:
    """On stderr; a run looks at its input several times: to check it, to read it, and to refer to it."""
    print(text, file=sys.stderr, flush=True)


def _uid(stack: Stack) -> str:
    return str(stack.header.SeriesInstanceUID)


def _list(stacks: list[Stack], before: str) -> str:
    return before + ("".join(f"\n  {s}, UID {_uid(s)}" for s in stacks) or " none")


class DicomReader(ImageReader):
    """MONAI's reader protocol for DICOM stacks; the voxels are (columns, rows, slices) float32, rescaled.

    Metadata: affine (RAS), spatial_shape, and slice_thickness in mm, 0 where the header has none.
    """

    def __init__(self, series: int | str | None = None) -> None:
        super().__init__()
        self.series = series

    def verify_suffix(self, filename) -> bool:
        return is_dicom_source(filename)

    def read(self, data, **_) -> Stack:
        (source,) = data if isinstance(data, (list, tuple)) else (data,)
        return find_stack(source, self.series)

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


class LoadVolume(LoadImage):
    """MONAI's LoadImage, with DICOM by `DicomReader`: its errors are not followed by tries of other readers."""

    def __init__(self, *args, series: int | str | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.dicom = DicomReader(series)

    def __call__(self, filename, reader: ImageReader | None = None):
        return super().__call__(filename, self.dicom if reader is None and is_dicom_source(filename) else reader)


class LoadVolumed(LoadImaged):
    """Loads volumes as (1, X, Y, Z) with their affines: NIfTI, MetaImage, NRRD, and DICOM folders or files.

    Args:
        keys: paths.
        series: SeriesNumber or SeriesInstanceUID, where a folder holds several stacks of slices.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(self, keys, series: int | str | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, image_only=True, ensure_channel_first=True, allow_missing_keys=allow_missing_keys)
        self._loader = LoadVolume(image_only=True, ensure_channel_first=True, series=series)

    def __call__(self, data: Mapping[Hashable, str], reader: ImageReader | None = None) -> dict:
        return super().__call__(data, reader)
