"""Removes what could tell the patient from a DICOM header: DICOM PS3.15, annex E, and stricter.

The Basic Application Level Confidentiality Profile (DCM 113100) names what to remove. Here it is the other way round:
what `interslice.files.dicom_kept` lists is kept, and all else goes, at any depth, whether the profile names it or not.
UIDs and the patient are replaced, the same one by the same one, so that patients, studies and spaces of a run stay
apart. With dates shifted, the profile's option "Retain Longitudinal Temporal Information with Modified Dates" (DCM
113107):

    date' = date - d        d days, 1 to SPAN, from the secret of this process and the patient's identity

so that intervals between the series of a patient stay, and times of day. Ages and dates of birth are not kept, so that
nothing is left for them to agree with. Pixels are not looked at: burnt-in text and recognisable faces stay.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.uid import generate_uid
from pydicom.valuerep import DSfloat

from interslice.files.dicom_code import BASIC_PROFILE, MODIFIED_DATES, coded
from interslice.files.dicom_kept import DATES, DEVICE_TEXT, NUMBERS, TERMS, TIMES, UIDS
from interslice.files.switch import is_on
from interslice.usage import UsageError

SHIFT_DATES = "shift_dates"
REMOVED, MODIFIED = "REMOVED", "MODIFIED"
"""What becomes of dates, in the standard's words (LongitudinalTemporalInformationModified)."""
METHODS = {REMOVED: (BASIC_PROFILE,), MODIFIED: (BASIC_PROFILE, MODIFIED_DATES)}
"""Codes of context group 7050 (PS3.16) for what was done."""
SPAN = 3650
"""Days by which dates are shifted at most."""
NAMING = ("PatientID", "OtherPatientIDs", "AccessionNumber", "InstitutionName", "StationName")
"""Text besides names of persons whose words must not be found in what the scanner wrote."""
LONGEST_TEXT = 64
SECRET = secrets.token_hex(16)
"""Of this process alone: without it, neither UIDs nor dates lead back."""


def dates_of(value: object) -> str | None:
    """What an option `deidentify` says: None where it is off, else REMOVED or MODIFIED, what becomes of dates.

    Raises:
        ValueError: neither a switch nor "shift_dates".
    """
    if str(value).strip().lower() == SHIFT_DATES:
        return MODIFIED
    try:
        return REMOVED if is_on(value, "deidentify") else None
    except ValueError as error:
        raise UsageError(f"{error}; {SHIFT_DATES} is on, too, and keeps intervals between dates") from None


def run_uid(text: str) -> str:
    """A UID that is the same for the same text within this process, and tells nothing of it."""
    return generate_uid(entropy_srcs=[SECRET, text])


def deidentified(header: Dataset, dates: str) -> Dataset:
    """What a header keeps, in new elements, and a note of what was done.

    Args:
        header: of the source; it stays as it is.
        dates: REMOVED or MODIFIED.
    """
    kept, named = Dataset(), words_that_name(header)
    for element in header:
        value = kept_value(element, named)
        if value is not None:
            setattr(kept, element.keyword, value)
    for keyword in UIDS:
        if uid := header.get(keyword):
            setattr(kept, keyword, run_uid(str(uid)))
    if patient := patient_of(header):
        kept.PatientID = kept.PatientName = f"ANON{number_of('name', patient) % 10**10:010d}"
    if dates == MODIFIED:
        kept.update(shifted(header))
    kept.PatientIdentityRemoved, kept.LongitudinalTemporalInformationModified = "YES", dates
    kept.DeidentificationMethod = ["PS3.15 Basic Application Level Confidentiality Profile", "pixels not examined"]
    kept.DeidentificationMethodCodeSequence = [coded(code) for code in METHODS[dates]]
    return kept


def kept_value(element: DataElement, named: Iterable[str]) -> list | None:
    """The values of an element that pass; None if it is not kept, or one of them is not what the standard says.

    `named`: see `words_that_name`.
    """
    keyword = element.keyword
    if element.tag.is_private or not keyword or dictionary_VR(element.tag) != element.VR or element.is_empty:
        return None
    values = list(element.value) if element.VM > 1 else [element.value]
    if keyword in NUMBERS:
        wanted = dictionary_VM(element.tag)
        return numbers(values, element.VR) if wanted in (str(len(values)), "1-n") else None
    if keyword in TERMS:
        return [str(v) for v in values if str(v) in TERMS[keyword].split()] or None
    if keyword in DEVICE_TEXT and not any(names_somebody(str(v), named) for v in values):
        return [str(v) for v in values]
    return None


def numbers(values: list, vr: str) -> list | None:
    """Values of a decimal string, an integer string or a binary number, made anew; None if one is no finite number."""
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        return None
    if vr == "DS":
        return [DSfloat(float(v), auto_format=True) for v in values]
    return [float(v) if vr in ("FL", "FD") else int(v) for v in values]


def words_that_name(header: Dataset) -> set[str]:
    """Words of two letters or more, in lower case, that name persons, at any depth, or the patient or the place."""
    texts = [header.get(keyword) for keyword in NAMING]
    header.walk(lambda _, element: texts.append(element.value) if element.VR == "PN" else None)
    return {word for text in texts if text for word in re.findall(r"[^\W_]{2,}", str(text).lower())}


def names_somebody(text: str, named: Iterable[str]) -> bool:
    """Whether text holds one of these words, in whole or, if it has three letters or more, within another.

    So does, for all that is known, text that is too long or is not printable ASCII.
    """
    if len(text) > LONGEST_TEXT or not (text.isascii() and text.isprintable()):
        return True
    words = set(re.findall(r"[^\W_]+", text.lower()))
    return any(name in words or (len(name) > 2 and name in text.lower()) for name in named)


def shifted(header: Dataset) -> dict[str, str]:
    """Dates of a header, moved into the past by the days of its patient, and times; what is neither is left out."""
    back, moved = timedelta(days=days_of(header)), {}
    for keyword in DATES:
        try:
            day = datetime.strptime(str(header.get(keyword)), "%Y%m%d")
            moved[keyword] = f"{(day - back):%Y%m%d}".zfill(8)
        except (ValueError, OverflowError):
            continue
    for keyword in TIMES:
        if re.fullmatch(r"\d{2,6}(\.\d{1,6})?", time := str(header.get(keyword) or "")):
            moved[keyword] = time
    return moved


def days_of(header: Dataset) -> int:
    """Days, 1 to SPAN, the same for all headers of one patient within this process.

    A patient is told as by `patient_of`.
    """
    return 1 + number_of("days", patient_of(header)) % SPAN


def patient_of(header: Dataset) -> str:
    """What tells a patient from others: PatientID, or PatientName where there is none, or the study; or nothing."""
    told = (str(header.get(k) or "").strip() for k in ("PatientID", "PatientName", "StudyInstanceUID"))
    return next((text for text in told if text), "")


def number_of(purpose: str, text: str) -> int:
    """A number that hangs on the text and the secret of this process, another one for each purpose."""
    return int(hashlib.sha256(f"{SECRET} {purpose} {text}".encode()).hexdigest(), 16)
