"""The JSON file beside each volume of a derivatives data set.

    Description, Sources, Resolution, SkullStripped    what BIDS wants of a derivative
    EchoTime, MagneticFieldStrength, ...               of the scans, where all of them say the same
    RunRecord                                          beside the volume itself: what run.json of other results holds

SkullStripped is what the scans' own files say; where they say nothing, false in raw data, which are as a scanner gave
them, and left out else. Source: Brain Imaging Data Structure 1.10, "Common data types and metadata" of derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib

from interslice.bids.derivatives import Derivatives
from interslice.files.sidecar import fields_of

RUN_RECORD = "RunRecord"
CARRIED = (
    "Modality", "Manufacturer", "ManufacturersModelName", "MagneticFieldStrength", "ImagingFrequency", "BodyPart",
    "PulseSequenceType", "ScanningSequence", "SequenceVariant", "SequenceName", "EchoTime", "RepetitionTime",
    "RepetitionTimeExcitation", "InversionTime", "FlipAngle", "ContrastBolusIngredient", "Units", "SkullStripped",
    "SpatialReference",
)  # fmt: skip
"""Of the scans' fields, those that hold of a result, and that say nothing of a person, a place or a date."""
DESCRIPTIONS = {
    "recon": "Volume with thin slices, reconstructed from {scans} with a diffusion prior. What lies between measured "
    "slices is filled in by the prior: plausible, and not measured.",
    "std": "Standard deviation over the draws of the reconstruction, in the units of the volume.",
    "filled": "The part of the reconstruction that the prior filled in.",
    "measured": "The part of the reconstruction that the measurement determines.",
    "mask": "The mask or label map of the scan, on the grid of the reconstruction.",
}


def fields_for(kind: str, sources: Sequence[Path], derivatives: Derivatives, record: Mapping) -> dict:
    """What the sidecar of a kind of volume holds.

    Args:
        kind: of interslice.bids.names.MAPS, or "mask".
        sources: the scans, files of the data set that was read.
        record: of the run, as run.json has it.
    """
    scans = "a scan with thick slices" if len(sources) == 1 else f"{len(sources)} scans with thick slices"
    fields = {
        "Description": DESCRIPTIONS[kind].format(scans=scans),
        "Sources": [derivatives.uri(path) for path in sources],
        "Resolution": _resolution(sources, record["output_spacing_mm"]),
    }
    if kind == "mask":
        return fields
    carried = _in_common([fields_of(path) for path in sources])
    if "SkullStripped" not in carried and derivatives.source.is_raw:
        carried["SkullStripped"] = False
    if kind == "recon":
        # The data set says where its source lies; folders of a machine have no place in what is passed on.
        own = {key: value for key, value in record.items() if key != "source"}
        return fields | carried | {RUN_RECORD: own}
    return fields | {key: value for key, value in carried.items() if key == "SkullStripped"}


def _in_common(several: Sequence[Mapping]) -> dict:
    first = several[0]
    same = (key for key in CARRIED if key in first and all(other.get(key) == first[key] for other in several))
    return {key: first[key] for key in same}


def _resolution(sources: Sequence[Path], spacing: Sequence[float]) -> str:
    """In words: the voxels of a result, and those of its scans."""
    scans = dict.fromkeys(_sizes(nib.load(path).header.get_zooms()[:3]) for path in sources)
    return f"Voxels of {_sizes(spacing)} mm; those of what was measured are {' and '.join(scans)} mm"


def _sizes(spacing: Sequence[float]) -> str:
    return " x ".join(f"{float(s):.4g}" for s in spacing)
