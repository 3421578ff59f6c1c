"""Direct reconstruction: filtered back-projection, and FDK for the cone beam.

    x(r) = sum over views of  dtheta (D_iso / L)^2  q(a(r), b(r)),      q = ramp * (y cos gamma)

L is the depth of the voxel r seen from the source, a(r) and b(r) where its ray meets the detector, cos gamma the
cosine of the ray's angle to the central one; for a parallel beam both factors are 1. The ramp is the band-limited one
(Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, ch. 3), under a Hann window. Cone beam after
Feldkamp, Davis, Kress, "Practical cone-beam algorithm", J. Opt. Soc. Am. A 1984. Each view counts for the
angle that it stands for, so angles may be uneven and in any order; lines seen from both ends count half.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F

from bundle.physics.ct.geometry import Grid, ScanGeometry

WINDOWS = ("ramp", "hann", "cosine")
MISSING = 3.0
"""Steps of the golden angle differ by less than this."""


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
    volume = torch.zeros(grid.shape, dtype=y.dtype, device=y.device)
    for view, weight in enumerate(angular_weights(geometry).tolist()):
        _back_project(volume, _filter(y[view], geometry, view, window) * weight, geometry, grid, view)
    return volume.add_(air)


def angular_weights(geometry: ScanGeometry) -> torch.Tensor:
    """(views,) the angle in radians that each view stands for, together at most half a turn.

    It is half the way to either neighbour; a gap of more than `MISSING` usual steps is a missing wedge, and no view's.
    """
    period = math.pi if geometry.beam == "parallel" else 2 * math.pi
    angles, order = (geometry.radians % period).sort()
    # Views at one angle share its step.
    gaps = torch.cat([angles[1:], angles[:1] + period]) - angles
    usual = gaps[gaps > 1e-6].median()
    gaps = gaps.where(gaps <= MISSING * usual, usual)
    weights = torch.empty_like(gaps)
    weights[order] = (gaps + gaps.roll(1)) / 2
    # Beyond half a turn lines are seen twice, each view then counts less; exactly so for a full turn only.
    return weights * min(1.0, math.pi / float(weights.sum()))


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
        a = geometry.columns[view] - geometry.per_view("source_column_offset")[view]
        b = geometry.rows[view] - geometry.per_view("source_row_offset")[view]
        b = b if geometry.beam == "cone" else torch.zeros_like(b)
        cosine = det / torch.sqrt(det**2 + a[:, None].square() + b.square())
        projection = projection * cosine.to(projection)
        spacing *= iso / det
    count = len(projection)
    size = 2 ** math.ceil(math.log2(2 * count))
    response = torch.fft.rfft(ramp_kernel(size, spacing)).real
    f = torch.fft.rfftfreq(size, dtype=torch.float64)
    if window == "hann":
        response = response * (0.5 + 0.5 * torch.cos(2 * math.pi * f))
    elif window == "cosine":
        response = response * torch.cos(math.pi * f)
    spectrum = torch.fft.rfft(projection, size, dim=0) * response.to(projection)[:, None]
    return torch.fft.irfft(spectrum, size, dim=0)[:count]


def _back_project(volume, filtered: torch.Tensor, geometry: ScanGeometry, grid: Grid, view: int) -> None:
    """Add one filtered view (columns, rows) to the volume."""
    x, y, z = (grid.coordinates(a).to(volume) for a in range(3))
    theta = float(geometry.radians[view])
    along_u = x[:, None] * math.cos(theta) + y * math.sin(theta)
    columns = geometry.columns[view]
    if geometry.beam == "parallel":
        position, weight = along_u, None
    else:
        iso, det, offset = (
            float(geometry.per_view(n)[view])
            for n in ("source_to_isocenter", "source_to_detector", "source_column_offset")
        )
        depth = -x[:, None] * math.sin(theta) + y * math.cos(theta) + iso
        position, weight = offset + (along_u - offset) / depth * det, (iso / depth).square()
    index = ((position - float(columns[0])) / geometry.column_size).flatten()
    curtain = interpolate_rows(filtered, index)  # (pixels, rows)
    if geometry.beam == "cone":
        source_row = float(geometry.per_view("source_row_offset")[view])
        b = source_row + (z - source_row) * (det / depth.flatten())[:, None]
        index = (b - float(geometry.rows[view][0])) / geometry.row_size
        lower = index.floor()
        share = index - lower
        padded = F.pad(curtain, (1, 1))  # one empty row on either side
        lower = (lower + 1).clamp(0, padded.shape[1] - 2).long()
        inside = (index > -1) & (index < geometry.num_rows)
        curtain = torch.lerp(padded.gather(1, lower), padded.gather(1, lower + 1), share) * inside
    curtain = curtain.view(*grid.shape[:2], -1)
    volume.add_(curtain if weight is None else curtain * weight[..., None])


def interpolate_rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Linear interpolation between the rows of a table (N, M) at positions (P,); zero outside."""
    lower = index.floor()
    share = (index - lower)[:, None]
    padded = F.pad(table, (0, 0, 1, 1))
    lower = (lower + 1).clamp(0, len(table)).long()
    inside = ((index > -1) & (index < len(table)))[:, None]
    return torch.lerp(padded[lower], padded[lower + 1], share) * inside
