"""How a scan was acquired, as the scan itself tells it: for the operator, and for `run.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from monai.data import MetaTensor

from interslice.files.carried import carried


@carried
@dataclass(frozen=True)
class Acquired:
    """Kept in the metadata of a measurement as "acquired"; a value, not to be changed.

    Attributes:
        facts: by name, as JSON holds them.
    """

    facts: Mapping[str, object] = field(default_factory=dict)


def acquired_of(measurement: MetaTensor) -> dict:
    """What is known of a measurement's acquisition; nothing of most."""
    return dict((measurement.meta.get("acquired") or Acquired()).facts)


def add_acquired(measurement: MetaTensor, **facts: object) -> None:
    """Let a measurement carry these facts, too."""
    measurement.meta["acquired"] = Acquired(acquired_of(measurement) | facts)


def in_common(facts: Sequence[Mapping[str, object]]) -> dict:
    """Of the volumes of a series: the packages that most have, and the medians of lengths (mm) that were found."""
    names = sorted({name for one in facts for name in one if name == "packages" or name.endswith("_mm")})
    found = {name: [one[name] for one in facts if name in one] for name in names}
    return {
        name: max(values, key=values.count) if name == "packages" else np.round(np.median(values, axis=0), 3).tolist()
        for name, values in found.items()
    }
