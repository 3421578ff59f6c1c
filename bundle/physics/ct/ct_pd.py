"""DICOM-CT-PD: projections as clinical scanners took them, a DICOM file for each view.

    source          rho (-sin phi, cos phi), z        rho, phi, z: of the detector's focal centre, plus the focal spot's
                                                      shifts; left-handed, z from the table into the gantry, phi = 0 at
                                                      twelve o'clock and counter-clockwise for who looks that way
    detector        a cylinder about the focal centre; columns from left to right and rows towards the viewer, for a
                    detector at six o'clock

In the frame of geometry.py, which is right-handed, z is -z and theta is phi + 180 degrees; u then points against the
columns, v along the rows. The element that the line through the isocenter meets, (X, Y), counts from 1:

    column_offset = (X - (columns + 1) / 2) column_size         row_offset = -z + ((rows + 1) / 2 - Y) row_size

Source: Chen et al., "Technical Note: Development and validation of an open data format for CT projection data", Medical
Physics 42 (2015), and the format's user manual, version 3, of the collection LDCT-and-Projection-data (The Cancer
Imaging Archive).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from tqdm import tqdm

from bundle.files.limits import Limits
from bundle.files.machine import GIGA, in_gigabytes
from bundle.files.scan import Refusal, unreadable
from bundle.physics.ct.counting import RayNoise
from bundle.physics.ct.geometry import ScanGeometry

TAGS = {
    "rows": (0x70291010, "H"), "columns": (0x70291011, "H"), "column_size": (0x70291002, "f"),
    "row_size": (0x70291006, "f"), "shape": (0x7029100B, "s"), "phi": (0x70311001, "f"), "z": (0x70311002, "f"),
    "rho": (0x70311003, "f"), "distance": (0x70311031, "f"), "central": (0x70311033, "f"), "d_phi": (0x7033100B, "f"),
    "d_z": (0x7033100C, "f"), "d_rho": (0x7033100D, "f"), "photons": (0x70331065, "f"), "spectrum": (0x70331063, "H"),
    "log": (0x70391009, "s"), "water": (0x70411001, "f"),
}  # fmt: skip
"""Private elements, and how their bytes are read where a file does not say: numbers are little-endian."""
NEEDED = ("rows", "columns", "column_size", "row_size", "phi", "z", "rho", "distance", "central")
SHAPES = {"CYLINDRICAL": "curved", "FLAT": "flat"}
SHIFTED = 1e-3
"""mm and radians from which a focal spot counts as moved."""
WATER = (0.01, 0.04)
"""1/mm, that the attenuation of water can have; what is ten times as much is in 1/cm."""
WORLD = {"HFS": (-1, 1, -1), "FFS": (1, 1, 1), "HFP": (1, -1, -1), "FFP": (-1, -1, 1)}
"""Signs of (x, y, z) of the frame in RAS, by PatientPosition."""


@dataclass(frozen=True, eq=False)
class RawScan:
    """What a scan's raw data hold.

    Attributes:
        values: line integrals (views, columns, rows), float32.
        geometry: of them.
        water: attenuation of water in 1/mm by which they are calibrated; None where it is not said.
        noise: of the values; None where it is not known.
        doubts: in words.
    """

    values: np.ndarray
    geometry: ScanGeometry
    water: float | None = None
    noise: RayNoise | None = None
    doubts: tuple[str, ...] = ()


def is_ct_pd(folder: Path) -> bool:
    """Whether the first .dcm file of a folder is a projection of this format."""
    files = files_of(folder)
    try:
        return bool(files) and pydicom.dcmread(files[0], specific_tags=[TAGS["phi"][0]]).get(TAGS["phi"][0]) is not None
    except Exception:  # those who read it as DICOM say what is wrong with it
        return False


def files_of(folder: Path) -> list[Path]:
    """The .dcm files of a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(".dcm") and not p.name.startswith("."))


def read_ct_pd(folder: Path, every: int = 1, heights: Sequence[float] | None = None, limits: Limits | None = None
               ) -> RawScan:  # fmt: skip
    """A folder of projections.

    Args:
        every: take every n-th view.
        heights: (lowest, highest) z in mm, of the header's axis, of the views to take; all by default.
        limits: of memory.

    Raises:
        Refusal: a file is damaged or lacks what a ray needs, views of several scans, no logarithm was taken, a detector
            that is neither flat nor a cylinder, or more values than `limits` allow.
    """
    headers = []
    for path in tqdm(files_of(folder), desc="reading headers", unit="view", leave=False, delay=5):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            headers.append((int(header.get("InstanceNumber") or 0), path, view_of(header, path.name)))
        except Refusal:
            raise
        except Exception as error:  # a header can be damaged in as many ways as there are elements
            raise Refusal(f"{path.name}: {unreadable(error)}") from None
    headers.sort(key=lambda entry: (entry[0], entry[1].name))
    kept = [h for h in headers if heights is None or heights[0] <= h[2]["z"] <= heights[1]][::every]
    if len(kept) < 2:
        seen = [h[2]["z"] for h in headers]
        raise Refusal(
            f"{len(kept)} of its {len(headers)} views are taken, and 2 are needed: they lie at z from {min(seen):g} to "
            f"{max(seen):g} mm (--raw#heights, --raw#every)"
        )
    views = [view for _, _, view in kept]
    first = views[0]
    for name in ("rows", "columns", "column_size", "row_size", "shape", "distance", "spectrum"):
        values = {view[name] for view in views}
        if len(values) > 1:
            raise Refusal(f"its views have {name} {', '.join(sorted(map(str, values)))}: a folder holds one scan")
    size = 4.0 * len(kept) * first["columns"] * first["rows"]
    most = (limits or Limits()).max_gigabytes * GIGA
    if size > most:
        raise Refusal(
            f"its {len(kept)} views of {first['columns']} x {first['rows']} take {in_gigabytes(size)}, and at most "
            f"{in_gigabytes(most)} are read: --raw#every {int(np.ceil(size / most))} takes every so many views, "
            f"--raw#heights a part of the scan, --max_gigabytes {int(np.ceil(size / GIGA))} all"
        )
    values = np.empty((len(kept), first["columns"], first["rows"]), np.float32)
    for n, (_, path, _) in enumerate(tqdm(kept, desc="reading projections", unit="view", leave=False, delay=5)):
        try:
            values[n] = pixels_of(pydicom.dcmread(path), first["columns"], first["rows"])
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(f"{path.name}: {unreadable(error)}") from None
    position = str(pydicom.dcmread(kept[0][1], stop_before_pixels=True).get("PatientPosition") or "")
    doubts = [] if position in WORLD else [
        f"PatientPosition is {position or 'not stated'}: the patient is taken to lie head first on the back"
    ]  # fmt: skip
    geometry = geometry_of(views, WORLD.get(position, WORLD["HFS"]))
    return RawScan(values, geometry, water_of(first["water"]), noise_of(values, views), tuple(doubts))


def view_of(header: Dataset, name: str) -> dict:
    """What a view's header says, by the names of TAGS; the file's `name` is for what is refused."""
    view = {key: value_of(header, *TAGS[key]) for key in TAGS}
    if missing := [f"({TAGS[key][0] >> 16:04x},{TAGS[key][0] & 0xFFFF:04x})" for key in NEEDED if view[key] is None]:
        raise Refusal(f"{name} is no whole DICOM-CT-PD projection: it lacks {', '.join(missing)}")
    shape = str(view["shape"] or "CYLINDRICAL").strip().upper()
    if shape not in SHAPES:
        raise Refusal(f"{name}: a detector of the shape {shape} is not supported, CYLINDRICAL and FLAT are")
    if str(view["log"] or "YES").strip().upper() == "NO":
        raise Refusal(f"{name}: no logarithm was taken (LogFlag NO): save line integrals")
    view["shape"] = shape
    for key in ("d_phi", "d_z", "d_rho"):
        view[key] = view[key] or 0.0
    return view


def value_of(header: Dataset, tag: int, kind: str) -> object:
    """A private element, whether the file states its type or not; None where it is missing or empty."""
    element = header.get(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        if kind == "s":
            return value.decode("ascii", "replace").strip(" \0") or None
        try:  # numbers may be written as text, too
            value = [float(part) for part in value.decode("ascii").strip(" \0").split("\\")]
        except (UnicodeDecodeError, ValueError):
            size = struct.calcsize(kind)
            value = list(struct.unpack(f"<{len(value) // size}{kind}", value[: len(value) // size * size]))
    if value is None or kind == "s":
        return value or None
    values = [
        float(part) for part in (value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value])
    ]
    if not values or not np.isfinite(values).all():
        return None
    if kind == "H":
        return int(values[0])
    return values[0] if len(values) == 1 else tuple(values)


def pixels_of(image: Dataset, columns: int, rows: int) -> np.ndarray:
    """(columns, rows) line integrals of a view, columns along u.

    Scanners' files have a line of the image for each column of the detector; others the other way round.
    """
    raw = image.pixel_array.astype(np.float32)
    if raw.shape == (columns, rows):
        turned = raw
    elif raw.shape == (rows, columns):
        turned = raw.T
    else:
        raise Refusal(f"a view has {' x '.join(map(str, raw.shape))} values, and the detector {columns} x {rows}")
    return turned[::-1] * np.float32(image.get("RescaleSlope", 1.0)) + np.float32(image.get("RescaleIntercept", 0.0))


def geometry_of(views: Sequence[dict], world: Sequence[int] = WORLD["HFS"]) -> ScanGeometry:
    """The scan of these views; `world` are the signs of (x, y, z) in RAS."""
    first = views[0]
    column, row = first["central"]
    phi, z, rho, d_phi, d_z, d_rho = (
        np.array([v[k] for v in views]) for k in ("phi", "z", "rho", "d_phi", "d_z", "d_rho")
    )
    source = rho + d_rho
    moved = max(np.abs(d_phi).max(), np.abs(d_rho).max()) > SHIFTED
    to_isocenter = source * np.cos(d_phi)
    shape = SHAPES[first["shape"]]
    return ScanGeometry(
        beam="cone", angles=tuple(np.degrees(phi + np.pi)), num_columns=first["columns"],
        column_size=first["column_size"], num_rows=first["rows"], row_size=first["row_size"],
        source_to_isocenter=tuple(to_isocenter),
        source_to_detector=tuple(to_isocenter + first["distance"] - rho),
        column_offset=(column - (first["columns"] + 1) / 2) * first["column_size"],
        row_offset=tuple(-z + ((first["rows"] + 1) / 2 - row) * first["row_size"]),
        source_column_offset=tuple(source * np.sin(d_phi)) if moved else 0.0, source_row_offset=tuple(-(z + d_z)),
        world=tuple(tuple(float(sign * (a == b)) for b in range(4)) for a, sign in enumerate((*world, 1))),
        detector=shape, detector_radius=first["distance"] if moved and shape == "curved" else None,
    )  # fmt: skip


def water_of(stated: float | None) -> float | None:
    """Attenuation of water in 1/mm, stated in that or in 1/cm; Refusal for what is neither."""
    if stated is None:
        return None
    for value in (stated, stated / 10):
        if WATER[0] <= value <= WATER[1]:
            return value
    raise Refusal(f"the attenuation of water is {stated:g}, and must be from {WATER[0]:g} to {WATER[1]:g} 1/mm")


def noise_of(values: np.ndarray, views: Sequence[dict]) -> RayNoise | None:
    """By the photons that a header states for each column; None where it states none."""
    if any(view["photons"] is None for view in views):
        return None
    photons = np.array([np.broadcast_to(view["photons"], values.shape[1]) for view in views], np.float32)[:, ::-1]
    if not (photons > 0).all():
        return None
    return RayNoise(np.exp(np.minimum(values, 20.0)) / photons[..., None])
