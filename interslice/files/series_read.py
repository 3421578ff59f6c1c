"""Series in: which files hold several volumes, and these one at a time.

A compressed file is unpacked from its beginning up to the volume that is read. So it stays open: volumes that are read
in order unpack it once.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Pair

from interslice.files.dicom_read import StackReader
from interslice.files.dicom_stack import Stack
from interslice.files.dicom_time import time_stacks
from interslice.files.find import FORMATS
from interslice.files.limits import Limits
from interslice.files.nifti_read import open_nifti, scan_of, volumes_in
from interslice.files.scan import Refusal, Scan
from interslice.files.series import Chosen, Series, TimePoint, chosen_of, series_or_volume
from interslice.files.source import Source
from interslice.files.volume_read import VolumeReader


def series_in(data: str | Stack, times: Chosen, limits: Limits) -> str | Stack | Series | TimePoint:
    """What stands for a path or a stack in an item of a run: itself if it is one volume, else its series.

    Args:
        data: as it was found.
        times: which volumes to take (interslice.files.series.times_of).
        limits: of the size of one volume.

    Raises:
        ValueError: the volumes of the file are none of a series, or `times` names none of them.
    """
    if isinstance(data, Stack):
        stacks = time_stacks(data)
        chosen = chosen_of(times, len(stacks))
        return data if len(stacks) == 1 else series_or_volume(Series(data, len(stacks), chosen, stacks))
    path = Path(data)
    if not path.name.lower().endswith(FORMATS["NIfTI"]) or not path.is_file():
        return data
    try:
        image = open_nifti(path, limits, each=True)
    except Exception:  # those who read it as one volume say what is wrong with it
        return data
    try:
        count = volumes_in(image)
        chosen = chosen_of(times, count)
        return data if count == 1 else series_or_volume(Series(str(path), count, chosen))
    except Refusal as error:
        raise ValueError(f"{path}: {error}") from None


class TimeReader(VolumeReader):
    """MONAI's reader protocol for one volume of a 4-D file."""

    def __init__(self, point: TimePoint, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.point = point

    def scan(self, path: Path) -> Scan:
        stat = path.stat()
        image = _opened(path, self.limits, (os.getpid(), stat.st_mtime_ns, stat.st_size))
        voxels = np.asanyarray(image.dataobj[:, :, :, self.point.index])
        return scan_of(image, voxels.reshape(voxels.shape[:3]))

    def read(self, data, **others) -> Scan:
        scan = super().read(data, **others)
        self.source = Source(self.source.dicom, self.source.nifti, self.source.modality, time=self.point)
        return scan


class TimeStackReader(StackReader):
    """MONAI's reader protocol for one volume of a DICOM series."""

    def __init__(self, point: TimePoint, limits: Limits | None = None) -> None:
        stack = point.series.stacks[point.index]
        super().__init__(stack, limits)
        self.source = Source(dicom=stack, time=point)


def reader_of(point: TimePoint, limits: Limits) -> TimeReader | TimeStackReader:
    """The reader of a volume of a series."""
    return (TimeStackReader if point.series.stacks else TimeReader)(point, limits)


@lru_cache(maxsize=1)
def _opened(path: Path, limits: Limits, _as: tuple[int, ...]) -> Nifti1Pair:
    """The file as it is now, for this process: with one that it was forked from it would share where it has read to."""
    return open_nifti(path, limits, each=True, keep_open=True)
