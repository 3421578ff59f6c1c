"""Without the patient: a source in which every attribute of DICOM is a secret gives a series that holds none."""

import re
from datetime import datetime

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from interslice.files.deidentify import METHODS, MODIFIED, REMOVED, SPAN, dates_of, days_of, deidentified, run_uid
from interslice.files.dicom_code import BASIC_PROFILE, MODIFIED_DATES, PROCESSING_EQUIPMENT, SOURCE_IMAGE
from interslice.files.dicom_kept import DATES, DEVICE_TEXT, NUMBERS, TERMS, TIMES, UIDS
from interslice.files.dicom_read import find_stack
from interslice.files.dicom_write import save_series
from tests.files.test_dicom_write import headers, volume
from tests.support.dicom_files import PATIENT, write_changed, write_enhanced
from tests.support.scans import thick_voxels
from tests.support.secret_headers import AGE, DAY, NAME, NUMBER, ROOT_UID, TIME, secret, write_secrets

VOXELS = np.round(thick_voxels()).astype(int)
WRITTEN_BY_SCANNERS = {"Manufacturer", "ManufacturerModelName", "SequenceName", "ConvolutionKernel"}
OURS = {"PatientID", "PatientName", "SeriesDescription", "DerivationDescription", "ImageComments",
        "DeidentificationMethod", "SoftwareVersions", "CodeValue", "CodingSchemeDesignator", "CodeMeaning"}  # fmt: skip
MOVED = {"StudyDate", "AcquisitionDate", "StudyTime", "AcquisitionTime"}
NAMED_ATTRIBUTES = ("PN", "DA", "DT", "TM", "AS", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE")
"""Types whose values may tell the patient, wherever they stand."""
MULTI_FRAME = ("PerFrameFunctionalGroupsSequence", "NumberOfFrames")
"""Left out: with these the files would be multi-frame ones."""
STACK = set(
    """
    SpecificCharacterSet Modality SOPClassUID SOPInstanceUID SeriesInstanceUID SeriesNumber ImageType InstanceNumber
    ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices Rows Columns EchoTime
    SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation PixelData
    """.split()  # noqa: SIM905
)
"""What makes files a stack of slices stays as it is."""


@pytest.fixture(scope="module")
def profile():
    """{(group, element)} that PS3.15 table E.1-1 names, as another package has read it."""
    selector = pytest.importorskip(
        "dicomanonymizer.dicomfields_selector", reason="requirements-dev.txt is not installed"
    )
    table = selector.dicom_anonymization_database_selector("dicomfields_2026c")
    return {tag for tag in table["ALL_TAGS"] if len(tag) == 2}


@pytest.fixture(scope="module")
def full_of_secrets(tmp_path_factory):
    """A series whose every header, preamble, file meta group and end is full of secrets."""
    folder = tmp_path_factory.mktemp("full") / "source"
    write_changed(folder, voxels=VOXELS[:, :, :3])
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        for element in list(ds):
            if element.keyword not in STACK:
                del ds[element.tag]
        write_secrets(path, ds, MULTI_FRAME)
    return find_stack(folder)


@pytest.fixture(scope="module", params=[REMOVED, MODIFIED])
def result(request, full_of_secrets, tmp_path_factory):
    """What becomes of dates, and the folder of the series that was written of such a source."""
    folder = tmp_path_factory.mktemp("result") / "out"
    save_series(volume(), folder, full_of_secrets, dates=request.param)
    return request.param, folder


# -- the judge: every attribute there is ----------------------------------------------------------
def test_no_secret_of_any_attribute_is_found_in_the_bytes_of_the_result(full_of_secrets, result):
    assert len(full_of_secrets.header) > 4500
    dates, folder = result
    for path in folder.iterdir():
        content, ds = path.read_bytes(), pydicom.dcmread(path)
        found = {keyword_for_tag(int(t, 16)) for t in re.findall(rb"SECRET([0-9A-F]{8})", content)}
        assert found == WRITTEN_BY_SCANNERS and content.count(b"SECRET") == len(found)
        gone = [NAME, DAY, AGE, ROOT_UID, *[TIME[:6]] * (dates == REMOVED)]
        assert [text for text in gone if text.encode() in content] == []
        said = {e.keyword: e for e in ds.iterall() if e.VR in NAMED_ATTRIBUTES and not e.is_empty}
        assert said.keys() == WRITTEN_BY_SCANNERS | OURS | (MOVED if dates == MODIFIED else set())
        assert not [e for e in ds.iterall() if e.tag.is_private]
        assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", dates)


def test_numbers_that_are_kept_are_none_that_the_profile_names(result, profile):
    ds = headers(result[1])[0]
    kept = [e for e in ds.iterall() if e.value == NUMBER]
    assert 20 < len(kept) < 60 and {e.tag.group for e in kept} == {0x18, 0x28}
    assert not {(e.tag.group, e.tag.element) for e in kept} & profile


def test_what_the_profile_names_is_absent_empty_or_new(result, profile):
    dates, folder = result
    ds = headers(folder)[0]
    left = {e.keyword for e in ds if (e.tag.group, e.tag.element) in profile and not e.is_empty}
    uids = {"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
    replaced = uids | {"PatientID", "PatientName"}
    made = {"SeriesDescription", "DerivationDescription", "ImageComments"}
    assert left == replaced | made | (MOVED if dates == MODIFIED else set())


def test_nothing_is_kept_that_the_profile_names(profile):
    for keyword in (*NUMBERS, *TERMS, *DEVICE_TEXT):
        tag = Tag(keyword)
        vr, _, _, retired, _ = DicomDictionary[int(tag)]
        assert (tag.group, tag.element) not in profile and not retired, keyword
        assert vr in (("DS", "IS", "US", "FL", "FD") if keyword in NUMBERS else ("CS", "SH", "LO")), keyword
    assert {(Tag(k).group, Tag(k).element) for k in (*UIDS, *DATES, *TIMES)} <= profile  # each has its own rule
    assert set(DEVICE_TEXT) == WRITTEN_BY_SCANNERS


ANY_TAG = st.sampled_from([t for t, (vr, *_) in DicomDictionary.items() if t >> 16 not in (0, 2) and vr != "SQ"])
FLAT = st.dictionaries(ANY_TAG, st.sampled_from(["PN", "LO", "SH", "CS", "DS", "DA", "UI", "UT", "UN"]), max_size=8)
TREE = st.recursive(FLAT.map(lambda f: (f, [])), lambda inside: st.tuples(FLAT, st.lists(inside, max_size=2)))


def planted(tree):
    """A data set of attributes, some under types that are not theirs, with sequences inside."""
    ds = Dataset()
    for tag, vr in tree[0].items():
        value = f"{NAME}^X" if vr == "DS" else secret(Tag(tag), vr)
        ds.add(pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE, already_converted=True))
    for inside, tag in zip(tree[1], ("AnatomicRegionSequence", "ExposedAreaSequence")):
        ds.add_new(Tag("AnatomicRegionSequence" if tag[0] == "A" else "ContentSequence"), "SQ", [planted(inside)])
    return ds


@given(TREE, st.sampled_from([REMOVED, MODIFIED]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_nesting_and_no_misuse_of_types_lets_a_secret_through(tree, dates):
    kept = deidentified(planted(tree), dates)
    texts = {e.keyword: str(e.value) for e in kept.iterall() if e.VR != "SQ"}
    assert {k for k, v in texts.items() if "SECRET" in v or NAME in v} <= WRITTEN_BY_SCANNERS
    assert not [k for k, v in texts.items() if DAY in v or ROOT_UID in v]


# -- what the scanner wrote -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "stays"),
    [("Magnetom Vida", True), ("*tse2d1_15", True), ("B30f", True), ("for Doe, Jane", False), ("JaneKNEE", False),
     ("seq P4711", False), ("St. Elsewhere MR 2", False), ("li", False), ("Philips", True), ("Größe", False),
     ("a\rb", False), ("x" * 65, False)],
)  # fmt: skip
def test_text_of_a_scanner_passes_unless_it_holds_a_word_that_names_somebody(text, stays):
    header = Dataset()
    header.PatientName, header.PatientID, header.InstitutionName = "Doe^Jane", "P4711", "Elsewhere"
    item = Dataset()
    item.PersonName = "Li^M"  # somebody who is named further down
    header.ContentSequence = [item]
    header.ManufacturerModelName, header.EchoTime = text, "98"
    kept = deidentified(header, REMOVED)
    assert kept.get("ManufacturerModelName") == (text if stays else None) and kept.EchoTime == 98


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [("EchoTime", "98", 98), ("EchoTime", ["98", "1"], None), ("AcquisitionMatrix", [0, 256, 192, 0], [0, 256, 192, 0]),
     ("AcquisitionMatrix", [1] * 90, None), ("FocalSpots", ["0.7", "1.2"], [0.7, 1.2]), ("EchoTime", "nan", None)],
)  # fmt: skip
def test_of_numbers_as_many_pass_as_there_are_to_be(keyword, value, kept):
    header = Dataset()
    setattr(header, keyword, value)
    assert deidentified(header, REMOVED).get(keyword) == kept


@pytest.mark.parametrize(("value", "kept"), [("HEAD", "HEAD"), ("DOE KNEE", None), (["SP", "DOE", "FS"], ["SP", "FS"])])
def test_of_code_strings_the_standard_s_terms_pass(value, kept):
    header = Dataset()
    keyword = "ScanOptions" if isinstance(value, list) else "BodyPartExamined"
    setattr(header, keyword, value)
    assert deidentified(header, REMOVED).get(keyword) == kept


def test_a_series_numbered_by_its_date_loses_its_number(tmp_path):
    write_changed(tmp_path / "source", lambda ds, k: setattr(ds, "SeriesNumber", 2022030411), VOXELS)
    save_series(volume(), tmp_path / "out", find_stack(tmp_path / "source"), dates=REMOVED)
    assert {ds.SeriesNumber for ds in headers(tmp_path / "out")} == {9000}


# -- single-frame and multi-frame sources ---------------------------------------------------------
@pytest.mark.parametrize("kind", ["single", "enhanced"])
def test_nothing_of_the_patient_is_left_and_the_scan_is_still_described(tmp_path, kind):
    if kind == "single":
        write_changed(tmp_path / "source", voxels=VOXELS)
    else:
        write_enhanced(tmp_path / "source" / "one.dcm", VOXELS, np.diag([-1.0, 1.2, 4.0, 1.0]))
    old = headers(tmp_path / "source")[0]
    save_series(volume(), tmp_path / "out", find_stack(tmp_path / "source"), dates=REMOVED)
    for path in (tmp_path / "out").iterdir():
        ds, content = pydicom.dcmread(path), path.read_bytes()
        secrets = [v for k, v in PATIENT.items() if k not in ("PatientSex", "PatientAge")] + [
            "Jane", "ACME PRIVATE", "t2_tse_tra", "20220304", "101112.131415", old.StudyInstanceUID,
            old.SeriesInstanceUID, old.SOPInstanceUID, old.FrameOfReferenceUID,
        ]  # fmt: skip
        assert [s for s in secrets if s.encode() in content] == []
        assert not ds.get("PatientSex") and not ds.get("PatientAge") and "SourceImageSequence" not in ds
        assert (ds.Manufacturer, ds.BodyPartExamined, ds.MagneticFieldStrength) == ("ACME", "HEAD", 1.5)
        assert (ds.EchoTime, ds.RepetitionTime, ds.FlipAngle, ds.EchoTrainLength) == (98, 4000, 150, 15)


def test_patients_of_a_run_stay_apart_under_names_without_meaning():
    def named(**who):
        header = Dataset()
        header.update(who)
        kept = deidentified(header, REMOVED)
        return str(kept.get("PatientID")), str(kept.get("PatientName"))

    people = [named(PatientID=f"P{i}", PatientName="Doe^Jane") for i in range(20)]
    assert len(set(people)) == 20 and all(i == n and re.fullmatch(r"ANON\d{10}", i) for i, n in people)
    assert named(PatientID="P1", PatientName="Jane Doe", StudyInstanceUID="1.2") == people[1]
    assert named() == ("None", "None")  # nobody is known, and none is made up


def test_series_of_one_study_share_a_new_one(tmp_path):
    for number in (3, 4):
        write_changed(tmp_path / f"{number}", voxels=VOXELS, number=number)
        save_series(volume(), tmp_path / f"out{number}", find_stack(tmp_path / f"{number}"), dates=REMOVED)
    one, other = (headers(tmp_path / f"out{n}")[0] for n in (3, 4))
    assert one.StudyInstanceUID == other.StudyInstanceUID != "1.2.3.4"
    assert one.FrameOfReferenceUID == other.FrameOfReferenceUID != "1.2.3.5"
    assert run_uid("1.2.3") == run_uid("1.2.3") != run_uid("1.2.4") and "1.2.3." not in run_uid("1.2.3")


# -- dates ----------------------------------------------------------------------------------------
def visit(day, patient="P1", **others):
    header = Dataset()
    header.PatientID, header.StudyDate, header.StudyTime, header.AcquisitionDate = patient, day, "101112.5", day
    header.update(others)
    return deidentified(header, MODIFIED)


@given(st.dates(datetime(1930, 1, 1).date()), st.dates(datetime(1930, 1, 1).date()), st.text(min_size=1, max_size=64))
def test_intervals_of_a_patient_stay_and_times_too(first, second, patient):
    one, other = (visit(d.strftime("%Y%m%d"), patient) for d in (first, second))
    moved = [datetime.strptime(ds.StudyDate, "%Y%m%d").date() for ds in (one, other)]
    assert moved[1] - moved[0] == second - first and 1 <= (first - moved[0]).days <= SPAN
    assert one.AcquisitionDate == one.StudyDate and one.StudyTime == "101112.5"


def test_each_patient_has_days_of_their_own_and_each_process(fresh_python):
    def days(**who):
        header = Dataset()
        header.update(who)
        return days_of(header)

    assert len({days(PatientID=f"P{i}") for i in range(20)}) > 15
    assert days(PatientID="P1", PatientName="A") == days(PatientID="P1 ", StudyInstanceUID="1.2")
    assert days(PatientName="Doe^Jane") == days(PatientName="Doe^Jane", StudyInstanceUID="1.2")
    assert days(StudyInstanceUID="1.2") == days(StudyInstanceUID="1.2")
    code = "from interslice.files.deidentify import run_uid; print(run_uid('1.2.3'))"
    assert len({fresh_python(code), fresh_python(code), run_uid("1.2.3")}) == 3


@pytest.mark.parametrize("day", ["2022.03.04", "00010101", "20220231", "yesterday", ""])
def test_what_is_no_date_goes(day):
    header = Dataset()
    header.add(pydicom.DataElement("StudyDate", "DA", day, validation_mode=pydicom.config.IGNORE))
    header.add(pydicom.DataElement("StudyTime", "TM", "at ten", validation_mode=pydicom.config.IGNORE))
    kept = deidentified(header, MODIFIED)
    assert "StudyDate" not in kept and "StudyTime" not in kept


def test_what_was_done_is_stated_in_the_standard_s_codes():
    dcm = codes.DCM
    for ours, theirs in (
        (SOURCE_IMAGE, dcm.SourceImageForImageProcessingOperation),
        (PROCESSING_EQUIPMENT, dcm.ProcessingEquipment),
        (BASIC_PROFILE, dcm.BasicApplicationConfidentialityProfile),
        (MODIFIED_DATES, dcm.RetainLongitudinalTemporalInformationModifiedDatesOption),
    ):
        assert ours == (theirs.value, theirs.scheme_designator, theirs.meaning)
    assert {REMOVED: (BASIC_PROFILE,), MODIFIED: (BASIC_PROFILE, MODIFIED_DATES)} == METHODS
    for dates, used in METHODS.items():
        items = deidentified(Dataset(), dates).DeidentificationMethodCodeSequence
        assert [(i.CodeValue, i.CodeMeaning) for i in items] == [(c.value, c.meaning) for c in used]


@pytest.mark.parametrize(
    ("value", "dates"),
    [
        (False, None),
        ("no", None),
        (True, REMOVED),
        ("yes", REMOVED),
        ("shift_dates", MODIFIED),
        ("Shift_Dates", MODIFIED),
    ],
)
def test_the_option(value, dates):
    assert dates_of(value) == dates


def test_the_option_refuses_what_it_does_not_know():
    for value in ("shift", REMOVED, None):
        with pytest.raises(ValueError, match=f"deidentify is on or off: .*; got {value!r}; shift_dates is on, too"):
            dates_of(value)


def test_every_keyword_of_the_lists_is_known():
    assert [k for k in (*NUMBERS, *TERMS, *DEVICE_TEXT, *UIDS, *DATES, *TIMES) if tag_for_keyword(k) is None] == []
    assert {dictionary_VR(k) for k in DATES} == {"DA"} and {dictionary_VR(k) for k in TIMES} == {"TM"}
