"""What makes a measurement or its result doubtful, in words: for the screen, `run.json` and the page."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from monai.data import MetaTensor

from interslice.files.carried import carried


@carried
@dataclass(frozen=True)
class Doubts:
    """Kept in the metadata of a measurement as "doubts", from its reader to its result.

    Attributes:
        said: sentences that name what was found, and what to do.
    """

    said: tuple[str, ...] = ()


def doubts_of(measurement: MetaTensor) -> tuple[str, ...]:
    """The doubts that a measurement carries."""
    return (measurement.meta.get("doubts") or Doubts()).said


def add_doubts(measurement: MetaTensor, *sentences: str) -> None:
    """Let a measurement carry these sentences, too, and say them as warnings: of its file, or of a case of several."""
    measurement.meta["doubts"] = Doubts(doubts_of(measurement) + sentences)
    of = measurement.meta.get("case" if "combined" in measurement.meta else "filename_or_obj", "the measurement")
    for sentence in sentences:
        warnings.warn(f"{of}: {sentence}", stacklevel=2)
