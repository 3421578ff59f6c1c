"""Direct reconstruction: filtered back-projection, and FDK for the cone beam.

    x(r) = sum over views of  dtheta (D_iso / L)^2  q(a(r), b(r)),      q = ramp * (y w cos gamma)

L is the depth of the voxel r seen from the source, a(r) and b(r) where its ray meets the detector, cos gamma the
cosine of the ray's angle to the central one; for a parallel beam both factors are 1. On a curved detector about the
source L is the distance from the source, and the ramp is multiplied by (gamma / sin gamma)^2. The ramp is the
band-limited one (Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, ch. 3), under a Hann window.
Cone beam after Feldkamp, Davis, Kress, "Practical cone-beam algorithm", J. Opt. Soc. Am. A 1984. Each view counts for
the angle dtheta that it stands for, so angles may be uneven and in any order; w shares a line between the rays that
measure it: redundancy.py, and for a helix, where the result is approximate, helix.py.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F

from interslice.physics.ct.flattened import concentric, flattened
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.helix import Helix
from interslice.physics.ct.redundancy import angular_steps, mirrored, ray_shares

WINDOWS = ("ramp", "hann", "cosine")
COVERED = 0.5
"""Radians of views from which a voxel of a tilted helix is reconstructed as if they were half a turn."""


class Scanner(Protocol):
    """An operator with a scan geometry."""

    geometry: ScanGeometry
    grid: Grid
    background: float
    range_shape: tuple[int, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor: ...


def filtered_back_projection(y: torch.Tensor, operator: Scanner, window: str = "hann") -> torch.Tensor:
    """FBP (parallel, fan) or FDK (cone) of projections (views, columns, rows); returns (X, Y, Z).

    `operator.background`, the value of air, is taken out first: outside the volume there is air, not zero.

    Raises:
        ValueError: an unknown window, or projections of another shape.
    """
    if window not in WINDOWS:
        raise ValueError(f"window must be one of {WINDOWS}, got {window!r}")
    if tuple(y.shape) != operator.range_shape:
        raise ValueError(f"expected projections of shape {operator.range_shape}, got {tuple(y.shape)}")
    geometry, grid, air = operator.geometry, operator.grid, operator.background
    if air:
        y = y - operator.forward(torch.full(grid.shape, air, dtype=y.dtype, device=y.device))
    if geometry.detector == "curved" and not concentric(geometry):
        y, geometry = flattened(y, geometry)
    volume = torch.zeros(grid.shape, dtype=y.dtype, device=y.device)
    helix = Helix(geometry) if geometry.helical and not geometry.tilted else None
    shares = ray_shares(geometry) * angular_steps(geometry)[:, None] * (2.0 if helix else 1.0)
    covered = torch.zeros_like(volume) if geometry.helical and geometry.tilted else None
    y, geometry = mirrored(y * shares.to(y)[..., None], geometry)
    for view in range(len(y)):
        filtered = _filter(y[view], geometry, view, window)
        if geometry.tilted:
            _back_project_tilted(volume, filtered, geometry, grid, view)
        else:
            _back_project(volume, filtered, geometry, grid, view, helix)
        if covered is not None:
            _back_project_tilted(covered, shares[view].mean().to(y).expand_as(filtered), geometry, grid, view, False)
    if covered is not None:  # by as much as the views that see a voxel are more than half a turn
        volume *= math.pi / covered.clamp_min(COVERED)
    return volume.add_(air)


def ramp_kernel(size: int, spacing: float) -> torch.Tensor:
    """Band-limited ramp in space, (size,) with the zero at index 0 and negative positions at the end, times spacing."""
    n = torch.cat([torch.arange(size // 2 + 1), torch.arange(-(size - size // 2 - 1), 0)]).double()
    odd = n.long() % 2 != 0
    kernel = torch.where(odd, -1 / (math.pi * n.where(odd, torch.ones_like(n))).square(), torch.zeros_like(n))
    kernel[0] = 0.25
    return kernel / spacing


def _filter(projection: torch.Tensor, geometry: ScanGeometry, view: int, window: str) -> torch.Tensor:
    """Weight by cos gamma and filter along the columns; (columns, rows)."""
    # At the isocenter, where the back-projection is normalised, columns are narrower.
    spacing = geometry.column_size
    if geometry.beam != "parallel":
        iso, det = (float(geometry.per_view(n)[view]) for n in ("source_to_isocenter", "source_to_detector"))
        across, depth = (place[view] for place in geometry.in_plane(geometry.columns))
        a = across - geometry.per_view("source_column_offset")[view]
        b = geometry.rows[view] - geometry.per_view("source_row_offset")[view]
        b = b if geometry.beam == "cone" else torch.zeros_like(b)
        cosine = depth[:, None] / torch.sqrt((depth.square() + a.square())[:, None] + b.square())
        projection = projection * cosine.to(projection)
        spacing *= iso / det
    count = len(projection)
    size = 2 ** math.ceil(math.log2(2 * count))
    kernel = ramp_kernel(size, spacing)
    if geometry.detector == "curved":
        steps = torch.arange(size, dtype=torch.float64)
        gamma = torch.minimum(steps, size - steps) * geometry.column_size / det
        kernel = kernel / torch.sinc(gamma.clamp(max=math.pi / 2) / math.pi).square()
    response = torch.fft.rfft(kernel).real
    f = torch.fft.rfftfreq(size, dtype=torch.float64)
    if window == "hann":
        response = response * (0.5 + 0.5 * torch.cos(2 * math.pi * f))
    elif window == "cosine":
        response = response * torch.cos(math.pi * f)
    spectrum = torch.fft.rfft(projection, size, dim=0) * response.to(projection)[:, None]
    return torch.fft.irfft(spectrum, size, dim=0)[:count]


def _back_project(
    volume, filtered: torch.Tensor, geometry: ScanGeometry, grid: Grid, view: int, helix: Helix | None
) -> None:
    """Add one filtered view (columns, rows) to the volume."""
    x, y, z = (grid.coordinates(a).to(volume) for a in range(3))
    theta = float(geometry.radians[view])
    along_u = (x[:, None] * math.cos(theta) + y * math.sin(theta)).flatten()
    along_d = (y * math.cos(theta) - x[:, None] * math.sin(theta)).flatten()
    position, distance, weight = _seen(geometry, view, along_u, along_d)
    slices = slice(None)
    if helix:
        slices = helix.slices(view, z, float(distance.min()), float(distance.max()))
        if slices.start == slices.stop:
            return
        z = z[slices]
    columns = geometry.columns[view]
    curtain = interpolate_rows(filtered, (position - float(columns[0])) / geometry.column_size)  # (pixels, rows)
    if geometry.beam == "cone":
        iso, det, source_column, source_row = _distances(geometry, view)
        b = source_row + (z - source_row) * (det / distance)[:, None]
        index = (b - float(geometry.rows[view][0])) / geometry.row_size
        lower = index.floor()
        share = index - lower
        padded = F.pad(curtain, (1, 1))  # one empty row on either side
        lower = (lower + 1).clamp(0, padded.shape[1] - 2).long()
        inside = (index > -1) & (index < geometry.num_rows)
        curtain = torch.lerp(padded.gather(1, lower), padded.gather(1, lower + 1), share) * inside
        if helix:
            curtain *= helix.shares(view, along_u - source_column, along_d + iso, z)
    if weight is not None:
        curtain = curtain * weight[:, None]
    volume[..., slices] += curtain.view(*grid.shape[:2], -1)


def _back_project_tilted(
    volume, filtered: torch.Tensor, geometry: ScanGeometry, grid: Grid, view: int, weighted: bool = True
) -> None:
    """The same where depth and column change with the height; without weights, where a view sees."""
    x, y, z = (grid.coordinates(a).to(volume) for a in range(3))
    u, v, d = geometry.frames[view].tolist()
    _, det, _, source_row = _distances(geometry, view)
    along_u, along_v, along_d = (
        (axis[0] * x[:, None] + axis[1] * y).flatten()[:, None] + axis[2] * z for axis in (u, v, d)
    )
    a, distance, weight = _seen(geometry, view, along_u, along_d)
    b = source_row + (along_v - source_row) * det / distance
    places = zip((b, a), (geometry.rows, geometry.columns), (geometry.row_size, geometry.column_size))
    index = [(p - float(first[view][0])) / size for p, first, size in places]
    # One empty row and column on either side, between which a detector of one row has a place, too.
    scaled = [2 * (i + 1) / (n + 1) - 1 for i, n in zip(index, (geometry.num_rows, geometry.num_columns))]
    read = F.grid_sample(F.pad(filtered, (1, 1, 1, 1))[None, None], torch.stack(scaled, -1)[None], align_corners=True)[
        0, 0
    ]
    volume += (read * weight if weighted else read).view(volume.shape)


def _distances(geometry: ScanGeometry, view: int) -> list[float]:
    names = ("source_to_isocenter", "source_to_detector", "source_column_offset", "source_row_offset")
    return [float(geometry.per_view(name)[view]) for name in names]


def _seen(geometry: ScanGeometry, view: int, along_u: torch.Tensor, along_d: torch.Tensor):
    """Detector coordinates a of points, their L, and (D_iso / L)^2; None for both in a parallel beam."""
    if geometry.beam == "parallel":
        return along_u, None, None
    iso, det, offset, _ = _distances(geometry, view)
    across, depth = along_u - offset, along_d + iso
    if geometry.detector == "flat":
        return offset + across / depth * det, depth, (iso / depth).square()
    distance = torch.hypot(across, depth)  # the cylinder's axis is the source
    return det * torch.atan2(across, depth), distance, (iso / distance).square()


def interpolate_rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Linear interpolation between the rows of a table (N, M) at positions (P,); zero outside."""
    lower = index.floor()
    share = (index - lower)[:, None]
    padded = F.pad(table, (0, 0, 1, 1))
    lower = (lower + 1).clamp(0, len(table)).long()
    inside = ((index > -1) & (index < len(table)))[:, None]
    return torch.lerp(padded[lower], padded[lower + 1], share) * inside
