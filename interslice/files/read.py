"""Volumes in, by MONAI's loaders and our readers: one for DICOM, one for files of volumes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock

from monai.data import ImageReader
from monai.transforms import LoadImage, LoadImaged

from interslice.files.dicom_read import StackReader, find_stack, is_dicom_source
from interslice.files.dicom_stack import Stack
from interslice.files.doubts import add_doubts
from interslice.files.find import SUFFIXES
from interslice.files.limits import Limits
from interslice.files.padding import stated_padding, without_padding
from interslice.files.series import Series, TimePoint, times_of
from interslice.files.series_read import reader_of, series_in
from interslice.files.volume_read import VolumeReader

_TURNS = RLock()


class LoadVolume(LoadImage):
    """MONAI's LoadImage, with the one reader that the path asks for, whose errors no tries of others follow."""

    def __init__(self, *args, series: int | str | None = None, limits: Limits | None = None, **kwargs) -> None:
        with _quiet_about_decoders():
            super().__init__(*args, **kwargs)
        self.series, self.limits = series, limits or Limits()

    def __call__(self, filename, reader: ImageReader | None = None):
        """Read a path, or the `Stack` of a DICOM folder that was searched before."""
        if reader is None:
            reader = self._own_reader(filename)
        loaded = super().__call__(filename, reader)
        # MONAI Label asks its loaders for (image, meta); the two share one meta.
        image = loaded if self.image_only else loaded[0]
        source = image.meta["source"] = reader.source
        if image.ndim == 4:  # others are refused later
            image.data, said = without_padding(image.as_tensor(), stated_padding(source.dicom))
            if said:
                add_doubts(image, said)
        return loaded

    def _own_reader(self, filename) -> ImageReader:
        if isinstance(filename, TimePoint):
            return reader_of(filename, self.limits)
        if isinstance(filename, Stack):
            return StackReader(filename, self.limits)
        if is_dicom_source(filename):
            return StackReader(find_stack(filename, self.series), self.limits)
        return VolumeReader(self.limits)


class LoadVolumed(LoadImaged):
    """Loads volumes as (1, X, Y, Z) with their affines (RAS, mm): of the formats in `find.FORMATS`, and DICOM.

    A volume carries its `Source`, and the name of its case where the data state a "case". The stack that was found of
    DICOM can be loaded in place of the path: the folder is then not searched again.

    Args:
        keys: paths, or stacks.
        series: which stack of slices of a folder that holds several; see `interslice.files.dicom_search.choose`.
        allow_missing_keys: whether a key may be absent.
        limits: of the size of a file and of memory.
        times: which volumes of a 4-D file or DICOM series to take (interslice.files.series.times_of).
    """

    suffixes = SUFFIXES

    def __init__(self, keys, series: int | str | None = None, allow_missing_keys: bool = False,
                 limits: Limits | None = None, times: object = "all") -> None:  # fmt: skip
        with _quiet_about_decoders():
            super().__init__(keys, image_only=True, ensure_channel_first=True, allow_missing_keys=allow_missing_keys)
        self.series, self.times = series, times_of(times)
        self._loader = LoadVolume(image_only=True, ensure_channel_first=True, series=series, limits=limits)

    def __call__(self, data: Mapping[Hashable, str | Stack], reader: ImageReader | None = None) -> dict:
        loaded = super().__call__(data, reader)
        if "case" in loaded:
            for key in self.key_iterator(loaded):
                loaded[key].meta["case"] = loaded["case"]
        return loaded

    def volumes_of(self, data: str | Stack) -> str | Stack | Series | TimePoint:
        """A path or stack as it is where it holds one volume, else its series, which is loaded volume by volume."""
        return series_in(data, self.times, self._loader.limits)


@contextmanager
def _quiet_about_decoders() -> Iterator[None]:
    """Every loader of MONAI says that its GPU decoder is missing, which nothing here uses.

    Filters of warnings are the process's: threads that make loaders take turns.
    """
    logger = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    with _TURNS:
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*nvImageCodec decoder plugin did not register")
                yield
        finally:
            logger.setLevel(level)
