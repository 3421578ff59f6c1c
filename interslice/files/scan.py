"""What a file of a volume says: voxels, where they lie, and what is doubtful about that."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten

import numpy as np

from interslice.files.entries import in_words
from interslice.files.placement import Placement

UNKNOWN_SIDES = "no orientation is stated{}: left and right are not known"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Refusal(ValueError):
    """What is wrong with a file or with what it describes, in words for its owner.

    Libraries raise plain ValueErrors, whose words are for programmers.
    """


def unreadable(error: Exception) -> str:
    """What is said of a file that a library cannot read: a line with that library's reason.

    Of what the system refuses, the system's own words: nothing is damaged.
    """
    if isinstance(error, PermissionError):
        return in_words(error)
    said = shorten(f"{type(error).__name__}: {error}", 200)
    return f"the file cannot be read, is it damaged? ({said})"


@dataclass(frozen=True, eq=False)
class Scan:
    """What a reader of one format gives.

    Attributes:
        voxels: (X, Y, Z) of any type of number; more axes where the file has more, fewer where it has fewer.
        affine: (4, 4), voxel to RAS in mm.
        doubts: in words, what makes other programs place the volume elsewhere, or what was converted.
        thickness: of the slices, in mm; 0 where the file does not say.
        thickness_by: who says so.
        nifti: how a NIfTI header places the voxels.
    """

    voxels: np.ndarray
    affine: np.ndarray
    doubts: tuple[str, ...] = ()
    thickness: float = 0.0
    thickness_by: str = "the header"
    nifti: Placement | None = None


def check_grey(voxels_type: np.dtype) -> None:
    """Raise Refusal unless this is a type of real numbers."""
    if voxels_type.fields is not None:
        raise Refusal("the voxels are colours (RGB); save the volume in grey values")
    if np.issubdtype(voxels_type, np.complexfloating):
        raise Refusal("the voxels are complex, and only their real part would be used; save the magnitude")


def without_single_axes(voxels: np.ndarray) -> np.ndarray:
    """Drops the axes of one entry that follow the first three: (X, Y, Z, 1, 1) becomes (X, Y, Z)."""
    return voxels.reshape(voxels.shape[:3] + tuple(n for n in voxels.shape[3:] if n != 1))
