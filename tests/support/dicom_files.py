"""DICOM series made for tests: single-frame and multi-frame MR, localisers, in files whose names tell no order."""

import copy
import shutil

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from tests.support.scans import OBLIQUE, thick_voxels

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = OBLIQUE @ np.diag([-1.0, 1.2, 4.0, 1.0])
VOXELS = np.round(thick_voxels()).astype(int)
PATIENT = {
    "PatientName": "Doe^Jane", "PatientID": "P4711", "PatientBirthDate": "19700102", "PatientSex": "F",
    "PatientAge": "052Y", "InstitutionName": "St. Elsewhere", "ReferringPhysicianName": "House^G",
    "AccessionNumber": "A17", "StationName": "SCANNER1", "OperatorsName": "Body^Some",
    "PatientComments": "from Springfield", "DeviceSerialNumber": "SN1234",
}  # fmt: skip
"""What must be carried over, and must not be found after de-identification."""


def header(number=3, description="t2_tse_tra", study="1.2.3.4", frame="1.2.3.5"):
    """The attributes of a plain MR scan of a patient, without geometry or pixels."""
    ds = Dataset()
    ds.update(PATIENT)
    ds.SpecificCharacterSet, ds.Modality, ds.Manufacturer = "ISO_IR 100", "MR", "ACME"
    ds.ManufacturerModelName, ds.SoftwareVersions, ds.MagneticFieldStrength = "Magnet", "1", "1.5"
    ds.StudyInstanceUID, ds.FrameOfReferenceUID, ds.SeriesInstanceUID = study, frame, generate_uid()
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.StudyDescription = "20220304", "101112.131415", "S1", "Head of Jane Doe"
    ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20220304"
    ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = "101500"
    ds.SeriesNumber, ds.SeriesDescription, ds.ProtocolName = number, description, description
    ds.PatientPosition, ds.PositionReferenceIndicator, ds.BodyPartExamined = "HFS", "", "HEAD"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "SK", "FS", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.FlipAngle = "4000", "98", "15", "150"
    ds.AcquisitionNumber, ds.ImageType = 1, ["ORIGINAL", "PRIMARY", "M"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    block = ds.private_block(0x0029, "ACME PRIVATE", create=True)
    block.add_new(0x01, "LO", "Jane Doe's private matters")
    return ds


def geometry(affine):
    """(orientation, pixel spacing [down, across], slice distance, first position) of a RAS affine, in DICOM's LPS."""
    lps = LPS @ affine
    size = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / size
    return [*axes[:, 0], *axes[:, 1]], [size[1], size[0]], size[2], lps[:3, 3], axes[:, 2]


def short(values):
    return [f"{v:.9g}" for v in values]


def save(ds, path, storage=MRImageStorage):
    ds.SOPClassUID = storage
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, voxels, affine, *, thickness=None, slope=None, skip=(), **about):
    """Voxels (columns, rows, slices) of whole numbers, one file each, under names in another order; returns headers."""
    folder.mkdir(parents=True, exist_ok=True)
    base = header(**about)
    orientation, spacing, pitch, origin, normal = geometry(affine)
    headers = []
    for k in (k for k in range(voxels.shape[2]) if k not in skip):
        ds = copy.deepcopy(base)
        ds.SOPInstanceUID, ds.InstanceNumber = generate_uid(), k + 1
        ds.ImageOrientationPatient, ds.PixelSpacing = short(orientation), short(spacing)
        ds.ImagePositionPatient = short(origin + k * pitch * normal)
        ds.SliceThickness = f"{pitch if thickness is None else thickness:.9g}"
        ds.SpacingBetweenSlices, ds.SliceLocation = f"{pitch:.9g}", f"{k * pitch:.9g}"
        ds.Columns, ds.Rows = voxels.shape[:2]
        if slope is not None:
            ds.RescaleSlope, ds.RescaleIntercept = f"{slope * (k + 1):.9g}", f"{-k}"  # differ, as they may
        ds.PixelData = np.ascontiguousarray(voxels[:, :, k].T).astype("<u2").tobytes()
        headers.append(ds)
        save(ds, folder / f"{about.get('number', 3)}_{(7 * k) % 101:03d}.dcm")
    return headers


def write_changed(folder, edit=lambda ds, k: None, voxels=VOXELS, affine=AFFINE, storage=MRImageStorage, **about):
    """A series whose headers are changed: files 00, 01, ... in the order of the slices."""
    headers = write_series(folder / "unchanged", voxels, affine, **about)
    shutil.rmtree(folder / "unchanged")
    for k, ds in enumerate(headers):
        edit(ds, k)
        save(ds, folder / f"{k:02d}", storage)
    return headers


def write_time_points(folder, series, affine, edit=lambda ds, k, t: None, **about):
    """(columns, rows, slices, times) of whole numbers as one series: images of all times at each place."""
    uid = generate_uid()
    for t in range(series.shape[3]):
        headers = write_series(folder / "one", series[..., t], affine, **about)
        shutil.rmtree(folder / "one")
        for k, ds in enumerate(headers):
            ds.SeriesInstanceUID, ds.AcquisitionNumber, ds.TemporalPositionIdentifier = uid, t + 1, t + 1
            ds.InstanceNumber = 1 + k + t * series.shape[2]
            edit(ds, k, t)
            save(ds, folder / f"{(37 * ds.InstanceNumber) % 1009:04d}.dcm")


def write_localiser(folder):
    """Three planes that cross, as before every scan."""
    axial = np.diag([2.0, 2.0, 10.0, 1.0])
    for k, affine in enumerate((axial, axial @ np.eye(4)[[0, 2, 1, 3]], axial @ np.eye(4)[[2, 1, 0, 3]])):
        folder.mkdir(parents=True, exist_ok=True)
        ds = header(number=1, description="localizer")
        orientation, spacing, _, origin, _ = geometry(affine)
        ds.SOPInstanceUID, ds.InstanceNumber, ds.ImageType = generate_uid(), k + 1, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.ImageOrientationPatient, ds.PixelSpacing = short(orientation), short(spacing)
        ds.ImagePositionPatient, ds.SliceThickness, ds.Columns, ds.Rows = short(origin), "10", 16, 16
        ds.PixelData = bytes(2 * 16 * 16)
        save(ds, folder / f"loc{k}.dcm")


def write_enhanced(path, voxels, affine, *, thickness=None, **about):
    """One multi-frame file, its frames in another order than the slices; returns the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = header(**about)
    for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength", "FlipAngle", "ScanningSequence", "SequenceVariant",
                    "ScanOptions", "MRAcquisitionType"):  # fmt: skip
        del ds[keyword]
    orientation, spacing, pitch, origin, normal = geometry(affine)
    ds.SOPInstanceUID, ds.InstanceNumber, ds.ImageType = generate_uid(), 1, ["ORIGINAL", "PRIMARY", "M", "NONE"]
    ds.Columns, ds.Rows, ds.NumberOfFrames = voxels.shape
    shared, measures, plane, timing, echo = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SpacingBetweenSlices = short(spacing), f"{pitch:.9g}"
    measures.SliceThickness = f"{pitch if thickness is None else thickness:.9g}"
    plane.ImageOrientationPatient = short(orientation)
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength, echo.EffectiveEchoTime = "4000", "150", 15, 98.0
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    ds.SharedFunctionalGroupsSequence = [shared]
    order = [*range(1, voxels.shape[2], 2), *range(0, voxels.shape[2], 2)]
    frames = []
    for k in order:
        own, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = short(origin + k * pitch * normal)
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "2", f"{-k}", "US"
        own.PlanePositionSequence, own.PixelValueTransformationSequence = [position], [values]
        frames.append(own)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = np.ascontiguousarray(voxels[:, :, order].transpose(2, 1, 0)).astype("<u2").tobytes()
    save(ds, path, EnhancedMRImageStorage)
    return ds
