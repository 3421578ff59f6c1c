"""Projections of a curved detector as a flat one would measure them: the same rays, interpolated.

The flat detector touches the cylinder in its middle: its element (a, b) lies on the ray that meets the cylinder at the
arc a' and the height b' = s + (b - s) t, t the share of the way from the source to the flat detector, s the source's
height. Needed where the cylinder's axis is not the source, so that fan angles have no equal steps.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from interslice.physics.ct.geometry import ScanGeometry


def concentric(geometry: ScanGeometry) -> bool:
    """Whether a curved detector's columns are at equal fan angles: its axis runs through the source in every view."""
    apart = (geometry.radius - geometry.per_view("source_to_detector")).abs().max()
    return float(apart) < 1e-6 and not bool(geometry.per_view("source_column_offset").any())


def flattened(y: torch.Tensor, geometry: ScanGeometry) -> tuple[torch.Tensor, ScanGeometry]:
    """Projections (views, columns, rows) and geometry of a flat detector that all rays of the curved one meet.

    Raises:
        ValueError: a detector so curved that its rays meet no flat one.
    """
    from interslice.physics.ct.sparse_radon import arc  # which knows this module through RayTransform

    offset, up = (geometry.per_view(n)[:, None] for n in ("source_column_offset", "source_row_offset"))
    det, radius = geometry.per_view("source_to_detector")[:, None], geometry.radius[:, None]
    edge = geometry.column_size / 2
    across, depth = geometry.in_plane(torch.cat([geometry.columns[:, :1] - edge, geometry.columns[:, -1:] + edge], 1))
    if not bool((depth > 0.05 * det).all()):
        raise ValueError("the curved detector reaches so far around that filtered back-projection cannot use its edges")
    ends = offset + (across - offset) / depth * det
    size = geometry.column_size
    low, high = float(ends.min()), float(ends.max())
    count = math.ceil((high - low) / size - 1e-9)
    flat = replace(geometry, detector="flat", detector_radius=None, num_columns=count, column_offset=(low + high) / 2)
    a = flat.columns - offset
    slope = torch.hypot(a, det)
    arcs = arc(a / slope, det / slope, offset, det, radius)
    share = geometry.in_plane(arcs)[1] / det
    index = (arcs - geometry.columns[:, :1]) / size
    b = up[..., None] + (geometry.rows - up)[:, None] * (share[..., None] if geometry.beam == "cone" else 1.0)
    row = (b - geometry.rows[:, :1, None]) / geometry.row_size
    scaled = [
        2 * i / max(1, n - 1) - 1 for i, n in ((row, geometry.num_rows), (index[..., None], geometry.num_columns))
    ]
    places = torch.stack(torch.broadcast_tensors(*scaled), -1).to(y)
    return F.grid_sample(y[:, None], places, align_corners=True, padding_mode="border")[:, 0], flat
