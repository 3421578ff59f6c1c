"""The private elements of DICOM-CT-PD, and their values, whether a file states their types or not.

Numbers and meanings after "DICOM-CT-PD User Manual", version 3, and Chen et al., "Technical note: Development and
validation of an open data format for CT projection data", Med. Phys. 42 (2015). Lengths in mm, angles in radians. Files
of implicit type give pydicom bytes: FL is float32, US uint16, DS and CS are text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from interslice.files.scan import Refusal

TYPES = {"FL": "<f4", "US": "<u2"}
LONGEST_WORD = 32


@dataclass(frozen=True)
class Element:
    """One private element.

    Attributes:
        tag: group and element.
        kind: its value representation.
        count: of its values.
    """

    tag: tuple[int, int]
    kind: str
    count: int = 1


ELEMENTS = {
    "NumberofDetectorRows": Element((0x7029, 0x1010), "US"),
    "NumberofDetectorColumns": Element((0x7029, 0x1011), "US"),
    "DetectorElementTransverseSpacing": Element((0x7029, 0x1002), "FL"),
    "DetectorElementAxialSpacing": Element((0x7029, 0x1006), "FL"),
    "DetectorShape": Element((0x7029, 0x100B), "CS"),
    "DetectorFocalCenterAngularPosition": Element((0x7031, 0x1001), "FL"),
    "DetectorFocalCenterAxialPosition": Element((0x7031, 0x1002), "FL"),
    "DetectorFocalCenterRadialDistance": Element((0x7031, 0x1003), "FL"),
    "ConstantRadialDistance": Element((0x7031, 0x1031), "FL"),
    "DetectorCentralElement": Element((0x7031, 0x1033), "FL", 2),
    "SourceAngularPositionShift": Element((0x7033, 0x100B), "FL"),
    "SourceAxialPositionShift": Element((0x7033, 0x100C), "FL"),
    "SourceRadialDistanceShift": Element((0x7033, 0x100D), "FL"),
    "FlyingFocalSpotMode": Element((0x7033, 0x100E), "CS"),
    "NumberofSourceAngularSteps": Element((0x7033, 0x1013), "US"),
    "SpectrumIndex": Element((0x7033, 0x1063), "US"),
    "PhotonStatistics": Element((0x7033, 0x1065), "FL", 0),
    "TypeofProjectionData": Element((0x7037, 0x1009), "CS"),
    "LogFlag": Element((0x7039, 0x1009), "CS"),
    "WaterAttenuationCoefficient": Element((0x7041, 0x1001), "DS"),
}
"""By the manual's names. A count of 0 is any."""
MARK = ELEMENTS["DetectorFocalCenterAngularPosition"].tag
"""A DICOM file with this element is a projection."""


def numbers_of(header: Dataset, name: str) -> np.ndarray | None:
    """(values,) float64 of a numeric element; None where it is missing. Refusal where it is damaged."""
    element = ELEMENTS[name]
    if element.tag not in header:
        return None
    value = header[element.tag].value
    try:
        if isinstance(value, bytes) and element.kind in TYPES:
            values = np.frombuffer(value, TYPES[element.kind]).astype(float)
        elif isinstance(value, bytes):
            values = np.array([float(part) for part in value.decode("ascii").strip(" \0").split("\\")])
        else:
            values = np.atleast_1d(np.array(value, float))
    except (ValueError, TypeError):
        raise Refusal(f"{name} {_written(element)} is no number: the header is damaged") from None
    if element.count and len(values) != element.count or not np.isfinite(values).all():
        raise Refusal(f"{name} {_written(element)} must be {element.count} finite numbers, got {len(values)} values")
    return values


def number_of(header: Dataset, name: str, default: float | None = None, *, positive: bool = False) -> float:
    """The value of an element; Refusal where it is missing without a default, damaged, or not positive."""
    values = numbers_of(header, name)
    if values is None:
        if default is None:
            raise Refusal(f"{name} {_written(ELEMENTS[name])} is missing: without it the rays are not known")
        return default
    value = float(values[0])
    if positive and not 0 < value < math.inf:
        raise Refusal(f"{name} {_written(ELEMENTS[name])} is {value:g}, and must be positive")
    return value


def word_of(header: Dataset, name: str) -> str:
    """The word of an element in capitals, letters and digits alone; "" where there is none."""
    element = ELEMENTS[name]
    if element.tag not in header:
        return ""
    value = header[element.tag].value
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value or "")
    return "".join(c for c in text.upper() if c.isalnum())[:LONGEST_WORD]


def _written(element: Element) -> str:
    return "({:04X},{:04X})".format(*element.tag)
