"""The planes of a volume (X, Y, Z) in RAS+ orientation, and the axis across which the slices of each lie."""

from __future__ import annotations

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}


def plane_across(axis: int) -> str:
    """The plane whose slices lie across an axis."""
    return next(plane for plane, a in PLANES.items() if a == axis)
