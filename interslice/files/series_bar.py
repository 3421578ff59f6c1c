"""A bar of the volumes of a series, with the time left; the sampler's bar, of the steps of each, is below it."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm

from interslice.files.series import Series, TimePoint


class SeriesBar:
    """The bar of the series under way, where a terminal is there to show it."""

    def __init__(self) -> None:
        self._series: Series | None = None
        self._bar: tqdm | None = None

    def begin(self, item: Mapping) -> None:
        """A volume, or a case of one volume, is begun: an item of a run."""
        point = item["image"] if isinstance(item["image"], TimePoint) and not item["image"].alone else None
        if point is None or point.series is not self._series:
            self.close()
        if point is not None and self._bar is None:
            chosen = point.series.chosen
            self._series = point.series
            self._bar = tqdm(
                total=len(chosen), initial=chosen.index(point.index), desc=item["case"], unit="volume", disable=None
            )

    def done(self) -> None:
        """It is done."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """The series is done, or has failed."""
        if self._bar is not None:
            self._bar.close()
        self._series, self._bar = None, None
