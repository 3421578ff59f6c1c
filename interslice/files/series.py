"""Several volumes at one place: time points, weightings, echoes or repeats, in one 4-D file or one DICOM series.

A series is one case. Its volumes are items of a run, one after the other, each reconstructed by itself; what is written
of them waits in a folder of its own (interslice.files.kept_volumes) until the last is done, and is then joined. So
memory does not grow with their number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from interslice.files.acquired import acquired_of, in_common
from interslice.files.carried import carried
from interslice.files.dicom_stack import Stack
from interslice.files.prepared import ONLY_CHECKED
from interslice.files.root_cause import root_cause
from interslice.files.scan import Refusal
from interslice.usage import UsageError

ALL = "all"
Chosen = slice | tuple[int, ...]


@carried
@dataclass(frozen=True, eq=False)
class Series:
    """In the place of a path ("image" of an item of a run) of what holds several volumes.

    Attributes:
        data: the path of a 4-D file, or the stack of all images of a DICOM series.
        count: of the volumes there.
        chosen: numbers, from 0 and rising, of those that are to be reconstructed.
        stacks: of DICOM, one for each of the `count` volumes.
        intensities: (lower, upper), what the scale of all volumes is taken from, so that none flickers; None before
            they are read, and where the scale is no matter of the scan.
        acquired: what is taken of all volumes alike (interslice.files.acquired): so they have one operator, and one
        grid.
    """

    data: str | Stack
    count: int
    chosen: tuple[int, ...]
    stacks: tuple[Stack, ...] = ()
    intensities: tuple[float, float] | None = None
    acquired: Mapping[str, object] = field(default_factory=dict)

    def __fspath__(self) -> str:
        return os.fspath(self.data)

    def points(self) -> list[TimePoint]:
        """The chosen volumes."""
        return [TimePoint(self, index) for index in self.chosen]


@carried
@dataclass(frozen=True, eq=False)
class TimePoint:
    """One volume of a series, by its number from 0."""

    series: Series
    index: int

    def __fspath__(self) -> str:
        return os.fspath(self.series)

    def __str__(self) -> str:
        return f"volume {self.index} of {self.series.count}"

    @property
    def alone(self) -> bool:
        """Whether no other volume was chosen: then the result is an ordinary volume."""
        return len(self.series.chosen) == 1

    @property
    def first(self) -> bool:
        return self.index == self.series.chosen[0]

    @property
    def last(self) -> bool:
        return self.index == self.series.chosen[-1]


def series_or_volume(series: Series) -> Series | TimePoint:
    """The series, or the one volume that was chosen of it."""
    return series if len(series.chosen) > 1 else series.points()[0]


def points_of(item: Mapping) -> list[dict]:
    """An item of a run for each volume that it stands for."""
    data = item["image"]
    return [{**item, "image": point} for point in data.points()] if isinstance(data, Series) else [dict(item)]


def times_of(value: object) -> Chosen:
    """What "times" says: "all", the number of a volume, several ("0,5"), or a range as Python writes it ("0:10").

    Raises:
        UsageError: anything else.
    """
    if value == ALL:
        return slice(None)
    if isinstance(value, str) and re.fullmatch(r"\d*:\d*(:[1-9]\d*)?", value):
        found = slice(*(int(part) if part else None for part in value.split(":")))
        if found.stop is None or found.stop > (found.start or 0):
            return found
    if isinstance(value, str) and re.fullmatch(r"\d+(,\d+)*", value):
        value = [int(part) for part in value.split(",")]
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    if numbers and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        return tuple(sorted(set(numbers)))
    raise UsageError(
        'times must be "all", the number of a volume from 0, several with commas, or a range such as "0:10", got '
        f"{value!r}"
    )


def chosen_of(times: Chosen, count: int) -> tuple[int, ...]:
    """The numbers that are meant of `count` volumes. Raises Refusal where there are none, or one is not there."""
    found = tuple(range(count))[times] if isinstance(times, slice) else times
    if not found or found[-1] >= count:
        holds = f"{count} volumes, from 0 to {count - 1}" if count > 1 else "one volume"
        raise Refusal(f"it holds {holds}, and --times names others")
    return found


def checked(item: Mapping, preprocessing: Callable[[dict], dict], check: Callable[[Mapping], None]) -> dict:
    """The item, whose volumes have all passed; a series with the range that holds the intensities of all its volumes.

    Args:
        item: of a run.
        preprocessing: the transform that each has to pass.
        check: called with what comes out.

    Raises:
        ValueError: a volume does not pass; says which.
    """
    ranges, known, data = [], [], item["image"]
    for point in points_of(item):
        try:
            found = preprocessing(point | {ONLY_CHECKED: True})
            check(found)
        except Exception as error:
            if isinstance(data, Series):
                said = root_cause(error).removeprefix(f"{os.fspath(data)}: ")
                raise ValueError(f"{os.fspath(data)}: {point['image']}: {said}") from None
            raise
        if isinstance(data, Series) and "label" in found:
            raise ValueError(
                f"{os.fspath(data)}: it holds {data.count} volumes, and one is evaluated: --times 0 takes the first"
            )
        is_read = hasattr(found.get("image"), "meta")
        ranges.append(found["image"].meta.get("intensities") if is_read else None)
        known.append(acquired_of(found["image"]) if is_read else {})
    if isinstance(data, Series) and None not in ranges:
        return {**item, "image": replace(data, intensities=widest(ranges), acquired=in_common(known))}
    return dict(item)


def widest(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The range that holds all of these."""
    lows, highs = zip(*ranges)
    return min(lows), max(highs)
