"""Parallel- and fan-beam CT, slice by slice: one sparse matrix for all slices.

    y_s = R x_s        for every slice s;     R_ij = what pixel j adds to ray i, in mm

    joseph   the ray is followed pixel line by pixel line along its steeper axis, with linear interpolation between the
             two nearest pixels of each line (Joseph, "An improved algorithm for reprojecting rays through pixel
             images", IEEE Trans. Med. Imaging 1982)
    strip    the mean over a detector bin: the shadow of a pixel is a trapezoid between its projected corners, as high
             as the chord through the pixel (Long, Fessler, Balter, "3D forward and back-projection for X-ray CT using
             separable footprints", IEEE Trans. Med. Imaging 2010); exact for parallel beams

R is stored by rows (int32 index, float32 weight), and once more by columns, so that the adjoint is as fast as the
forward projection and exact. Both are sums of weighted rows of a [pixels, slices] table (`embedding_bag`); in float64 a
CSR product, for tests. Volumes are (..., X, Y, Z), projections (..., views, columns, Z).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from interslice.files.machine import available_memory, in_gigabytes
from interslice.files.memory import FLOAT
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.ray_transform import RayTransform
from interslice.usage import UsageError

MODELS = ("auto", "joseph", "strip")
BYTES_PER_ENTRY = 40
"""Peak while the matrix is built: two copies of index and weight, and what sorting needs."""


class SparseRadon(RayTransform):
    """Line integrals (mm) of every slice of a volume, for parallel and fan beams.

    Args:
        geometry: its rows are the slices; beam "parallel" or "fan".
        grid: as many slices as the geometry has rows.
        model: "joseph", "strip", or "auto": strip where the detector's bins, at the isocenter, are wider than pixels.
        background: value of air in the volume; see RayTransform.
        keep: the matrix in this process, for the next operator of this geometry.

    Raises:
        ValueError: another beam, or a grid whose slices are not the geometry's rows.
        MemoryError: the matrix would not fit.
    """

    separable_axes = (2,)

    def __init__(self, geometry: ScanGeometry, grid: Grid, model: str = "auto", background: float = 0.0,
                 keep: bool = True) -> None:  # fmt: skip
        if geometry.beam not in ("parallel", "fan"):
            raise ValueError(f'SparseRadon is for "parallel" and "fan" beams, got {geometry.beam!r}: use ConeBeam')
        if model not in MODELS:
            raise UsageError(f"model must be one of {MODELS}, got {model!r}")
        if grid.shape[2] != geometry.num_rows:
            raise ValueError(
                f"the volume has {grid.shape[2]} slices, the projections have {geometry.num_rows} rows: "
                f"in a {geometry.beam} beam they must agree"
            )
        check_source(geometry, grid)
        super().__init__(geometry, grid, background)
        if model == "auto":
            pixel = min(grid.spacing[:2])
            model = "strip" if geometry.column_size / geometry.magnification > 1.01 * pixel else "joseph"
        self.model = model
        in_plane = Grid((*grid.shape[:2], 1), (*grid.spacing[:2], 1.0), (*grid.center[:2], 0.0))
        build = system_matrix if keep else system_matrix.__wrapped__
        self._rows, self._transposed = build(geometry.one_row(), in_plane, model)
        self._cast: dict[tuple, tuple[torch.Tensor, ...]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        return self._apply(x, "rows", self.domain_shape, self.range_shape)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "sinogram")
        return self._apply(y, "transposed", self.range_shape, self.domain_shape)

    def _norm(self) -> float:
        """That of one slice: all are alike."""
        one = self if self.domain_shape[2] == 1 else self.on((slice(None), slice(None), slice(1)))
        return RayTransform._norm(one)

    def _range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        return (*(slice(0, n) for n in self.range_shape[:2]), box[2])

    def _cut(self, box: tuple[slice, ...]) -> None:
        """A part has the matrix of the whole, and its copies on devices."""
        super()._cut(box)
        self.geometry, self.grid = self.geometry.some_rows(box[2]), self.grid.part(box)

    def working_bytes(self) -> float:
        """Beside copies in another order, on GPUs a number for each entry, which torch's sum of rows makes room for."""
        return super().working_bytes() + FLOAT * max(len(self._rows[1]), len(self._transposed[1]))

    def kept_bytes(self) -> float:
        """Of the matrix and its transpose."""
        return float(sum(part.numel() * part.element_size() for part in (*self._rows, *self._transposed)))

    def _apply(self, x: torch.Tensor, name: str, source: tuple[int, ...], target: tuple[int, ...]) -> torch.Tensor:
        batch = x.shape[:-3]
        table = x.reshape(-1, source[0] * source[1], source[2]).movedim(0, 1).flatten(1)
        out = self._product(name, table.contiguous(), source[0] * source[1], target[0] * target[1])
        return out.unflatten(1, (-1, source[2])).movedim(1, 0).reshape(*batch, *target)

    def _product(self, name: str, table: torch.Tensor, num_in: int, num_out: int) -> torch.Tensor:
        key = (name, table.device, table.dtype)
        if key not in self._cast:
            pointer, index, weight = self._rows if name == "rows" else self._transposed
            self._cast[key] = (pointer.to(table.device), index.to(table.device), weight.to(table.device, table.dtype))
        pointer, index, weight = self._cast[key]
        if table.dtype == torch.float64:
            matrix = torch.sparse_csr_tensor(pointer, index, weight, (num_out, num_in), check_invariants=False)
            return matrix @ table
        return F.embedding_bag(index, table, pointer, mode="sum", per_sample_weights=weight, include_last_offset=True)


Csr = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Row pointers, column indices (both int32) and weights (float32)."""


@lru_cache(maxsize=4)
def system_matrix(geometry: ScanGeometry, grid: Grid, model: str) -> tuple[Csr, Csr]:
    """R and its transpose, built once per geometry and process."""
    num_rays, num_pixels = geometry.range_shape[0] * geometry.num_columns, grid.shape[0] * grid.shape[1]
    entries = expected_entries(geometry, grid, model)
    if entries >= 2**31:
        raise MemoryError(
            f"the system matrix would have {entries:.2g} entries, more than 2^31: use larger pixels or bins"
        )
    check_memory(entries)
    build = _joseph if model == "joseph" else _strip
    rays, pixels, weights = (torch.cat(part) for part in zip(*build(geometry, grid)))
    rows = _compress(rays, pixels, weights, num_rays)
    return rows, _compress(pixels, rays, weights, num_pixels)


def expected_entries(geometry: ScanGeometry, grid: Grid, model: str) -> int:
    """An upper estimate of the entries of R."""
    views, columns, _ = geometry.range_shape
    if model == "joseph":
        return 2 * views * columns * max(grid.shape[:2])
    return views * grid.shape[0] * grid.shape[1] * _bins_per_pixel(geometry, grid)


def check_memory(entries: int) -> None:
    """Raise MemoryError if a matrix of so many entries would not fit into the memory that is available."""
    need, there = entries * BYTES_PER_ENTRY, available_memory()
    if 0.8 * need > there:
        raise MemoryError(
            f"the system matrix takes about {in_gigabytes(need)} of memory to build, and {in_gigabytes(there)} are "
            "available: use fewer views, larger voxels (--operator#spacing), a smaller grid (--operator#shape), or a "
            "machine with more"
        )


def _compress(rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, count: int) -> Csr:
    order = torch.argsort(rows, stable=True)
    pointer = torch.zeros(count + 1, dtype=torch.int64)
    pointer[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return pointer.int(), columns[order].int(), weights[order].float()


def _joseph(geometry: ScanGeometry, grid: Grid):
    """Per view: (ray, pixel, weight) of every entry."""
    xs, ys = grid.coordinates(0), grid.coordinates(1)
    for view, (start, direction) in enumerate(rays_in_plane(geometry)):
        ray = view * geometry.num_columns + torch.arange(geometry.num_columns)
        steep = direction[:, 0].abs() >= direction[:, 1].abs() * grid.spacing[0] / grid.spacing[1]
        for along, chosen in ((0, steep), (1, ~steep)):
            if not chosen.any():
                continue
            lines, across = (xs, ys) if along == 0 else (ys, xs)
            p, d = start[chosen], direction[chosen]
            slope = d[:, 1 - along] / d[:, along]
            # Where each ray meets each line of pixels, counted in pixels across the line.
            at = p[:, None, 1 - along] + slope[:, None] * (lines - p[:, None, along])
            at = (at - across[0]) / grid.spacing[1 - along]
            length = grid.spacing[along] * (1 + slope.square()).sqrt()
            lower = at.floor()
            share = at - lower
            n = grid.shape[1 - along]
            for pixel, weight in ((lower, 1 - share), (lower + 1, share)):
                keep = (pixel >= 0) & (pixel < n) & (weight > 0)
                line = torch.arange(len(lines)).expand_as(pixel)
                flat = line * grid.shape[1] + pixel if along == 0 else pixel * grid.shape[1] + line
                rays = ray[chosen][:, None].expand_as(pixel)
                yield rays[keep], flat[keep].long(), (weight * length[:, None])[keep].float()


def rays_in_plane(geometry: ScanGeometry):
    """Per view: points (columns, 2) on the rays of the columns, and their directions (columns, 2)."""
    if geometry.beam != "parallel":
        across, depth = geometry.in_plane(geometry.columns)
    for view, theta in enumerate(geometry.radians):
        u = torch.stack([torch.cos(theta), torch.sin(theta)])
        d = torch.stack([-torch.sin(theta), torch.cos(theta)])
        a = geometry.columns[view][:, None]
        if geometry.beam == "parallel":
            yield a * u, d.expand(len(a), 2)
        else:
            iso = geometry.per_view("source_to_isocenter")[view]
            source = -iso * d + geometry.per_view("source_column_offset")[view] * u
            element = (depth[view][:, None] - iso) * d + across[view][:, None] * u
            yield source.expand(len(a), 2), element - source


def _strip(geometry: ScanGeometry, grid: Grid):
    """Per view: (ray, pixel, weight) of every entry."""
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    hx, hy = grid.spacing[0] / 2, grid.spacing[1] / 2
    width, num_columns = geometry.column_size, geometry.num_columns
    pixels = torch.arange(x.numel())
    for view in range(len(geometry.angles)):
        corners = torch.stack([project(geometry, view, x + sx * hx, y + sy * hy)[0].flatten()
                               for sx in (-1, 1) for sy in (-1, 1)]).sort(0).values  # fmt: skip
        direction = project(geometry, view, x, y)[1].flatten(1)
        chord = torch.minimum(
            2 * hx / direction[0].abs().clamp_min(1e-12), 2 * hy / direction[1].abs().clamp_min(1e-12)
        )
        first_edge = geometry.columns[view][0] - width / 2
        first = ((corners[0] - first_edge) / width).floor()
        below = trapezoid_integral(corners, first_edge + first * width)
        for k in range(int(((corners[3] - corners[0]) / width).max().ceil()) + 1):
            above = trapezoid_integral(corners, first_edge + (first + k + 1) * width)
            column, weight = first + k, chord * (above - below) / width
            keep = (column >= 0) & (column < num_columns) & (weight > 0)
            yield view * num_columns + column[keep].long(), pixels[keep], weight[keep].float()
            below = above


def project(geometry: ScanGeometry, view: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Detector coordinates a of points, and the unit direction (2, ...) of the rays through them."""
    theta = geometry.radians[view]
    c, s = torch.cos(theta), torch.sin(theta)
    along_u, along_d = x * c + y * s, -x * s + y * c
    if geometry.beam == "parallel":
        return along_u, torch.stack([-s, c]).view(2, *[1] * x.ndim).expand(2, *x.shape)
    iso, det, offset = (
        geometry.per_view(n)[view] for n in ("source_to_isocenter", "source_to_detector", "source_column_offset")
    )
    across, depth = along_u - offset, along_d + iso
    norm = torch.hypot(across, depth)
    direction = torch.stack([(across * c - depth * s), (across * s + depth * c)]) / norm
    if geometry.detector == "flat":
        return offset + across / depth * det, direction
    return arc(across / norm, depth / norm, offset, det, geometry.radius[view]), direction


def arc(sine, cosine, offset, det, radius):
    """Where rays from the source meet a curved detector: a in mm, for the sine and cosine of their angles to d.

    The ray leaves the source `offset` beside and `det - radius` before the axis of the cylinder, and meets the cylinder
    where its distance from that axis, (offset + t sine, radius - det + t cosine), is `radius`.
    """
    before = det - radius
    middle = before * cosine - offset * sine
    t = middle + torch.sqrt(middle.square() + radius**2 - before**2 - offset**2)
    return radius * torch.atan2(offset + t * sine, t * cosine - before)


def trapezoid_integral(corners: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Integral up to t of the trapezoid of height 1 with corners (4, N) in ascending order."""
    a, b, c, d = corners

    def ramp(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        length = (high - low).clamp_min(1e-12)
        return (t - low).clamp(min=torch.zeros_like(length), max=length).square() / (2 * length)

    flat = (t - b).clamp(min=torch.zeros_like(b), max=(c - b).clamp_min(0))
    falling = (t - c).clamp(min=torch.zeros_like(c), max=(d - c).clamp_min(0)) - ramp(c, d)
    return ramp(a, b) + flat + falling


def check_source(geometry: ScanGeometry, grid: Grid) -> None:
    """Raise ValueError if the source of a fan beam runs through the volume."""
    if geometry.beam == "parallel":
        return
    nearest = float(geometry.per_view("source_to_isocenter").min())
    if not nearest > grid.radius:
        raise ValueError(
            f"the source, {nearest:g} mm from the isocenter, lies within the volume, which reaches {grid.radius:.0f} "
            "mm: reconstruct a smaller grid, or check source_to_isocenter"
        )


def _bins_per_pixel(geometry: ScanGeometry, grid: Grid) -> int:
    """About the most detector columns that the shadow of one pixel touches."""
    diagonal = math.hypot(*grid.spacing[:2])
    if geometry.beam == "parallel":
        return math.ceil(diagonal / geometry.column_size) + 1
    iso, det = geometry.per_view("source_to_isocenter"), geometry.per_view("source_to_detector")
    # The shadow is largest nearest to the source and is stretched where rays meet the detector obliquely.
    near = float((det / (iso - grid.radius)).max())
    slant = 1 / math.cos(math.asin(min(0.95, grid.radius / float(iso.min()))))
    return math.ceil(diagonal * near * slant / geometry.column_size) + 1
