"""Where rays run: the geometry of a CT scan and the grid of the volume.

The scanner frame has its origin at the isocenter and turns about its third axis z. For a view at angle theta

    u = (cos theta, sin theta, 0)      along the detector's columns       v = (0, 0, 1)      along its rows
    d = (-sin theta, cos theta, 0)     from the source to the detector

    parallel        the ray of column coordinate a is      a u + t d
    fan, cone       source  s = -D_iso d + (offsets),      detector point  p = (D_det - D_iso) d + a u + b v
    curved          p = (D_det - D_iso - R) d + R (sin(a / R) u + cos(a / R) d) + b v

with a_i = (i - (columns - 1) / 2) column_size + column_offset, b alike for rows, D_iso the distance from the source to
the isocenter and D_det to the detector. R is the radius of a curved detector's cylinder, D_det unless stated: its
columns are then at equal fan angles a / D_det. Fan and parallel beams have one row per slice: the row is the slice.

A cone beam may be tilted, as in the Reconstruction Toolkit: source and detector turn by theta, then by the out-of-plane
angle o about u, which lowers the source for o > 0, then by the in-plane angle i about d. With u, v, d from above

    v' = cos o v - sin o d      d' = cos o d + sin o v      u'' = cos i u + sin i v'      v'' = cos i v' - sin i u

Lengths are in mm, angles in degrees. Projections are (views, columns, rows), volumes (X, Y, Z).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace

import torch

from interslice.files.carried import carried
from interslice.files.scan import Refusal

BEAMS = ("parallel", "fan", "cone")
DETECTORS = ("flat", "curved")
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
CLIMBING = 0.9
"""Correlation of height and angle from which a scan is a helix; that of a whole sine is 0.78."""
LARGEST = 1e9
"""No length in mm and no angle in degrees is larger; NaN and infinity are not smaller either."""
PER_VIEW = (
    "source_to_isocenter", "source_to_detector", "column_offset", "row_offset",
    "source_column_offset", "source_row_offset",
)  # fmt: skip
"""What may change from view to view, in mm."""
TILTS = ("out_of_plane_angle", "in_plane_angle")
"""Degrees; of a cone beam, and per view, too."""


@carried
@dataclass(frozen=True)
class ScanGeometry:
    """One scan.

    Args:
        beam: "parallel", "fan" or "cone".
        angles: of the views, in degrees, in any order.
        num_columns, column_size: detector columns and their size.
        num_rows, row_size: detector rows and their size; for parallel and fan beams, slices and their distance.
        source_to_isocenter, source_to_detector: fan and cone beam only.
        column_offset, row_offset: position of the detector's centre along u and v.
        source_column_offset, source_row_offset: position of the source along u and v; cone and fan beam only.
        world: 4 x 4 matrix from the scanner frame to world coordinates (RAS+, mm).
        detector: "flat" or "curved"; a curved one has its columns at equal steps of arc, `column_size`, on a cylinder
            whose axis runs along v; fan and cone beam only. `column_offset` is a length of arc, too.
        detector_radius: of that cylinder; by default source_to_detector: its axis then runs through the source.
        out_of_plane_angle, in_plane_angle: tilts in degrees, cone beam only.

    Those in `PER_VIEW` and `TILTS` are numbers, or one number per view.

    Raises:
        ValueError: an unknown beam, fewer than two views, values that are not finite or not positive where they must
            be, a detector in front of the isocenter, or lists that do not have one value per view.
    """

    beam: str
    angles: tuple[float, ...]
    num_columns: int
    column_size: float
    num_rows: int
    row_size: float
    source_to_isocenter: float | tuple[float, ...] | None = None
    source_to_detector: float | tuple[float, ...] | None = None
    column_offset: float | tuple[float, ...] = 0.0
    row_offset: float | tuple[float, ...] = 0.0
    source_column_offset: float | tuple[float, ...] = 0.0
    source_row_offset: float | tuple[float, ...] = 0.0
    world: tuple[tuple[float, ...], ...] = field(default=IDENTITY)
    detector: str = "flat"
    detector_radius: float | None = None
    out_of_plane_angle: float | tuple[float, ...] = 0.0
    in_plane_angle: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.beam not in BEAMS:
            raise Refusal(f"beam must be one of {BEAMS}, got {self.beam!r}")
        object.__setattr__(self, "angles", _numbers("angles", self.angles))
        if len(self.angles) < 2:
            raise Refusal(f"a scan needs at least 2 angles, got {list(self.angles)}: check the geometry")
        for name in ("num_columns", "num_rows"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Refusal(f"{name} must be a positive whole number, got {value!r}")
        for name in ("column_size", "row_size"):
            value = getattr(self, name)
            if not _is_number(value) or not value > 0:
                raise Refusal(f"{name} must be a positive number of mm, got {value!r}")
        distances = ("source_to_isocenter", "source_to_detector")
        for name in (*PER_VIEW, *TILTS):
            if self.beam == "parallel" and name in distances:
                object.__setattr__(self, name, None)
            else:
                object.__setattr__(self, name, self._one_per_view(name))
        if self.beam != "parallel":
            for name in distances:
                if not (self.per_view(name) > 0).all():
                    raise Refusal(f"{name} must be positive (mm), got {getattr(self, name)}")
            if not (self.per_view("source_to_detector") > self.per_view("source_to_isocenter")).all():
                raise Refusal(
                    f"the detector ({self.source_to_detector} mm from the source) must lie behind the isocenter "
                    f"({self.source_to_isocenter} mm): are the two distances swapped?"
                )
        if self.beam != "cone" and self.tilted:
            raise Refusal(f"a {self.beam} beam cannot be tilted, its slices are detector rows: set both tilts to 0")
        self._check_detector()
        try:
            world = torch.tensor(self.world, dtype=torch.float64)
        except (TypeError, ValueError):
            world = torch.zeros(0)
        if world.shape != (4, 4) or not torch.isfinite(world).all() or abs(float(torch.linalg.det(world))) < 1e-9:
            raise Refusal(f"world must be an invertible 4 x 4 matrix, got {self.world}")
        object.__setattr__(self, "world", tuple(tuple(float(v) for v in row) for row in self.world))

    def _check_detector(self) -> None:
        if self.detector not in DETECTORS:
            raise Refusal(f"detector must be one of {DETECTORS}, got {self.detector!r}")
        if self.detector == "flat":
            if self.detector_radius is not None:
                raise Refusal(f"detector_radius is {self.detector_radius}, but the detector is flat: leave it out")
            return
        if self.beam == "parallel":
            raise Refusal('a parallel beam has no curved detector: state detector "flat", and rays at equal distances')
        if self.detector_radius is not None and not (_is_number(self.detector_radius) and self.detector_radius > 0):
            raise Refusal(f"detector_radius must be a positive number of mm, got {self.detector_radius!r}")
        widest = float((self.columns.abs().amax(1) / self.radius).max())
        if widest >= math.pi / 2:
            raise Refusal(
                f"the curved detector reaches {math.degrees(widest):.0f} degrees from its middle, 90 are too many: "
                "column_size and column_offset are lengths of arc in mm, not angles"
            )

    def _one_per_view(self, name: str) -> float | tuple[float, ...]:
        value = getattr(self, name)
        if value is None:
            raise Refusal(f"a {self.beam} beam needs {name} (mm)")
        if _is_number(value):
            return float(value)
        values = _numbers(name, value)
        if len(values) != len(self.angles):
            raise Refusal(f"{name} has {len(values)} values for {len(self.angles)} angles: give one per view, or one")
        return values

    def __str__(self) -> str:
        low, high = min(self.angles), max(self.angles)
        return f"{len(self.angles)} {self.beam}-beam views from {low:g} to {high:g} degrees"

    def one_row(self) -> ScanGeometry:
        """The same scan of a single slice: what all slices of a parallel or fan beam share."""
        return replace(self, num_rows=1, row_size=1.0, row_offset=0.0, source_row_offset=0.0, world=IDENTITY)

    def some_rows(self, rows: slice) -> ScanGeometry:
        """The same scan with the detector's rows from `rows.start` to `rows.stop` alone; they stay where they are."""
        count = rows.stop - rows.start
        shift = (rows.start + (count - self.num_rows) / 2) * self.row_size
        offset = self.row_offset
        offset = tuple(v + shift for v in offset) if isinstance(offset, tuple) else offset + shift
        return replace(self, num_rows=count, row_offset=offset)

    @property
    def range_shape(self) -> tuple[int, int, int]:
        return len(self.angles), self.num_columns, self.num_rows

    def per_view(self, name: str) -> torch.Tensor:
        """(views,) float64 values of one of `PER_VIEW`."""
        return torch.as_tensor(getattr(self, name), dtype=torch.float64).expand(len(self.angles))

    @property
    def radians(self) -> torch.Tensor:
        return torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64))

    @property
    def unwrapped(self) -> torch.Tensor:
        """(views,) angles in radians that go on from view to view, as those of a helix do: steps of at most 180."""
        steps = self.radians.diff()
        steps = torch.where(steps.abs() > math.pi, torch.remainder(steps + math.pi, 2 * math.pi) - math.pi, steps)
        return self.radians[0] + torch.cat([steps.new_zeros(1), steps.cumsum(0)])

    @property
    def helical(self) -> bool:
        """Whether the source of a cone beam climbs by more than a row as it turns one way, evenly but for small moves.

        A flying focal spot moves to and fro, which is no climb; nor are steps from one of `stops` to the next.
        """
        heights, angles = self.per_view("source_row_offset"), self.unwrapped
        steps = angles.diff()
        if self.beam != "cone" or not (bool((steps >= 0).all()) or bool((steps <= 0).all())) or not steps.any():
            return False
        heights, angles = heights - heights.mean(), angles - angles.mean()
        climb = (heights @ angles).abs() / angles.norm()
        risen = float(heights.max() - heights.min()) > self.row_size / self.magnification
        return risen and float(climb) > CLIMBING * float(heights.norm()) and self.stops < 2

    @property
    def stops(self) -> int:
        """How often a cone beam stays at a height, within a row, for more than a quarter of a turn, and then moves on.

        A circle has one stop; a helix has none, however few its views, and at most one if it is very slow.
        """
        if self.beam != "cone":
            return 1
        heights, row = self.per_view("source_row_offset"), self.row_size / self.magnification
        ends = ((heights.diff().abs() > row).nonzero().flatten() + 1).tolist()
        parts = zip(heights.tensor_split(ends), self.unwrapped.tensor_split(ends))
        return sum(float(h.max() - h.min()) <= row and float(a.max() - a.min()) > math.pi / 2 for h, a in parts)

    @property
    def columns(self) -> torch.Tensor:
        """(views, columns) coordinates a, in mm, of the column centres on the detector."""
        return centred(self.num_columns, self.column_size) + self.per_view("column_offset")[:, None]

    @property
    def rows(self) -> torch.Tensor:
        """(views, rows) coordinates b, in mm, of the row centres on the detector."""
        return centred(self.num_rows, self.row_size) + self.per_view("row_offset")[:, None]

    @property
    def radius(self) -> torch.Tensor:
        """(views,) radius in mm of a curved detector's cylinder."""
        name = "source_to_detector" if self.detector_radius is None else "detector_radius"
        return self.per_view(name)

    @property
    def tilted(self) -> bool:
        """Whether a view is tilted: rows do not lie in the plane of rotation, or columns not along its axis."""
        return any(bool((self.per_view(name) != 0).any()) for name in TILTS)

    @property
    def frames(self) -> torch.Tensor:
        """(views, 3, 3) float64: u, v and d of each view, tilts included."""
        theta, (out, turn) = self.radians, (torch.deg2rad(self.per_view(name)) for name in TILTS)
        zero, one = torch.zeros_like(theta), torch.ones_like(theta)
        u, v = torch.stack([theta.cos(), theta.sin(), zero], 1), torch.stack([zero, zero, one], 1)
        d = torch.stack([-theta.sin(), theta.cos(), zero], 1)
        out, turn = out[:, None], turn[:, None]
        v, d = v * out.cos() - d * out.sin(), d * out.cos() + v * out.sin()
        return torch.stack([u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin(), d], 1)

    def in_plane(self, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where detector coordinates a (views, ...) lie: along u from the isocenter, and along d from the source's
        nominal place, in mm."""
        det = self.per_view("source_to_detector").view(-1, *[1] * (a.ndim - 1))
        if self.detector == "flat":
            return a, det.expand_as(a)
        radius = self.radius.view_as(det)
        return radius * torch.sin(a / radius), det - radius * (1 - torch.cos(a / radius))

    @property
    def magnification(self) -> float:
        """Size on the detector of a unit length at the isocenter (mean over views)."""
        if self.beam == "parallel":
            return 1.0
        return float((self.per_view("source_to_detector") / self.per_view("source_to_isocenter")).mean())

    @property
    def field_radius(self) -> float:
        """Radius in mm of the largest circle around the isocenter that every view sees whole."""
        half = self.num_columns * self.column_size / 2
        right, left = self.per_view("column_offset") + half, self.per_view("column_offset") - half
        if self.beam == "parallel":
            return max(0.0, float(torch.minimum(right, -left).min()))
        iso, source = (self.per_view(n) for n in ("source_to_isocenter", "source_column_offset"))
        # Signed distance of the isocenter from the ray to either edge of the detector.
        places = [self.in_plane(edge) for edge in (right, left)]
        ends = [(source * det + iso * (across - source)) / torch.hypot(det, across - source) for across, det in places]
        return max(0.0, float(torch.minimum(ends[0], -ends[1]).min()))

    def to_json(self) -> str:
        """The published form: docs/ct_geometry.schema.json."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ScanGeometry:
        """Read the published form. Raises ValueError for text that is not JSON, and for unknown or missing fields."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise Refusal(f"the geometry is not JSON: {error}") from None
        known = {f.name for f in fields(cls)}
        required = {"beam", "angles", "num_columns", "column_size", "num_rows", "row_size"}
        if not isinstance(values, dict) or (missing := required - values.keys()):
            raise Refusal(f"the geometry lacks {', '.join(sorted(missing)) if isinstance(values, dict) else 'fields'}")
        if unknown := values.keys() - known:
            raise Refusal(
                f"the geometry has unknown fields {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        return cls(**values)


@carried
@dataclass(frozen=True)
class Grid:
    """The voxels of a volume in the scanner frame.

    Args:
        shape: (X, Y, Z).
        spacing: voxel size in mm along each axis.
        center: position of the volume's centre, in mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name, counts, meaning in (
            ("shape", lambda n: isinstance(n, int) and n > 0, "positive whole numbers of voxels"),
            ("spacing", lambda s: _is_number(s) and s > 0, "positive voxel sizes in mm"),
            ("center", _is_number, "coordinates in mm"),
        ):
            given = getattr(self, name)
            values = () if isinstance(given, str) or not hasattr(given, "__iter__") else tuple(given)
            if len(values) != 3 or not all(counts(value) for value in values):
                raise Refusal(f"{name} must be three {meaning}, got {given!r}")
            object.__setattr__(self, name, values if name == "shape" else tuple(float(value) for value in values))

    @classmethod
    def from_fields(cls, stated: object) -> Grid:
        """Of the field "grid" of a geometry file; Refusal for what is no object, and for unknown or missing fields."""
        if not isinstance(stated, dict) or not {"shape", "spacing"} <= stated.keys() <= {f.name for f in fields(cls)}:
            raise Refusal(f"grid must have the fields shape and spacing, and perhaps center, got {stated!r}")
        return cls(**stated)

    def part(self, box: tuple[slice, ...]) -> Grid:
        """The voxels from `start` to `stop` of each slice of a box; they stay where they are."""
        shape = tuple(s.stop - s.start for s in box)
        shifts = [(s.start + (k - n) / 2) * d for s, k, n, d in zip(box, shape, self.shape, self.spacing)]
        return replace(self, shape=shape, center=tuple(c + shift for c, shift in zip(self.center, shifts)))

    def coordinates(self, axis: int) -> torch.Tensor:
        """(shape[axis],) voxel centres in mm, float64."""
        return centred(self.shape[axis], self.spacing[axis]) + self.center[axis]

    @property
    def radius(self) -> float:
        """Distance in mm from the rotation axis to the farthest corner of the volume."""
        far = [abs(self.center[a]) + self.shape[a] * self.spacing[a] / 2 for a in (0, 1)]
        return math.hypot(*far)

    @property
    def affine(self) -> torch.Tensor:
        """(4, 4) from voxel indices to the scanner frame."""
        matrix = torch.diag(torch.tensor([*self.spacing, 1.0], dtype=torch.float64))
        matrix[:3, 3] = torch.stack([self.coordinates(a)[0] for a in range(3)])
        return matrix


def centred(count: int, size: float) -> torch.Tensor:
    """(count,) positions (i - (count - 1) / 2) size, float64."""
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * size


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def _numbers(name: str, values) -> tuple[float, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise Refusal(f"{name} must be a list of numbers, got {values!r}")
    values = list(values)
    for i, value in enumerate(values):
        if not _is_number(value):
            raise Refusal(f"{name}[{i}] is {value!r}, not a finite number")
    return tuple(float(v) for v in values)
