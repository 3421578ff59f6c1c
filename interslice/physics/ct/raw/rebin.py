"""A helix rebinned to fan beams, slice by slice: single-slice rebinning.

    p(beta, gamma; z_k) = L / sqrt(L^2 + v^2)  p_helix(view, gamma, v),     v = (z_k - z_s) L / (D_iso cos gamma)

For slice z_k and source angle beta the view is taken that stands there and is nearest to z_k. Of its rays at fan angle
gamma the one is taken that meets the slice half-way, at distance D_iso cos gamma from the source; L is the distance to
the detector within the plane (source_to_detector for a cylinder about the source, sqrt(a^2 + D_det^2) for a flat one),
v the height on it above the source at z_s. Source: Noo, Defrise and Clackdoyle, "Single-slice rebinning method for
helical cone-beam CT", Physics in Medicine and Biology 44 (1999), with whole turns. Fan beams take a sparse matrix that
serves all slices at once; rays are exact on the plane half-way alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from interslice.files.limits import Limits
from interslice.files.scan import Refusal
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.geometry import ScanGeometry

EVEN = 0.02
"""Share of a step by which views may be unevenly spaced."""
STRAYED = 0.25
"""Share of a step by which views of later turns may stand elsewhere than those of the first."""
BEYOND = 0.05
"""Share of the rays that may lie beyond the detector's rows, where its last row is taken."""


def rebinned(values: np.ndarray, geometry: ScanGeometry, noise: RayNoise | None = None, spacing: float | None = None,
             limits: Limits | None = None) -> tuple[np.ndarray, ScanGeometry, RayNoise | None]:  # fmt: skip
    """Fan beams (views of a turn, columns, slices), their geometry and noise.

    Args:
        values: (views, columns, rows) of a helix, in order.
        geometry: of them: a cone beam whose source stays at one distance and in the middle.
        noise: of the values.
        spacing: of the slices, mm; by default that of the rows at the isocenter.
        limits: of memory.

    Raises:
        Refusal: no helix of evenly spaced views, a focal spot that moves within the slices, a pitch that the detector
            does not cover, or less than a turn.
    """
    if not geometry.helical or geometry.tilted:
        raise Refusal("single-slice rebinning takes a helix: --raw#rebin none takes it")
    iso, det = (geometry.per_view(name).numpy() for name in ("source_to_isocenter", "source_to_detector"))
    if geometry.detector == "curved" and (geometry.radius - geometry.per_view("source_to_detector")).abs().max() > 1e-3:
        raise Refusal("its detector is curved about another place than the source: --raw#rebin none takes it")
    if np.ptp(iso) > 1e-3 or np.ptp(det) > 1e-3 or geometry.per_view("source_column_offset").abs().max() > 1e-3:
        raise Refusal("its focal spot moves within the slices, which is not followed: --raw#rebin none takes it")
    angles = geometry.unwrapped.numpy()
    step = float(np.median(np.diff(angles)))
    turn = round(2 * np.pi / abs(step))
    turns = np.arange(len(angles)) // turn
    strayed = angles - angles[np.arange(len(angles)) % turn] - np.sign(step) * 2 * np.pi * turns
    if np.abs(np.diff(angles) - step).max() > EVEN * abs(step) or np.abs(strayed).max() > STRAYED * abs(step):
        raise Refusal("its views are not evenly spaced, as many in each turn: --raw#rebin none takes it")
    if len(angles) <= turn + 1:
        raise Refusal(f"it has {len(angles)} views, and a turn {turn}: rebinning needs more than a turn")
    heights, table = (geometry.per_view(name).numpy() for name in ("source_row_offset", "row_offset"))
    spacing = spacing or geometry.row_size * float(iso[0] / det[0])
    ends = np.sort(np.interp([turn / 2, len(angles) - 1 - turn / 2], np.arange(len(angles)), table))
    count = int((ends[1] - ends[0]) / spacing) + 1
    (limits or Limits()).check((turn, geometry.num_columns, count))
    slices = ends.mean() + spacing * (np.arange(count) - (count - 1) / 2)
    order = np.argsort(table, kind="stable")

    a = geometry.columns[0].numpy()
    gamma = a / det[0] if geometry.detector == "curved" else np.arctan(a / det[0])
    length = np.full_like(a, det[0]) if geometry.detector == "curved" else np.hypot(a, det[0])
    rows = geometry.rows.numpy()
    out = np.empty((turn, len(a), count), np.float32)
    variance = None if noise is None else np.empty_like(out)
    beyond = 0
    for k, z in enumerate(slices):
        middle = float(np.interp(z, table[order], order))
        first = int(np.clip(round(middle - turn / 2), 0, len(angles) - turn))
        views = np.arange(first, first + turn)
        v = (z - heights[views])[:, None] * (length / (iso[0] * np.cos(gamma)))
        at = (heights[views, None] + v - rows[views, :1]) / geometry.row_size
        beyond += int(((at < -0.5) | (at > geometry.num_rows - 0.5)).sum())
        at = np.clip(at, 0, geometry.num_rows - 1)
        lower = np.minimum(at.astype(int), max(geometry.num_rows - 2, 0))
        upper, share = np.minimum(lower + 1, geometry.num_rows - 1), at - lower
        columns = np.arange(len(a))
        weight = length / np.hypot(length, v)
        place = (views % turn)[:, None], columns[None], k
        out[place] = weight * ((1 - share) * values[views[:, None], columns, lower]
                               + share * values[views[:, None], columns, upper])  # fmt: skip
        if variance is not None:
            variance[place] = weight**2 * ((1 - share) ** 2 * noise.variance[views[:, None], columns, lower]
                                           + share**2 * noise.variance[views[:, None], columns, upper])  # fmt: skip
    if beyond > BEYOND * out.size:
        raise Refusal(
            f"{beyond / out.size:.0%} of the rays that fan beams need lie beyond the detector's rows: the pitch is too "
            "large for rebinning whole turns; --raw#rebin none takes it"
        )
    fan = replace(
        geometry, beam="fan", angles=tuple(np.degrees(angles[:turn])), num_rows=count, row_size=float(spacing),
        source_to_isocenter=float(iso[0]), source_to_detector=float(det[0]), source_row_offset=0.0,
        row_offset=float(slices.mean()), column_offset=float(geometry.per_view("column_offset")[0]),
    )  # fmt: skip
    return out, fan, None if variance is None else RayNoise(variance)
