"""Removes what could tell the patient from a DICOM header: the Basic Application Level Confidentiality Profile.

DICOM PS3.15, annex E, table E.1-1, names the attributes and what to do with each (as read by dicom-anonymizer):

    X   remove           Z   empty           D   replace by a dummy           U   replace a UID, the same one alike
    X/Z, X/D, Z/D, ...   the first that keeps the object valid; here: the last, which always does

Sequences that the table would replace are removed; in references to images (X/Z/U*) the UIDs are replaced. The table is
applied at every level of nested sequences, and private attributes are removed. Pixels are not looked at: burnt-in text
and recognisable faces stay.
"""

from __future__ import annotations

import secrets

from pydicom import DataElement, Dataset
from pydicom.uid import generate_uid

EDITION = "dicomfields_2026c"
DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "PN": "ANONYMOUS", "UR": "urn:none"}
TEXT = {"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"}
SALT = secrets.token_hex(16)


def run_uid(text: str) -> str:
    """A UID that is the same for the same text within this process, and tells nothing of it."""
    return generate_uid(entropy_srcs=[SALT, text])


def deidentify(header: Dataset) -> None:
    """Apply the profile to a header in place, and note in it that this was done."""
    from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector  # needed for this alone

    table = dicom_anonymization_database_selector(EDITION)
    actions = {tag: name for name, tags in table.items() if name != "ALL_TAGS" for tag in tags}
    repeating = {tag: name for tag, name in actions.items() if len(tag) == 4}
    _clean(header, actions, repeating)
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = ["PS3.15 Basic Application Level Confidentiality Profile", "pixels not examined"]


def _clean(dataset: Dataset, actions: dict, repeating: dict) -> None:
    dataset.remove_private_tags()
    for element in list(dataset):
        g, e = element.tag.group, element.tag.element
        name = actions.get((g, e)) or next((n for t, n in repeating.items() if (g & t[2], e & t[3]) == t[:2]), None)
        if name == "X_TAGS":
            del dataset[element.tag]
        elif name in ("U_TAGS", "X_Z_U_STAR_TAGS") and element.VR == "UI":
            uids = [element.value] if isinstance(element.value, str) else list(element.value)
            element.value = [run_uid(uid) for uid in uids]
        elif name in ("Z_TAGS", "X_Z_TAGS"):
            element.value = [] if element.VR == "SQ" else None
        elif name is not None and name != "X_Z_U_STAR_TAGS":
            if element.VR == "SQ":
                del dataset[element.tag]  # its codes may say who or where; no MR or CT image needs one of these
            else:
                element.value = _dummy(element)
        if element.tag in dataset and element.VR == "SQ":
            for item in element.value:
                _clean(item, actions, repeating)


def _dummy(element: DataElement):
    if element.VR == "UI":
        return run_uid(str(element.value))
    if element.VR in TEXT:
        return "ANONYMOUS"
    return DUMMIES.get(element.VR, b"" if element.VR in ("OB", "OW", "UN") else 0)
