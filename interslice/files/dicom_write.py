"""DICOM out: a volume as a derived series of single-frame MR or CT images, one file per slice.

    stored = round(value / slope), slope = 2^k the smallest that lets |stored| <= 32767, intercept 0

so the values come back to within half a slope (below 2^-15 of the largest), zero stays zero, and whole numbers up to
32767 come back exactly. Patient, study, equipment and acquisition are the source's: every attribute that is the same
in all its slices. Series, instances, geometry and pixels are new; the source images are referenced (PS3.3 C.7.6.1).
"""

from __future__ import annotations

import copy
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from interslice import __version__
from interslice.files.check import check_perpendicular
from interslice.files.deidentify import deidentified, run_uid
from interslice.files.dicom_code import PROCESSING_EQUIPMENT, SOURCE_IMAGE, coded
from interslice.files.dicom_stack import Stack
from interslice.files.findings import MAPS
from interslice.files.whole import folder_written_whole

NAME = "Slice-consistent diffusion reconstruction"
LIMITS = "Research only, not for diagnosis: what was not measured is filled in by a 2-D diffusion prior."
STORAGE = {"MR": MRImageStorage, "CT": CTImageStorage}
KINDS = {
    "recon": "diffusion recon",
    "std": "standard deviation of draws",
    "filled": MAPS["filled"],
    "measured": "determined by the measurement",
}
"""What each kind of volume is called; a title has room for 64 letters, with that of the source."""
LARGEST = 32767
NUMBER_OFFSET = 9000
"""Added to ten times the source's SeriesNumber, with a place for each kind of volume."""
NUMBERS = range(-(2**31), 2**31)
"""What a SeriesNumber can be: DICOM's integer strings (IS, PS3.5 6.2)."""
PLAIN_NUMBERS = range(100_000)
"""Of series, that are no date: some scanners number by date and time."""
IMAGES = ("recon", "measured")
"""Kinds of volumes in the source's intensities, which are shown as the source is."""

REQUIRED = {
    "MR": {
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None, "MRAcquisitionType": None,
        "EchoTime": None, "EchoTrainLength": None, "RepetitionTime": None,
    },
    "CT": {"KVP": None, "AcquisitionNumber": None, "RescaleType": "HU"},
}  # fmt: skip
"""What these images must have (None: may be empty), where the source does not say it."""
EMPTY = set(
    """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyID
    Manufacturer PositionReferenceIndicator PatientPosition
    """.split()  # noqa: SIM905
)
"""What every image has, perhaps empty."""
MULTI_FRAME = {"EchoTime": "EffectiveEchoTime"} | {k: k for k in (
    "RepetitionTime", "FlipAngle", "EchoTrainLength", "KVP", "WindowCenter", "WindowWidth")}  # fmt: skip
"""What multi-frame images say in functional groups, and single-frame ones beside the rest."""
NOT_CARRIED = set(
    """
    SOPInstanceUID SOPClassUID SeriesInstanceUID SeriesNumber SeriesDescription SeriesDate SeriesTime InstanceNumber
    InstanceCreationDate InstanceCreationTime InstanceCreatorUID ContentDate ContentTime ImageComments ImageType
    DerivationDescription DerivationCodeSequence SourceImageSequence ReferencedImageSequence ImagesInAcquisition
    ImagePositionPatient ImageOrientationPatient SliceLocation SliceThickness SpacingBetweenSlices PixelSpacing Rows
    Columns NumberOfFrames BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PixelData
    PhotometricInterpretation PixelPaddingValue PixelPaddingRangeLimit SmallestImagePixelValue LargestImagePixelValue
    SmallestPixelValueInSeries LargestPixelValueInSeries RescaleSlope RescaleIntercept ModalityLUTSequence
    VOILUTSequence RealWorldValueMappingSequence IconImageSequence FrameType SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence DimensionOrganizationSequence DimensionIndexSequence DimensionOrganizationType
    ConcatenationUID PresentationLUTShape PixelPresentation VolumetricProperties VolumeBasedCalculationTechnique
    AcquisitionContrast ComplexImageComponent AcquisitionDateTime AcquisitionDuration ContentQualification
    ResonantNucleus KSpaceFiltering ApplicableSafetyStandardAgency
    """.split()  # noqa: SIM905 - a list of sixty names would fill the screen
)
"""Attributes of the source that are not true of the result, or belong to multi-frame images alone."""
FIRST_GROUP = 0x0008
"""Of an image: lower ones are of messages, of a file's own header and of directories (PS3.5, 7.1, and PS3.10, 7.1)."""


def save_series(volume: torch.Tensor, folder: str | Path, stack: Stack | None = None, *, suffix: str = "recon",
                modality: str = "MR", dates: str | None = None) -> int:  # fmt: skip
    """Write a volume as a folder of DICOM files, whole or not at all; returns their number.

    Args:
        volume: MetaTensor (1, X, Y, Z): columns, rows and slices, with its affine (RAS, mm).
        folder: replaced if it exists.
        stack: the DICOM slices that the volume was made from; without them the patient has no name.
        suffix: what kind of volume it is; see `interslice.files.restore.result_volumes`.
        modality: of a volume whose source is no DICOM.
        dates: keep nothing that could tell the patient, and dates as this says (interslice.files.deidentify.dates_of).

    Raises:
        ValueError: the axes of the volume are not perpendicular, it holds NaN, or the modality is neither MR nor CT.
    """
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(volume.affine, dtype=float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    check_perpendicular(torch.as_tensor(affine))
    voxels = np.asarray(volume.as_tensor()[0].cpu(), dtype=np.float32)
    largest = max(-float(voxels.min()), float(voxels.max()))
    if not math.isfinite(largest):  # both are NaN if one voxel is
        raise ValueError("the volume holds NaN or infinity, which DICOM images cannot: save it as NIfTI")
    header = series_header(stack, Path(folder), suffix, modality, dates)
    header.update(geometry(axes, spacing, voxels.shape, header.Modality))
    slope = rescale_slope(largest)  # a power of two, by which floats are divided exactly
    header.update(pixel_format(slope, photometric_interpretation(stack, suffix)))
    if suffix != "recon" or "WindowCenter" not in header:
        header.update(window(voxels))
    with folder_written_whole(Path(folder)) as partial:
        for k in range(voxels.shape[2]):
            stored = np.rint(voxels[:, :, k].T / slope).astype("<i2")
            position = affine[:3, 3] + k * spacing[2] * axes[:, 2]
            image(header, k + 1, position, stored).save_as(partial / f"{k + 1:04d}.dcm", enforce_file_format=True)
    return voxels.shape[2]


def rescale_slope(largest: float) -> float:
    """The smallest power of two with largest / slope <= 32767; at most 1 unless the values are larger than that."""
    return 2.0 ** math.ceil(math.log2(largest / LARGEST)) if largest > 0 else 1.0


def series_header(stack: Stack | None, folder: Path, suffix: str, modality: str, dates: str | None) -> Dataset:
    """What all images of the new series share, but for geometry and pixels, by `dates` without the patient."""
    header = Dataset() if stack is None else common_part(stack)
    modality = header.get("Modality", modality)
    if modality not in STORAGE:
        raise ValueError(f"modality must be one of {sorted(STORAGE)}, got {modality!r}")
    source_number = int(stack.header.get("SeriesNumber") or 0 if stack else 0)
    title = f"{stack.header.get('SeriesDescription', '') if stack else ''} {KINDS[suffix]}".strip()[-64:]
    now = datetime.now()
    made = {
        "SeriesDate": now.strftime("%Y%m%d"), "SeriesTime": now.strftime("%H%M%S"),
        "ContentDate": now.strftime("%Y%m%d"), "ContentTime": now.strftime("%H%M%S"),
    }  # fmt: skip
    if stack:
        made["SourceImageSequence"] = source_images(stack)
    if dates:
        header, title, made = deidentified(header, dates), KINDS[suffix], {}
        source_number *= source_number in PLAIN_NUMBERS
    needed = dict.fromkeys(EMPTY) | REQUIRED[modality]
    if "BodyPartExamined" not in header:
        needed["Laterality"] = None  # of a part that may be one of a pair
    header.update({k: v for k, v in needed.items() if k not in header})
    header.update(
        {k: run_uid(f"{folder.parent} {k}") for k in ("StudyInstanceUID", "FrameOfReferenceUID") if k not in header}
    )
    header.update(made)
    header.SOPClassUID, header.Modality = STORAGE[modality], modality
    header.SeriesInstanceUID, header.SeriesDescription = generate_uid(), title
    header.SeriesNumber = series_number(source_number, suffix)
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    header.DerivationDescription = header.ImageComments = f"{NAME} {__version__}: {KINDS[suffix]}. {LIMITS}"
    header.ContributingEquipmentSequence = [*header.get("ContributingEquipmentSequence", []), equipment()]
    return header


def series_number(source: int, suffix: str) -> int:
    """9000 + 10 times the source's number + the place of the kind; of a long number its last eight digits count.

    Some scanners and archives number by date and time, and ten times that can be more than a SeriesNumber can be.
    """
    number = NUMBER_OFFSET + 10 * source + list(KINDS).index(suffix)
    return number if number in NUMBERS else series_number(abs(source) % 10**8, suffix)


def photometric_interpretation(stack: Stack | None, suffix: str) -> str:
    """MONOCHROME1, the lowest value white, where the source has that and the volume is in its intensities."""
    stated = stack.header.get("PhotometricInterpretation") if stack else None
    return stated if stated == "MONOCHROME1" and suffix in IMAGES else "MONOCHROME2"


def common_part(stack: Stack) -> Dataset:
    """The standard attributes that have one value in all slices of the source, less those in NOT_CARRIED."""
    header = Dataset()
    for element in stack.header:
        if element.tag.group < FIRST_GROUP or element.tag.is_private:
            continue
        if element.keyword not in NOT_CARRIED:
            header[element.tag] = copy.deepcopy(element)
    if stack.about is not None:
        for keyword, within in MULTI_FRAME.items():
            if (value := stack.about.get(within)) is not None:
                setattr(header, keyword, value)
    return header


def source_images(stack: Stack) -> list[Dataset]:
    """References to all images of the source."""
    items = {}
    for s in stack.slices:
        item = items.setdefault(s.instance, Dataset())
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = s.sop_class, s.instance
        item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE)]
    return list(items.values())


def equipment() -> Dataset:
    """This software as contributing equipment (PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(PROCESSING_EQUIPMENT)]
    item.Manufacturer = item.ManufacturerModelName = NAME
    item.SoftwareVersions = __version__
    return item


def geometry(axes: np.ndarray, spacing: np.ndarray, shape: tuple[int, int, int], modality: str) -> dict:
    """Attributes of the image plane that all slices share; axes (3, 3) as columns, LPS."""
    shared = {
        "ImageOrientationPatient": decimals(axes[:, :2].T.ravel()),
        "PixelSpacing": decimals([spacing[1], spacing[0]]),
        "SliceThickness": decimals([spacing[2]])[0],
        "Rows": shape[1],
        "Columns": shape[0],
    }
    return shared | ({"SpacingBetweenSlices": shared["SliceThickness"]} if modality == "MR" else {})


def pixel_format(slope: float, photometric: str) -> dict:
    """Attributes of signed 16-bit pixels, of which the lowest is white (MONOCHROME1) or black (MONOCHROME2)."""
    return {
        "SamplesPerPixel": 1, "PhotometricInterpretation": photometric, "BitsAllocated": 16, "BitsStored": 16,
        "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": decimals([slope])[0], "RescaleIntercept": "0",
    }  # fmt: skip


def window(voxels: np.ndarray) -> dict:
    """A grey window from the 1st to the 99th percentile."""
    low, high = (float(v) for v in np.percentile(voxels, [1, 99]))
    centre, width = decimals([(low + high) / 2, max(high - low, 1e-6)])
    return {"WindowCenter": centre, "WindowWidth": width}


def decimals(values) -> list[DSfloat]:
    """Numbers as DICOM's decimal strings of at most 16 characters; powers of two down to 2^-15 are exact."""
    return [DSfloat(float(v), auto_format=True) for v in values]


def image(header: Dataset, number: int, position: np.ndarray, stored: np.ndarray) -> Dataset:
    """One slice; its elements are those of `header`, shared and not copied, and its own."""
    ds = Dataset(header)
    ds.SOPInstanceUID, ds.InstanceNumber = generate_uid(), number
    ds.ImagePositionPatient = decimals(position)
    ds.add_new("PixelData", "OW", stored.tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
