"""The JSON file that converters of DICOM, such as dcm2niix, write beside a volume: what its header said of the scan.

    scan.nii.gz    scan.json    {"Modality": "MR", "SliceThickness": 4, "SpacingBetweenSlices": 5, ...}

Read for what a NIfTI header has no field for; lengths are in mm (BIDS, "Common metadata fields"). What does not fit
the volume is left aside, and that is said: the file may be of another one. In a BIDS data set files higher up are read,
too (interslice.files.inherited).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interslice.files.find import case_name
from interslice.files.inherited import inherited
from interslice.files.limits import read_text

MODALITIES = ("MR", "CT")
KNOWN = ("Modality", "SliceThickness", "SpacingBetweenSlices", "EchoTime", "RepetitionTime", "Manufacturer",
         "ConversionSoftware", "SeriesDescription", "ProtocolName", "ImageType")  # fmt: skip
"""A JSON file with none of these is no sidecar."""
TOLERANCE = 0.02
"""Share by which the stated distance of slices may differ from the volume's."""
LARGEST = 2.0
"""Distances of slices that a slice may be thick, and no more."""


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says that is of use here.

    Attributes:
        modality: "MR" or "CT", or None.
        thickness: of the slices in mm, 0 for unknown.
        doubts: in words, what was left aside, and why.
        by: where the thickness stands, in words.
    """

    modality: str | None = None
    thickness: float = 0.0
    doubts: tuple[str, ...] = ()
    by: str = ""


def sidecar_of(volume: Path) -> Path:
    """Where the sidecar of a volume would be."""
    return volume.with_name(f"{case_name(volume)}.json")


def fields_of(volume: Path) -> dict:
    """All that the JSON files of a volume say, the one beside it first; nothing of those that cannot be read."""
    fields = {}
    for _, stated in inherited(volume):
        fields |= stated
    try:
        own = json.loads(read_text(sidecar_of(volume)))
    except (OSError, ValueError, RecursionError):
        own = {}
    return fields | (own if isinstance(own, dict) else {})


def read_sidecar(volume: Path, spacing: np.ndarray) -> Sidecar:
    """Of a volume whose voxels are `spacing` (mm, one per axis) apart; an empty one where there is no such file."""
    path, above = sidecar_of(volume), inherited(volume)
    fields, by = {}, f"{path.name} beside it"
    for file, stated in above:
        fields |= stated
        by = f"{file.name} above it" if "SliceThickness" in stated else by
    if path.is_file():
        try:
            own = json.loads(read_text(path))
        except (OSError, ValueError, RecursionError) as error:
            return Sidecar(doubts=(f"{path.name} beside it cannot be read ({error}), and is left aside",))
        own = own if isinstance(own, dict) else {}
        fields |= own
        by = f"{path.name} beside it" if "SliceThickness" in own else by
    if not any(name in fields for name in KNOWN):
        return Sidecar()
    doubts: list[str] = []
    thickness = _thickness(fields, spacing, doubts)
    return Sidecar(_modality(fields, doubts), thickness, tuple(f"{by}: {d}" for d in doubts), by)


def _modality(fields: dict, doubts: list[str]) -> str | None:
    stated = fields.get("Modality")
    if stated is None or stated in MODALITIES:
        return stated
    doubts.append(f"Modality {stated!r} is none of {', '.join(MODALITIES)}, and is left aside")
    return None


def _thickness(fields: dict, spacing: np.ndarray, doubts: list[str]) -> float:
    """SliceThickness, if it and SpacingBetweenSlices are of this volume."""
    thickness, between = (_length(fields, name, doubts) for name in ("SliceThickness", "SpacingBetweenSlices"))
    if not thickness:
        return 0.0
    distances = ", ".join(f"{s:.4g}" for s in spacing)
    if between and abs(max(spacing) / between - 1) > TOLERANCE:
        doubts.append(
            f"SpacingBetweenSlices {between:g} mm is not the largest distance of voxels ({distances} mm): the file is "
            "of another volume, or this one was resampled, so its SliceThickness is left aside"
        )
        return 0.0
    if thickness > LARGEST * max(spacing):
        doubts.append(
            f"SliceThickness {thickness:g} mm is more than {LARGEST:g} times the distance of voxels along each axis "
            f"({distances} mm), and is left aside"
        )
        return 0.0
    return thickness


def _length(fields: dict, name: str, doubts: list[str]) -> float:
    """A length above 0, or 0 where there is none."""
    value = fields.get(name)
    if value is None:
        return 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    doubts.append(f"{name} {value!r} is no length, and is left aside")
    return 0.0
