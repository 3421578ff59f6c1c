"""The record of a series, run.json: what is said of one volume, of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monai.data import MetaTensor

from interslice.files.series import Series
from interslice.files.source import source_of

SUMS, LARGEST = ("seconds", "network_calls"), ("peak_memory_mb",)
EACH = ("relative_residual", "residual", "noise_level", "seconds")
"""What differs from volume to volume, as lists in their order."""


def record_of_volume(measurement: MetaTensor) -> dict:
    """Which volume of its file a measurement is; nothing of one that is alone there."""
    point = source_of(measurement).time
    return {} if point is None else {"volume": point.index, "volumes_in_file": point.series.count}


def numbers_in(record: Mapping) -> list[int]:
    """Those of the volumes of a series that a record is of; none of a volume that is none of a series."""
    return list(record.get("volumes") or ([record["volume"]] if "volume" in record else []))


def record_of_series(records: Sequence[Mapping], series: Series) -> dict:
    """One record of those of all volumes: the first, with sums of time and calls, and all doubts."""
    record = {name: value for name, value in records[0].items() if name != "volume"}
    record |= {name: round(sum(r[name] for r in records), 2) for name in SUMS}
    record |= {name: max(r[name] for r in records) for name in LARGEST}
    if said := list(dict.fromkeys(doubt for r in records for doubt in r.get("doubts") or ())):
        record["doubts"] = said
    return record | {
        "output_shape": [*records[0]["output_shape"], len(records)],
        "volumes": list(series.chosen),
        "intensities": None if series.intensities is None else list(series.intensities),
        "of_each": {name: [r.get(name) for r in records] for name in EACH if name in records[0]},
    }
