"""Coded concepts in DICOM: an item of a code sequence (PS3.3 section 8)."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.sr.coding import Code


def coded(code: Code) -> Dataset:
    """The item of a code sequence that states this concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
