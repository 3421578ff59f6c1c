"""Coded concepts in DICOM: an item of a code sequence (PS3.3 section 8).

The few that are used are stated here: pydicom's dictionary of all takes a tenth of a second to load.
"""

from __future__ import annotations

from typing import NamedTuple

from pydicom import Dataset


class Code(NamedTuple):
    """A concept: its code, in the scheme that defines it, and what that means in words."""

    value: str
    scheme: str
    meaning: str


SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
BASIC_PROFILE = Code("113100", "DCM", "Basic Application Confidentiality Profile")
MODIFIED_DATES = Code("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option")


def coded(code: Code) -> Dataset:
    """The item of a code sequence that states this concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
