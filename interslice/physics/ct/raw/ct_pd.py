"""Reading DICOM-CT-PD: one file for each view, one folder for each scan (TCIA, LDCT-and-Projection-data).

    p = stored RescaleSlope + RescaleIntercept         line integrals; (columns, rows) or (rows, columns) in the file

What all views must share is compared, views are ordered by InstanceNumber, and where the rays ran is computed by
interslice.physics.ct.raw.frame. Nothing else of a header is kept: no name, date or identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset

from interslice.files.dicom_slice import is_dicom
from interslice.files.limits import Limits
from interslice.files.scan import Refusal
from interslice.files.values import choice, number, whole_number
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.geometry import ScanGeometry
from interslice.physics.ct.raw.frame import ASSUMED, WORLDS, Detector, geometry_of, oriented
from interslice.physics.ct.raw.tags import ELEMENTS, MARK, number_of, numbers_of, word_of
from interslice.usage import UsageError

WANTED = [
    "InstanceNumber", "PatientPosition", "Manufacturer", "Rows", "Columns", "SpiralPitchFactor",
    *(element.tag for element in ELEMENTS.values()),
]  # fmt: skip
LOOKED_AT = 4
"""Files of a folder that are looked at to tell whether it holds projections."""
REBIN = ("none", "fan")
LARGEST = 20.0
"""Line integral beyond which nothing is counted."""
STEADY = 0.02
"""Share by which the views of a turn may differ from what the header says."""


@dataclass(frozen=True)
class RawOptions:
    """Which views of a scan are read.

    Args:
        every: the first of every so many views.
        z_range: of focal centres to read, as the header counts them, in mm; None for all.
        rebin: "fan": a helix becomes fan beams (rebin.py); "none".
        slice_spacing: of these, mm; by default that of the detector's rows at the isocenter.
    """

    every: int = 1
    z_range: Sequence[float] | None = None
    rebin: str = "none"
    slice_spacing: float | None = None

    def __post_init__(self) -> None:
        whole_number("every", self.every, 1, fix="2 reads every other view")
        choice("rebin", self.rebin, REBIN)
        if self.slice_spacing is not None:
            number("slice_spacing", self.slice_spacing, above=0, kind="a number of mm")
        if self.z_range is not None:
            if isinstance(self.z_range, str) or len(tuple(self.z_range)) != 2:
                raise UsageError(f'z_range must be two numbers of mm, such as "[100.0,160.0]", got {self.z_range!r}')
            low, high = (number("z_range", v, kind="a number of mm") for v in self.z_range)
            if not low < high:
                raise UsageError(f"z_range must rise, got {self.z_range!r}")


@dataclass(frozen=True)
class View:
    """What the header of one file says of its view; radians and mm; photons of each column, where they are stated."""

    path: Path
    instance: int
    phi: float
    z0: float
    rho: float
    shift: tuple[float, float, float]
    photons: np.ndarray | None = None


@dataclass(frozen=True)
class RawScan:
    """Projections as they were read.

    Attributes:
        values: (views, columns, rows) line integrals, float32.
        geometry: their rays.
        water: attenuation of water in 1/mm that the headers state; None where they do not.
        said: doubts, in sentences.
        noise: of the values; None where the headers do not tell it.
    """

    values: np.ndarray
    geometry: ScanGeometry
    water: float | None
    said: tuple[str, ...]
    noise: RayNoise | None = None


def holds_ct_pd(folder: Path) -> bool:
    """Whether a folder holds DICOM-CT-PD: one of its first DICOM files is a projection."""
    looked = 0
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        try:
            if not is_dicom(path):
                continue
            if MARK in pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[MARK]):
                return True
        except Exception:  # noqa: BLE001 - damaged: what it is, the next may tell
            continue
        looked += 1
        if looked == LOOKED_AT:
            break
    return False


def read_ct_pd(folder: Path, options: RawOptions | None = None, limits: Limits | None = None) -> RawScan:
    """Read the scan of a folder.

    Raises:
        ValueError: headers that lack what the rays need, or contradict each other; views that are there twice; a scan
            that does not fit into memory.
    """
    options, limits = options or RawOptions(), limits or Limits()
    headers = headers_of(folder)
    views = sorted((view_of(path, header) for path, header in headers), key=lambda v: v.instance)
    first = headers[0][1]
    detector = common_detector(headers)
    said = [*checked_order(views), *checked_turn(views, first)]
    views = chosen(views, options)
    limits.check((len(views), detector.columns, detector.rows))
    axis, position, more = placement_of(first)
    values = np.empty((len(views), detector.columns, detector.rows), np.float32)
    for view, place in zip(views, values):
        place[:] = oriented(pixels_of(view.path, detector), axis)
    geometry = geometry_of(
        detector, *(np.array([getattr(v, name) for v in views]) for name in ("phi", "z0", "rho", "shift")),
        position=position, axis=axis,
    )  # fmt: skip
    water = number_of(first, "WaterAttenuationCoefficient", 0.0) or None
    if water is None:
        more.append("the headers state no WaterAttenuationCoefficient: HU are those of hounsfield#water")
    return RawScan(values, geometry, water, (*said, *more), noise_of(values, views))


def headers_of(folder: Path) -> list[tuple[Path, Dataset]]:
    """The headers of all DICOM files of a folder; Refusal for one that is damaged, or no projection."""
    found = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if not is_dicom(path):
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=WANTED)
        except Exception as error:
            raise Refusal(f"{path.name} is damaged ({type(error).__name__}): copy it again") from None
        if MARK not in header:
            raise Refusal(f"{path.name} is no projection, as others here are: keep one scan in a folder")
        found.append((path, header))
    if len(found) < 2:
        raise Refusal(f"a scan needs at least 2 views, found {len(found)}")
    return found


def view_of(path: Path, header: Dataset) -> View:
    """What one header says; Refusal, with the file's name, where something is missing."""
    try:
        if (instance := header.get("InstanceNumber")) is None:
            raise Refusal("InstanceNumber is missing: the order of the views is not known")
        return View(
            path, int(instance),
            number_of(header, "DetectorFocalCenterAngularPosition"),
            number_of(header, "DetectorFocalCenterAxialPosition"),
            number_of(header, "DetectorFocalCenterRadialDistance", positive=True),
            tuple(number_of(header, f"Source{name}Shift", 0.0)
                  for name in ("AngularPosition", "AxialPosition", "RadialDistance")),
            photons_of(header),
        )  # fmt: skip
    except Refusal as error:
        raise Refusal(f"{path.name}: {error}") from None


def photons_of(header: Dataset) -> np.ndarray | None:
    """(columns,) float32 noise-equivalent quanta of each column through air; None where they are not stated."""
    photons = numbers_of(header, "PhotonStatistics")
    return None if photons is None or not (photons > 0).all() else photons.astype(np.float32)


def noise_of(values: np.ndarray, views: Sequence[View]) -> RayNoise | None:
    """exp(p) / photons of line integrals p (views, columns, rows), whose columns are those of the files reversed.

    Of each ray's own p, other than where counts are known (counting.py): a scanner's p is a plain logarithm, too high
    by 1 / (2 m) in the mean, and weights by a ray's own count draw results down by as much.
    """
    if any(view.photons is None or len(view.photons) not in (1, values.shape[1]) for view in views):
        return None
    photons = np.stack([np.broadcast_to(view.photons, values.shape[1])[::-1] for view in views])
    return RayNoise(np.exp(np.minimum(values, LARGEST)) / photons[..., None])


def common_detector(headers: Sequence[tuple[Path, Dataset]]) -> Detector:
    """The detector, which all headers must state alike; Refusal where two differ, or where it is none of ours."""
    known = None
    for path, header in headers:
        try:
            mine = (detector_of(header), word_of(header, "LogFlag"), numbers_of(header, "SpectrumIndex"))
        except Refusal as error:
            raise Refusal(f"{path.name}: {error}") from None
        known = known or mine
        if mine[0] != known[0]:
            raise Refusal(f"{path.name} states {mine[0]}, {headers[0][0].name} {known[0]}: keep one scan in a folder")
        if mine[1] == "NO":
            raise Refusal(f"{path.name}: LogFlag is NO: the values are no line integrals; take logarithms first")
        if mine[2] is not None and known[2] is not None and mine[2][0] != known[2][0]:
            raise Refusal(
                f"{path.name} has SpectrumIndex {mine[2][0]:g}, {headers[0][0].name} {known[2][0]:g}: keep the views "
                "of one spectrum in a folder"
            )
    return known[0]


def detector_of(header: Dataset) -> Detector:
    """The detector that one header states."""
    shape = word_of(header, "DetectorShape")
    if shape not in ("CYLINDRICAL", "FLAT"):
        raise Refusal(f"DetectorShape (7029,100B) is {shape or 'missing'}: CYLINDRICAL and FLAT ones can be read")
    rows, columns = (int(number_of(header, f"NumberofDetector{n}", positive=True)) for n in ("Rows", "Columns"))
    column_size, row_size, distance = (number_of(header, name, positive=True) for name in (
        "DetectorElementTransverseSpacing", "DetectorElementAxialSpacing", "ConstantRadialDistance"))  # fmt: skip
    central = numbers_of(header, "DetectorCentralElement")
    if central is None:
        raise Refusal("DetectorCentralElement (7031,1033) is missing: without it the rays are not known")
    for count, where, name in ((columns, central[0], "column"), (rows, central[1], "row")):
        if not 1 <= where <= count:
            raise Refusal(
                f"DetectorCentralElement (7031,1033) is {name} {where:g} of {count}: it lies off the detector"
            )
    column = float(central[0])
    if is_ge(header):
        column = columns - column
    return Detector(rows, columns, column_size, row_size, distance, (column, float(central[1])), shape == "FLAT")


def is_ge(header: Dataset) -> bool:
    """Whether a scanner of GE made it, whose files count otherwise (docs/how_to/ct_raw.md)."""
    return str(header.get("Manufacturer") or "").upper().split()[:1] == ["GE"]


def placement_of(header: Dataset) -> tuple[int, str, list[str]]:
    """(sign of z along z0, PatientPosition, doubts)."""
    position, said = str(header.get("PatientPosition") or "").strip().upper(), []
    if position not in WORLDS:
        said.append(f"the headers state no PatientPosition that is known: the patient is taken to lie {ASSUMED}")
        position = ASSUMED
    if is_ge(header):
        said.append(
            "a scan of GE: its central column and z are counted as docs/how_to/ct_raw.md says; compare left and right"
        )
    return (1 if is_ge(header) else -1), position, said


def checked_order(views: Sequence[View]) -> list[str]:
    """A sentence for numbers that are missing; Refusal for one that is there twice."""
    steps = np.diff([v.instance for v in views])
    if (twice := np.flatnonzero(steps == 0)).size:
        one, other = views[twice[0]], views[twice[0] + 1]
        raise Refusal(
            f"{one.path.name} and {other.path.name} both have InstanceNumber {one.instance}: keep one scan in a folder"
        )
    gaps = steps > np.median(steps)
    if gaps.any():
        after = views[int(np.flatnonzero(gaps)[0])].instance
        return [f"views are missing at {int(gaps.sum())} places, first after number {after}"]
    return []


def checked_turn(views: Sequence[View], header: Dataset) -> list[str]:
    """A sentence where the angles advance otherwise than the header says."""
    steps = np.diff([v.phi for v in views])
    step = float(np.median(np.abs((steps + np.pi) % (2 * np.pi) - np.pi)))
    if step == 0:
        raise Refusal("DetectorFocalCenterAngularPosition (7031,1001) is the same in most views: nothing turns")
    stated, found = number_of(header, "NumberofSourceAngularSteps", 0.0), 2 * np.pi / step
    if stated and abs(found / stated - 1) > STEADY:
        return [f"NumberofSourceAngularSteps says {stated:g} views in a turn, the angles advance by {found:.4g}"]
    return []


def chosen(views: Sequence[View], options: RawOptions) -> list[View]:
    """The views that the options ask for; Refusal where fewer than two are left."""
    if options.z_range is not None:
        low, high = options.z_range
        kept = [v for v in views if low <= v.z0 <= high]
        if len(kept) < 2:
            heights = [v.z0 for v in views]
            raise Refusal(
                f"z_range {low:g} to {high:g} mm holds {len(kept)} views; they lie from {min(heights):g} to "
                f"{max(heights):g} mm"
            )
        views = kept
    views = list(views)[:: options.every]
    if len(views) < 2:
        raise Refusal(f"every {options.every} leaves {len(views)} view: choose fewer")
    return views


def pixels_of(path: Path, detector: Detector) -> np.ndarray:
    """(columns, rows) line integrals, in the order of the file."""
    try:
        header = pydicom.dcmread(path)
        stored = header.pixel_array
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    except Exception as error:
        raise Refusal(f"{path.name} is damaged ({type(error).__name__}): copy it again") from None
    shape = (detector.columns, detector.rows)
    if stored.shape == shape[::-1] != shape:
        stored = stored.T
    if stored.shape != shape:
        raise Refusal(
            f"{path.name} has {stored.shape[0]} x {stored.shape[1]} pixels, the detector {detector.columns} columns "
            f"and {detector.rows} rows: the file is damaged"
        )
    return stored * np.float32(slope) + np.float32(intercept)
