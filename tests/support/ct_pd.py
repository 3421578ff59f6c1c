"""Small DICOM-CT-PD scans of ellipsoids, by closed form, from the manual's own words and frame.

Nothing of the bundle is used: rays are placed in the manual's left-handed frame, and objects in the patient's (LPS).
"""

import struct
from dataclasses import dataclass, field

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

SEEN = {"FFS": (-1, -1, -1), "HFS": (1, -1, 1), "FFP": (1, 1, -1), "HFP": (-1, 1, 1)}
"""Left, posterior and superior along the manual's axes: right, up, and into the gantry, as seen from the table."""


@dataclass(frozen=True)
class Ball:
    """An ellipsoid in LPS, mm, with its attenuation in 1/mm."""

    center: tuple[float, float, float]
    axes: tuple[float, float, float]
    mu: float = 0.02


@dataclass(frozen=True)
class Helix:
    """A scan; `shifts` (dphi, dz, drho) of the focal spot are taken in turn."""

    columns: int = 96
    rows: int = 8
    column_size: float = 4.0
    row_size: float = 5.0
    rho: float = 500.0
    distance: float = 900.0
    central: tuple[float, float] = (47.75, 4.5)
    per_turn: int = 90
    turns: float = 4.0
    feed: float = 16.0
    start: float = 2.0
    z_start: float = 0.0
    shifts: tuple = ((0.0, 0.0, 0.0),)
    position: str = "FFS"
    words: dict = field(default_factory=dict)

    @property
    def views(self):
        """(views,) angles and heights of the focal centre."""
        n = np.arange(round(self.per_turn * self.turns))
        return self.start + 2 * np.pi * n / self.per_turn, self.z_start + self.feed * n / self.per_turn


def manual(rho, phi, z):
    return np.stack(np.broadcast_arrays(-rho * np.sin(phi), rho * np.cos(phi), z), -1)


def line_integrals(scan, balls):
    """(views, rows, columns) by the manual: row 1 farthest and column 1 leftmost when the detector is at 6 o'clock."""
    phi, z0 = scan.views
    shift = np.array([scan.shifts[i % len(scan.shifts)] for i in range(len(phi))])
    spot = manual(scan.rho + shift[:, 2], phi + shift[:, 0], z0 + shift[:, 1])
    centre = manual(scan.rho, phi, z0)
    gamma = (np.arange(1, scan.columns + 1) - scan.central[0]) * scan.column_size / scan.distance
    along = (scan.central[1] - np.arange(1, scan.rows + 1)) * scan.row_size  # into the gantry
    # At phi = 0 the detector is below: columns run to the right, which is turned with the tube, counter-clockwise.
    down = -manual(1.0, phi, 0.0)
    right = np.stack([np.cos(phi), np.sin(phi), np.zeros_like(phi)], -1)
    flat = down[:, None] * np.cos(gamma)[:, None] + right[:, None] * np.sin(gamma)[:, None]
    element = (centre[:, None] + scan.distance * flat)[:, None] + along[:, None, None] * np.array([0.0, 0.0, 1.0])
    way = element - spot[:, None, None]
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    total = np.zeros(way.shape[:-1])
    signs = np.array(SEEN[scan.position], float)
    for ball in balls:
        axes = np.array(ball.axes)
        q = (spot[:, None, None] - np.array(ball.center) * signs) / axes
        e = way / axes
        ee, qe, qq = (e * e).sum(-1), (q * e).sum(-1), (q * q).sum(-1)
        total += ball.mu * 2 * np.sqrt(np.maximum(qe**2 - ee * (qq - 1), 0)) / ee
    return total


def write_scan(folder, scan, balls, *, implicit=False, transposed=True, edit=lambda ds, i: None):
    """One file for each view, under names in another order; returns (views, rows, columns) line integrals."""
    folder.mkdir(parents=True, exist_ok=True)
    values = line_integrals(scan, balls)
    phi, z0 = scan.views
    series, slope = generate_uid(), max(float(values.max()), 1e-3) / 60000
    for i, view in enumerate(values):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CTImageStorage, generate_uid(), series
        ds.PatientName, ds.PatientID, ds.Modality, ds.Manufacturer = "Doe^Jane", "P4711", "CT", "SIEMENS"
        ds.PatientPosition, ds.InstanceNumber = scan.position, i + 1
        stored = view.T if transposed else view  # the library stores columns of the detector as rows of the image
        ds.Rows, ds.Columns = stored.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.10g}", "-0.001"
        counts = np.round((stored + 0.001) / float(ds.RescaleSlope))
        ds.PixelData = np.ascontiguousarray(counts).astype("<u2").tobytes()
        shift = scan.shifts[i % len(scan.shifts)]
        put(ds, {
            (0x7029, 0x1010): ("US", scan.rows), (0x7029, 0x1011): ("US", scan.columns),
            (0x7029, 0x1002): ("FL", scan.column_size), (0x7029, 0x1006): ("FL", scan.row_size),
            (0x7029, 0x100B): ("CS", "CYLINDRICAL"), (0x7031, 0x1001): ("FL", float(phi[i] % (2 * np.pi))),
            (0x7031, 0x1002): ("FL", float(z0[i])), (0x7031, 0x1003): ("FL", scan.rho),
            (0x7031, 0x1031): ("FL", scan.distance), (0x7031, 0x1033): ("FL", list(scan.central)),
            (0x7033, 0x100B): ("FL", shift[0]), (0x7033, 0x100C): ("FL", shift[1]), (0x7033, 0x100D): ("FL", shift[2]),
            (0x7033, 0x100E): ("CS", "FFSNONE"), (0x7033, 0x1013): ("US", scan.per_turn),
            (0x7033, 0x1065): ("FL", [1e5] * scan.columns), (0x7037, 0x1009): ("CS", "HELICAL"),
            (0x7039, 0x1009): ("CS", "YES"), (0x7041, 0x1001): ("DS", "0.0190"),
        }, implicit)  # fmt: skip
        edit(ds, i)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        ds.save_as(folder / f"{(37 * i) % 1009:04d}.dcm", enforce_file_format=True)
    return values


def put(ds, elements, implicit=False):
    """Private elements; of an implicit file as bytes of unknown type, as the library's are read."""
    for tag, (kind, value) in elements.items():
        if implicit:
            many = value if isinstance(value, list) else [value]
            text = {"FL": "<%df", "US": "<%dH"}.get(kind)
            raw = struct.pack(text % len(many), *many) if text else (value + " " * (len(value) % 2)).encode()
            ds.add_new(tag, "UN", raw)
        else:
            ds.add_new(tag, kind, value)
