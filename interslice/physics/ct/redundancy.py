"""How much each ray counts where lines are measured more than once.

    w = sin^2( pi/2  c / (c + c') ),      c = d(theta) e(gamma),      w + w' = 1

A line is seen from either end: by the view at theta under the fan angle gamma, and by the one at theta + pi - 2 gamma
under -gamma (parallel beams: coordinates a and -a). d is how far the view lies within its arc, e how far the ray lies
within the detector, c' the same for the other end: 0 where that is not measured, so that w is 1. Over a whole turn with
a centred detector w is 1/2. A short scan gets the weights of Parker ("Optimal short scan convolution reconstruction for
fanbeam CT", Med. Phys. 1982), also if it is longer than need be; a whole turn with a detector shifted to one side those
of Wang ("X-ray micro-CT with a displaced detector array", Med. Phys. 2002).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from interslice.physics.ct.geometry import ScanGeometry

MISSING = 3.0
"""Steps of the golden angle differ by less than this."""
WIDEST = math.pi / 2
"""No wider gap is a step."""
TURN = 2 * math.pi


def angular_steps(geometry: ScanGeometry) -> torch.Tensor:
    """(views,) the angle in radians that each view stands for.

    It is half the way to either neighbour; a gap of more than `MISSING` usual steps is a missing wedge, and no view's.
    Along a helix neighbours are those of the same turn.
    """
    if geometry.helical:
        gaps = geometry.unwrapped.diff().abs()
        return torch.cat([gaps[:1], (gaps[1:] + gaps[:-1]) / 2, gaps[-1:]])
    period = math.pi if _half_turn_is_whole(geometry) else TURN
    angles, order = (geometry.radians % period).sort()
    gaps, usual = _gaps(angles, period)
    gaps = gaps.where(gaps <= MISSING * usual, usual)
    steps = torch.empty_like(gaps)
    steps[order] = (gaps + gaps.roll(1)) / 2
    return steps


def missing_directions(geometry: ScanGeometry) -> float:
    """Share of half a turn in which no view looks through the isocenter: what lies between gaps of more than `MISSING`
    usual steps."""
    gaps, usual = _gaps((geometry.radians % math.pi).sort().values, math.pi)
    wedges = gaps[gaps > min(MISSING * float(usual), WIDEST)] - usual
    return float(wedges.clamp_min(0).sum()) / math.pi


def ray_shares(geometry: ScanGeometry) -> torch.Tensor:
    """(views, columns) w. Tilts, and the way along a helix, are not looked at."""
    if _half_turn_is_whole(geometry):
        return torch.ones(geometry.range_shape[:2], dtype=torch.float64)
    half = geometry.column_size / 2
    columns = geometry.columns
    gamma, low, high = (fan_angles(geometry, a) for a in (columns, columns[:, :1] - half, columns[:, -1:] + half))
    inside = [torch.ones_like(gamma)] * 2
    if _shifted(geometry):
        inside = [torch.minimum(g - low, high - g).clamp_min(0) for g in (gamma, -gamma)]
    if not geometry.helical:  # there, what each view is worth differs from voxel to voxel
        theta = geometry.radians[:, None].expand_as(gamma)
        if geometry.beam != "parallel":
            theta = theta + source_angle(geometry)[:, None]
        turned = 0 if geometry.beam == "parallel" else 2 * gamma
        arcs = _arcs(theta[:, 0])
        inside = [e * _depth(t, arcs) for e, t in zip(inside, (theta, theta + math.pi - turned))]
    own, other = inside
    return torch.sin(math.pi / 2 * own / (own + other)).square()


def fan_angles(geometry: ScanGeometry, a: torch.Tensor) -> torch.Tensor:
    """(views, ...) angles in radians of the rays of detector coordinates a to the ray through the isocenter, rising
    with a; for parallel beams a itself, in mm."""
    if geometry.beam == "parallel":
        return a
    across, depth = geometry.in_plane(a)
    offset = geometry.per_view("source_column_offset")[:, None]
    return torch.atan2(across - offset, depth) + source_angle(geometry)[:, None]


def source_angle(geometry: ScanGeometry) -> torch.Tensor:
    """(views,) by how much an offset along u turns the source about the isocenter, in radians."""
    return torch.atan2(geometry.per_view("source_column_offset"), geometry.per_view("source_to_isocenter"))


def mirrored(y: torch.Tensor, geometry: ScanGeometry) -> tuple[torch.Tensor, ScanGeometry]:
    """Weighted projections (views, columns, rows) of a shifted detector with empty columns on its short side.

    The ramp spreads what was measured beyond the detector's edge, where voxels read it.
    """
    beyond = geometry.columns[:, 0] + geometry.columns[:, -1]  # how far further the detector reaches along u
    before, after = (max(0, math.ceil(float((sign * beyond / geometry.column_size).max()))) for sign in (1, -1))
    if max(before, after) <= 1 or not (geometry.helical or whole_turn(geometry)):
        return y, geometry
    offset = geometry.per_view("column_offset") + (after - before) / 2 * geometry.column_size
    wide = replace(geometry, num_columns=geometry.num_columns + before + after, column_offset=tuple(offset.tolist()))
    return F.pad(y, (0, 0, before, after)), wide


def whole_turn(geometry: ScanGeometry) -> bool:
    """Whether views lie all around, without a gap."""
    return _arcs(geometry.radians) is None


def _half_turn_is_whole(geometry: ScanGeometry) -> bool:
    """Whether parallel views half a turn apart are taken for the same: all but a whole turn of a shifted detector."""
    return geometry.beam == "parallel" and not (_shifted(geometry) and whole_turn(geometry))


def _shifted(geometry: ScanGeometry) -> bool:
    """Whether a detector reaches further to one side, by a column or more."""
    edges = fan_angles(geometry, geometry.columns[:, [0, -1]])
    return bool((edges.sum(1).abs() >= (edges[:, 1] - edges[:, 0]) / max(1, geometry.num_columns - 1)).any())


def _gaps(angles: torch.Tensor, period: float) -> tuple[torch.Tensor, torch.Tensor]:
    """From each of the sorted angles to the next, and the usual one; views at one angle share its step."""
    gaps = torch.cat([angles[1:], angles[:1] + period]) - angles
    positive = gaps[gaps > 1e-6]
    return gaps, positive.median()


def _arcs(theta: torch.Tensor) -> list[tuple[float, float]] | None:
    """(start, length) of the arcs without a gap that views cover, half a step more at either end; None for a turn."""
    angles = (theta % TURN).sort().values
    gaps, usual = _gaps(angles, TURN)
    ends = (gaps > min(MISSING * float(usual), WIDEST)).nonzero().flatten().tolist()
    if not ends:
        return None
    step = float(usual)
    first = [(i + 1) % len(angles) for i in ends[-1:] + ends[:-1]]
    return [(float(angles[i]) - step / 2, float((angles[j] - angles[i]) % TURN) + step) for i, j in zip(first, ends)]


def _depth(theta: torch.Tensor, arcs: list[tuple[float, float]] | None) -> torch.Tensor:
    """How far angles lie within one of the arcs; 0 outside, 1 everywhere in a whole turn."""
    if arcs is None:
        return torch.ones_like(theta)
    depth = torch.zeros_like(theta)
    for start, length in arcs:
        way = (theta - start) % TURN
        depth = torch.maximum(depth, torch.minimum(way, length - way))
    return depth
