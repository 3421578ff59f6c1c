"""What the file behind a volume says beyond its voxels and affine, for those who write its results."""

from __future__ import annotations

from dataclasses import dataclass

from monai.data import MetaTensor

from interslice.files.carried import carried
from interslice.files.dicom_stack import Stack
from interslice.files.member import Group
from interslice.files.placement import Placement
from interslice.files.series import TimePoint


@carried
@dataclass(frozen=True, eq=False)
class Source:
    """Kept in the metadata of every volume that was read, as "source".

    Attributes:
        dicom: the stack of slices that was read; None of a volume that was no DICOM.
        nifti: how the header places the voxels; None of a volume that was no NIfTI.
        modality: "MR" or "CT", where a file beside the volume says so; None of DICOM, whose stack says it.
        group: of a measurement that several scans make, all of them; the rest is said of the reference.
        time: of a volume of a series, which one.
    """

    dicom: Stack | None = None
    nifti: Placement | None = None
    modality: str | None = None
    group: Group | None = None
    time: TimePoint | None = None


def series_of(volume: MetaTensor) -> TimePoint | None:
    """Which volume of a series this is; None of one that is a case by itself."""
    point = source_of(volume).time
    return None if point is None or point.alone else point


def source_of(volume: MetaTensor) -> Source:
    """What a volume carries; nothing is known of one that no file gave."""
    return volume.meta.get("source") or Source()
