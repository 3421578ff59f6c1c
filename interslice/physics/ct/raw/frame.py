"""From the frame of DICOM-CT-PD to that of interslice.physics.ct.geometry, and to the patient.

The manual's frame is left-handed. Seen from the table, looking into the gantry, its x points right, its y up and its z
away, into the gantry. With the focal centre at (rho, phi, z0), and the focal spot at (rho + drho, phi + dphi, z0 + dz):

    focal centre   (-rho sin phi, rho cos phi, z0)          phi = 0 at 12 o'clock, rising counter-clockwise
    detector       a cylinder of radius d0 about the focal centre; at phi = 0 column 1 is leftmost, row 1 farthest

The frame here is right-handed: x left, y down, z out of the gantry, thus (x, y, z) = (-x', -y', -z'). In it

    theta = phi,  z = -z0,  columns in falling order,  rows in rising order
    D_iso = (rho + drho) cos dphi    source_column_offset = (rho + drho) sin dphi    source_row_offset = -(z0 + dz)

and the cylinder stays where it is: its radius is d0, and D_det - D_iso = d0 - rho. Feet first and supine, this frame is
DICOM's patient frame (left, posterior, superior).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interslice.files.scan import Refusal
from interslice.physics.ct.geometry import ScanGeometry

WORLDS = {
    "FFS": ((-1, 0), (0, -1), 1), "HFS": ((1, 0), (0, -1), -1), "FFP": ((1, 0), (0, 1), 1),
    "HFP": ((-1, 0), (0, 1), -1), "FFDR": ((0, 1), (-1, 0), 1), "FFDL": ((0, -1), (1, 0), 1),
    "HFDR": ((0, 1), (1, 0), -1), "HFDL": ((0, -1), (-1, 0), -1),
}  # fmt: skip
"""PatientPosition -> right and anterior as combinations of x and y, and the sign of superior along z."""
ASSUMED = "FFS"


@dataclass(frozen=True)
class Detector:
    """What all views share, as the headers say it.

    Attributes:
        rows, columns: elements.
        column_size, row_size: of an element, mm; of a cylinder along the arc.
        distance: d0, from the focal centre to the detector.
        central: (column, row), counted from 1, that the line from the focal centre through the isocenter meets.
        flat: whether it is flat.
    """

    rows: int
    columns: int
    column_size: float
    row_size: float
    distance: float
    central: tuple[float, float]
    flat: bool = False


def world_of(position: str) -> tuple[tuple[float, ...], ...]:
    """4 x 4 matrix from this frame to RAS of a patient who lies so; Refusal for a position that is none of DICOM's."""
    if position not in WORLDS:
        raise Refusal(f"PatientPosition must be one of {', '.join(WORLDS)}")
    right, anterior, superior = WORLDS[position]
    rows = ((*right, 0.0, 0.0), (*anterior, 0.0, 0.0), (0.0, 0.0, superior, 0.0), (0.0, 0.0, 0.0, 1.0))
    return tuple(tuple(float(v) for v in row) for row in rows)


def geometry_of(detector: Detector, phi: np.ndarray, z0: np.ndarray, rho: np.ndarray, shifts: np.ndarray,
                position: str = ASSUMED, axis: int = -1) -> ScanGeometry:  # fmt: skip
    """The cone beam of views in order.

    Args:
        phi, z0, rho: (views,) focal centres, in radians and mm.
        shifts: (views, 3) of the focal spot: dphi, dz, drho.
        axis: sign of z along z0: -1 as the manual says; 1 where files count z0 along z (rows then turn, too).
    """
    dphi, dz, drho = shifts.T
    reach = rho + drho
    to_iso = reach * np.cos(dphi)
    column = detector.central[0] - (detector.columns + 1) / 2
    row = detector.central[1] - (detector.rows + 1) / 2
    # Columns fall and, along z0, rows fall: element i lies at (central - i) size.
    return ScanGeometry(
        beam="cone",
        angles=tuple(np.rad2deg(phi).tolist()),
        num_columns=detector.columns,
        column_size=detector.column_size,
        num_rows=detector.rows,
        row_size=detector.row_size,
        source_to_isocenter=single(to_iso),
        source_to_detector=single(detector.distance - rho + to_iso),
        column_offset=column * detector.column_size,
        row_offset=single(axis * (z0 + row * detector.row_size)),
        source_column_offset=single(reach * np.sin(dphi)),
        source_row_offset=single(axis * (z0 + dz)),
        world=world_of(position),
        detector="flat" if detector.flat else "curved",
        **({} if detector.flat else {"detector_radius": detector.distance}),
    )


def oriented(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Values (..., columns, rows) from the file's order to this frame's."""
    return values[..., ::-1, :] if axis < 0 else values[..., ::-1, ::-1]


def single(values: np.ndarray) -> float | tuple[float, ...]:
    """One number where all views have the same."""
    return float(values[0]) if np.ptp(values) == 0 else tuple(values.tolist())
