"""What a scan sees: a circle about the isocenter in-plane, and a stretch of the axis.

In-plane, the largest circle all of whose lines are measured: by every view, or over a whole turn from one end at least,
which for a detector shifted to one side is the wider circle. Along the axis, the heights that every view sees; on a
helix those that enough views see, which together cover half a turn and the fan.
"""

from __future__ import annotations

import math

import torch

from interslice.physics.ct.geometry import ScanGeometry
from interslice.physics.ct.redundancy import angular_steps, fan_angles, whole_turn

HEIGHTS = 1024
"""Heights at which the views of a helix are counted."""


def radius_seen(geometry: ScanGeometry) -> float:
    """Radius in mm of the circle whose every line is measured; 0 if lines through the isocenter are not."""
    if geometry.field_radius > 0 and (geometry.helical or whole_turn(geometry)):
        half = geometry.column_size / 2
        edges = fan_angles(geometry, geometry.columns[:, [0, -1]] + torch.tensor([-half, half]))
        if geometry.beam != "parallel":
            iso, offset = (geometry.per_view(n) for n in ("source_to_isocenter", "source_column_offset"))
            edges = torch.sin(edges) * torch.hypot(iso, offset)[:, None]
        left, right = (-edges[:, 0]).min(), edges[:, 1].min()
        return float(max(left, right))
    return geometry.field_radius


def heights_seen(geometry: ScanGeometry) -> tuple[float, float]:
    """Lowest and highest place on the axis, in mm, that a cone beam sees (tilts are not looked at)."""
    source = geometry.per_view("source_row_offset")
    shrink = geometry.per_view("source_to_isocenter") / geometry.per_view("source_to_detector")
    middle, half = geometry.per_view("row_offset"), geometry.num_rows * geometry.row_size / 2
    low, high = (source + (middle + side * half - source) * shrink for side in (-1, 1))
    if not geometry.helical:
        return float(low.max()), float(high.min())
    heights = torch.linspace(float(low.min()), float(high.max()), HEIGHTS, dtype=torch.float64)
    seen = (heights >= low[:, None]) & (heights <= high[:, None])
    covered = angular_steps(geometry) @ seen.double()
    fan = 2 * float(fan_angles(geometry, geometry.columns).abs().max())
    enough = heights[covered >= min(math.pi + fan, 0.99 * float(covered.max()))]
    return float(enough[0]), float(enough[-1])
