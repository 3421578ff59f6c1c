"""What transforms of `prepare` found out about a measurement, for its record (run.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monai.data import MetaTensor

from interslice.files.carried import carried
from interslice.files.nameless import without_paths


@carried
@dataclass(frozen=True)
class Prepared:
    """Kept in the metadata of a measurement as "prepared".

    Attributes:
        found: name in the record -> values by name, as JSON can hold them.
    """

    found: Mapping[str, Mapping]


def add_prepared(measurement: MetaTensor, name: str, values: Mapping) -> None:
    """Let the record of a measurement say these values under this name."""
    measurement.meta["prepared"] = Prepared({**prepared_of(measurement), name: dict(values)})


def prepared_of(measurement: MetaTensor, named: bool = True) -> dict[str, dict]:
    """What there is, by name; files by their fingerprints where they are not to be `named`."""
    found = measurement.meta.get("prepared")
    parts = {} if found is None else found.found
    return {name: dict(values) if named else without_paths(values) for name, values in parts.items()}
