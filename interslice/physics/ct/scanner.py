"""Builds CT operators: for projections that were measured, or for a volume that is to be measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor

from interslice.files.scan import Refusal
from interslice.files.values import number, whole_number
from interslice.physics.ct.cone_beam import ConeBeam
from interslice.physics.ct.field_of_view import heights_seen, radius_seen
from interslice.physics.ct.geometry import BEAMS, DETECTORS, Grid, ScanGeometry
from interslice.physics.ct.sparse_radon import SparseRadon
from interslice.usage import UsageError

MULTIPLE = 8
"""Derived grids have a multiple of this many voxels in-plane."""
MOST_TURNS = 1000
OVERLAP = 1.2
"""Height of a helix's detector at the isocenter, in pitches."""


@dataclass
class Tomography:
    """How a CT scanner measures, and on which grid to reconstruct.

    The scan, for `for_volume`; measured projections bring their own:

    Args:
        beam: "parallel", "fan" or "cone".
        num_views: views, evenly spaced from `start_angle` (degrees) over `arc`.
        arc: degrees; by default a half turn for parallel beams, a full turn for the others, and as many turns as cover
            the volume for a helix.
        pitch: mm along the axis in each turn, which makes a cone beam a helix; centred on the volume.
        detector: "flat" or "curved", about the source; fan and cone beam.
        angles: explicit list of angles in degrees, instead of the three above.
        source_to_isocenter, source_to_detector: mm, fan and cone beam.
        column_size, row_size: detector elements in mm; by default a voxel, magnified.
        num_columns, num_rows: by default as many as cover the volume; on a helix, rows for `OVERLAP` pitches.
        column_offset, row_offset: position of the detector's centre in mm.

    The grid, for `for_measurement`:

    Args:
        shape, spacing, center: voxels, voxel size (mm; one number for cubes) and centre (mm, scanner frame); by default
            those that come with the projections (a simulated volume's, or the file's), or else the field of view in
            voxels of the size of a detector element at the isocenter.

    The computation:

    Args:
        model: see SparseRadon.  backend: see ConeBeam.
        background: value of air in the volume, which surrounds it.
    """

    beam: str = "parallel"
    num_views: int = 30
    start_angle: float = 0.0
    arc: float | None = None
    pitch: float | None = None
    detector: str = "flat"
    angles: Sequence[float] | None = None
    source_to_isocenter: float = 575.0
    source_to_detector: float = 1050.0
    column_size: float | None = None
    row_size: float | None = None
    num_columns: int | None = None
    num_rows: int | None = None
    column_offset: float = 0.0
    row_offset: float = 0.0
    shape: Sequence[int] | None = None
    spacing: float | Sequence[float] | None = None
    center: Sequence[float] | None = None
    model: str = "auto"
    backend: str = "auto"
    background: float = -1.0

    def __post_init__(self) -> None:
        if self.beam not in BEAMS:
            raise UsageError(f"beam must be one of {BEAMS}, got {self.beam!r}")
        if self.detector not in DETECTORS:
            raise UsageError(f"detector must be one of {DETECTORS}, got {self.detector!r}")
        if self.detector == "curved" and self.beam == "parallel":
            raise UsageError('detector "curved" is for fan and cone beams: set beam, or detector "flat"')
        if self.pitch is not None:
            number("pitch", self.pitch, kind="a number of mm in each turn")
            if self.beam != "cone":
                raise UsageError(
                    f"pitch {self.pitch} makes a helix of a cone beam, the beam is {self.beam!r}: set beam cone"
                )
            if self.pitch == 0:
                raise UsageError("pitch is 0 mm in each turn: leave it out for a circle")
        sizes = ["column_size", "row_size"]
        if self.beam != "parallel":
            sizes += ["source_to_isocenter", "source_to_detector"]
        for name in sizes:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise UsageError(f"{name} must be a positive number of mm, got {value!r}")
        for name in ("num_columns", "num_rows"):
            if (value := getattr(self, name)) is not None:
                whole_number(name, value, 1)
        for name in ("column_offset", "row_offset"):
            number(name, getattr(self, name), kind="a number of mm")
        number("background", self.background)
        if isinstance(self.spacing, (int, float)):
            number("spacing", self.spacing, above=0, kind="a number of mm")
        try:  # before a file is read
            Grid(chosen(self.shape, (1, 1, 1)), cube(chosen(self.spacing, 1.0)), chosen(self.center, (0.0, 0.0, 0.0)))
        except Refusal as error:
            raise UsageError(str(error)) from None
        if self.angles is None:
            whole_number("num_views", self.num_views, 2)
            number("start_angle", self.start_angle, kind="a number of degrees")
            if self.arc is not None:
                number(
                    "arc", self.arc, above=0, most=360 * (MOST_TURNS if self.pitch else 1), kind="a number of degrees"
                )

    def for_measurement(self, projections) -> SparseRadon | ConeBeam:
        """The operator of projections (1, views, columns, rows) with their ScanGeometry in `meta["geometry"]`.

        The Grid in `meta["grid"]` is reconstructed on, if there is one and no other was chosen.

        Raises:
            ValueError: no geometry, or one whose size is not that of the projections.
        """
        geometry = projections.meta.get("geometry")
        if geometry is None:
            raise ValueError("the image has no scan geometry: this task takes projections, with their geometry beside")
        shape = tuple(projections.shape[1:])
        if shape != geometry.range_shape:
            raise ValueError(
                f"the projections are {shape} (views, columns, rows), their geometry says {geometry.range_shape}: "
                "correct one of them"
            )
        grid = projections.meta.get("grid")
        if grid is None or any(choice is not None for choice in (self.shape, self.spacing, self.center)):
            grid = self._chosen_grid(geometry)
        return build(geometry, grid, self.model, self.backend, self.background, name_of(projections))

    def for_volume(self, volume) -> SparseRadon | ConeBeam:
        """The operator that measures a volume (1, X, Y, Z) with this scan; the isocenter is the volume's centre."""
        grid = Grid(tuple(volume.shape[1:]), tuple(volume.pixdim.tolist()))
        world = torch.as_tensor(volume.affine, dtype=torch.float64) @ torch.linalg.inv(grid.affine)
        geometry = self._scan(grid, tuple(tuple(row) for row in world.tolist()))
        return build(geometry, grid, self.model, self.backend, self.background, name_of(volume))

    def _scan(self, grid: Grid, world) -> ScanGeometry:
        pixel, slice_distance = min(grid.spacing[:2]), grid.spacing[2]
        half_width, half_height, magnification, distances = grid.radius, 0.0, 1.0, {}
        if self.beam != "parallel":
            iso, det = self.source_to_isocenter, self.source_to_detector
            distances = {"source_to_isocenter": iso, "source_to_detector": det, "detector": self.detector}
            magnification = det / iso
            if grid.radius >= iso:
                raise ValueError(
                    f"the volume reaches {grid.radius:.0f} mm from the isocenter and the source is {iso:g} mm away: "
                    "set a larger source_to_isocenter"
                )
            fan = math.asin(grid.radius / iso)
            half_width = det * (fan if self.detector == "curved" else math.tan(fan))
            half_height = grid.shape[2] * slice_distance / 2 * det / (iso - grid.radius)
            if self.pitch:
                half_height = OVERLAP * abs(self.pitch) / 2 * magnification
        column_size = chosen(self.column_size, pixel * magnification)
        columns = chosen(self.num_columns, 2 * math.ceil((half_width + abs(self.column_offset)) / column_size))
        row_size, rows, row_offset = slice_distance, grid.shape[2], 0.0
        if self.beam == "cone":
            row_size, row_offset = chosen(self.row_size, slice_distance * magnification), self.row_offset
            rows = chosen(self.num_rows, 2 * math.ceil((half_height + abs(self.row_offset)) / row_size))
        angles = self._angles(grid.shape[2] * slice_distance + rows * row_size / magnification)
        if self.pitch:
            middle = (min(angles) + max(angles)) / 2
            heights = tuple(self.pitch * (angle - middle) / 360 for angle in angles)
            distances["source_row_offset"], row_offset = heights, tuple(row_offset + h for h in heights)
        return ScanGeometry(
            beam=self.beam, angles=angles, num_columns=columns, column_size=column_size, num_rows=rows,
            row_size=row_size, column_offset=self.column_offset, row_offset=row_offset, world=world, **distances,
        )  # fmt: skip

    def _angles(self, travel: float) -> tuple[float, ...]:
        """Of the views, in degrees; a helix goes on until source and detector have travelled so many mm."""
        if self.angles is not None:
            return tuple(self.angles)
        arc = self.arc
        if arc is None:
            arc = 180.0 if self.beam == "parallel" else 360.0
            if self.pitch:
                arc *= travel / abs(self.pitch)
                if arc > 360 * MOST_TURNS:
                    raise ValueError(f"{travel:.0f} mm take {arc / 360:.0f} turns with a pitch of {self.pitch:g} mm")
        return tuple(self.start_angle + arc * i / self.num_views for i in range(self.num_views))

    def _chosen_grid(self, geometry: ScanGeometry) -> Grid:
        """The grid that the user chose; what was not chosen follows from the field of view."""
        size = geometry.column_size / geometry.magnification
        height = geometry.row_size / (geometry.magnification if geometry.beam == "cone" else 1.0)
        spacing = tuple(cube(chosen(self.spacing, (size, size, height))))
        middle, extent = float(geometry.rows.mean()), geometry.num_rows * height
        if geometry.beam == "cone":
            low, high = heights_seen(geometry)
            middle = (low + high) / 2
            extent = high - low if geometry.helical else extent
        center = (0.0, 0.0, middle) if self.center is None else tuple(self.center)
        if geometry.beam != "cone":  # the rows are the slices
            spacing, center = (*spacing[:2], geometry.row_size), (*center[:2], middle)
        shape = self.shape
        if shape is None:
            across = [MULTIPLE * max(1, round(2 * radius_seen(geometry) / s / MULTIPLE)) for s in spacing[:2]]
            shape = (*across, max(1, round(extent / spacing[2])))
        return Grid(tuple(shape), spacing, center)


def cube(spacing):
    """One number for all three axes, or what is given."""
    return (spacing,) * 3 if isinstance(spacing, (int, float)) else spacing


def chosen(value, default):
    """The user's value, or the default where there is none."""
    return default if value is None else value


def name_of(image: MetaTensor) -> str:
    """The file that an image came from."""
    return image.meta.get("filename_or_obj", "the scan")


def build(geometry: ScanGeometry, grid: Grid, model: str, backend: str, background: float, name: str
          ) -> SparseRadon | ConeBeam:  # fmt: skip
    """The operator; warns, with the name of the scan, if it does not cover the grid."""
    across, along = shortfall(geometry, grid)
    if max(across, along) > 0.5:
        warnings.warn(
            f"{name}: the detector does not cover the volume: it misses {across:.0f} mm at the sides and {along:.0f} "
            "mm at the ends; what lies there is not measured, and streaks come from it",
            stacklevel=1,  # of this line, and so said once for each scan, however often its operator is built
        )
    if geometry.beam == "cone":
        return ConeBeam(geometry, grid, backend, background)
    check_rows(geometry, grid)
    return SparseRadon(geometry, grid, model, background)


def shortfall(geometry: ScanGeometry, grid: Grid) -> tuple[float, float]:
    """How far, in mm, a grid reaches past the field of view: in-plane (half width), and along the rotation axis."""
    half = max(abs(grid.center[a]) + grid.shape[a] * grid.spacing[a] / 2 for a in (0, 1))
    # A derived grid is rounded to whole voxels, which is no shortfall.
    across = max(0.0, half - radius_seen(geometry) - MULTIPLE / 2 * max(grid.spacing[:2]))
    if geometry.beam != "cone":
        return across, 0.0
    low, high = (grid.center[2] + sign * grid.shape[2] * grid.spacing[2] / 2 for sign in (-1, 1))
    seen_low, seen_high = heights_seen(geometry)
    return across, max(0.0, seen_low - low - grid.spacing[2] / 2, high - seen_high - grid.spacing[2] / 2)


def check_rows(geometry: ScanGeometry, grid: Grid) -> None:
    """Raise ValueError unless the slices of the grid are where the rows of a parallel or fan beam are."""
    rows = geometry.rows
    apart = abs(grid.spacing[2] - geometry.row_size) > 1e-3 * geometry.row_size
    if apart or float((rows - rows[0]).abs().max()) > 0 or abs(grid.center[2] - float(rows.mean())) > 1e-2:
        raise ValueError(
            f"in a {geometry.beam} beam slices are detector rows, the same in every view: the grid has slices "
            f"of {grid.spacing[2]:g} mm around {grid.center[2]:g} mm, the rows are {geometry.row_size:g} mm around "
            f"{float(rows.mean()):g} mm; correct one of them"
        )
