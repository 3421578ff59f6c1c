"""What a de-identified series keeps of its source: the only attributes that pass, and what they may say.

They describe the acquisition, and not the patient, the people, the places, or the time: attributes of the modules of
the MR and CT Image IODs (PS3.3 A.3, A.4) that the confidentiality profile (PS3.15 table E.1-1) does not name. A list of
what is forbidden is never complete: new, retired, private, unknown and misused attributes would pass it. What is not
here does not pass, and nothing that is nested does.
"""

from __future__ import annotations

NUMBERS = frozenset(
    """
    KVP Exposure ExposureTime XRayTubeCurrent ExposureInuAs GeneratorPower FocalSpots CTDIvol
    DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt
    TableHeight TableSpeed TableFeedPerRotation RevolutionTime SpiralPitchFactor
    SingleCollimationWidth TotalCollimationWidth
    RepetitionTime EchoTime InversionTime FlipAngle EchoNumbers EchoTrainLength NumberOfAverages
    MagneticFieldStrength ImagingFrequency PixelBandwidth PercentSampling PercentPhaseFieldOfView
    NumberOfPhaseEncodingSteps AcquisitionMatrix SAR dBdt DiffusionBValue DiffusionGradientOrientation
    WindowCenter WindowWidth LossyImageCompressionRatio
    """.split()  # noqa: SIM905 - a list of forty names would fill the screen
)
"""Attributes that are numbers: of CT, of MR, and of both. They pass where their values are numbers."""

TERMS = {
    "Modality": "MR CT",
    "BodyPartExamined": "HEAD BRAIN SKULL FACE ORBIT EAR IAC PITUITARY SINUS JAW TMJ NECK HEADNECK CSPINE TSPINE "
    "LSPINE SSPINE CTSPINE TLSPINE LSSPINE SPINE WHOLESPINE CHEST THORAX LUNG HEART CARDIAC "
    "CORONARY AORTA BREAST ABDOMEN LIVER KIDNEY PANCREAS SPLEEN PELVIS PROSTATE UTERUS BLADDER "
    "RECTUM HIP CHESTABDOMEN CHESTABDPELVIS ABDOMENPELVIS SHOULDER HUMERUS ELBOW FOREARM WRIST "
    "HAND FINGER THUMB FEMUR THIGH KNEE LEG CALF ANKLE FOOT TOE EXTREMITY UPPERLIMB LOWERLIMB "
    "WHOLEBODY PHANTOM",
    "Laterality": "R L",
    "ImageLaterality": "R L U B",
    "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL",
    "BurnedInAnnotation": "YES NO",
    "LossyImageCompression": "00 01",
    "LossyImageCompressionMethod": "ISO_10918_1 ISO_14495_1 ISO_15444_1 ISO_15444_15 ISO_18181_1",
    "RescaleType": "HU",
    "VOILUTFunction": "LINEAR LINEAR_EXACT SIGMOID",
    "ScanningSequence": "SE IR GR EP RM",
    "SequenceVariant": "SK MTC SS TRSS SP MP OSP NONE",
    "ScanOptions": "PER RG CG PPG FC PFF PFP SP FS",
    "MRAcquisitionType": "2D 3D",
    "ImagedNucleus": "1H 3HE 7LI 13C 19F 23NA 31P 129XE",
    "AngioFlag": "Y N",
    "VariableFlipAngleFlag": "Y N",
    "InPlanePhaseEncodingDirection": "ROW COL",
    "RotationDirection": "CW CC",
    "FilterType": "STRIP WEDGE BUTTERFLY MULTIPLE FLAT NONE",
}
"""Attributes that are one of the standard's terms, or several. Terms pass; what a site made up does not."""

DEVICE_TEXT = frozenset({"Manufacturer", "ManufacturerModelName", "SequenceName", "ConvolutionKernel"})
"""Free text that the scanner writes, and no person; it passes unless it holds a word that names somebody."""

UIDS = ("StudyInstanceUID", "FrameOfReferenceUID")
"""Replaced, so that series of one study, and of one space, are still known to be that."""

DATES, TIMES = ("StudyDate", "AcquisitionDate"), ("StudyTime", "AcquisitionTime")
"""Pass where dates are shifted, and times with them."""
