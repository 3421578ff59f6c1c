"""Bodies wider than the detector: what is cut off is guessed, so that it does not come out as a bright rim.

    y' = y - A x_out,    x_out = filtered back-projection of y, extended, outside of the grid

Projections that do not come to zero at the detector's edge are extended by a cylinder of water that goes on where they
stop, with their value p and slope p' there (Hsieh et al., "A novel reconstruction algorithm to extend the CT scan
field-of-view", Med. Phys. 2004):

    p(a)^2 = 4 mu^2 (R^2 - (a - c)^2),    c = a_e + p p' / (4 mu^2),    R^2 = p^2 / (4 mu^2) + (a_e - c)^2

Of what these show, the part outside of the grid is projected and taken from the measurement, so that the rest is a scan
of what the grid holds (Ziegler, Nielsen, Grass, "Iterative reconstruction of a region of interest for transmission
tomography", Med. Phys. 2008).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.doubts import add_doubts
from interslice.files.values import choice
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.cone_beam import ConeBeam
from interslice.physics.ct.field_of_view import radius_seen
from interslice.physics.ct.filtered_back_projection import filtered_back_projection
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.ray_transform import RayTransform
from interslice.physics.ct.sparse_radon import SparseRadon
from interslice.physics.measurement import Scanner

CHOICES = ("leave", "extrapolate", "grid")
EDGE = 0.15
"""Line integral at the detector's edge from which something is cut off there, and
share of the largest one that it has, too, where that is more."""
SHIFTED = 1.05
"""Times the circle that each view sees whole that all see together, from which a detector is shifted."""
SHARE = 0.05
"""Of the views that cut off a row of the detector: fewer are passed over."""
WIDEST = 1.5
"""Times half a detector's width that an extended projection reaches from the middle, at most."""
THIN = 0.1
"""Of water: what is thinner, streaks, is taken for air where it lies outside."""


def edges(p: np.ndarray) -> np.ndarray:
    """(2, views, rows) line integrals at both ends of the columns."""
    width = max(2, p.shape[1] // 60)
    return np.stack([p[:, :width].mean(1), p[:, -width:].mean(1)])


def shares_cut_off(p: np.ndarray, geometry: ScanGeometry | None = None) -> np.ndarray:
    """(rows,) of each row of (views, columns, rows) the share of views that do not come to air at both ends.

    Rows are judged one by one: in parallel and fan beams they are the slices, and a body may be too wide in a few.

    Of a detector that is shifted to one side and sees every line from there (field_of_view.py), at the far end.
    """
    ends = edges(p)
    if geometry is not None and radius_seen(geometry) > SHIFTED * geometry.field_radius:
        first, last = geometry.columns[:, 0].abs().mean(), geometry.columns[:, -1].abs().mean()
        ends = ends[:1] if first > last else ends[1:]
    return (ends.max(0) > max(EDGE, SHARE * float(p.max()))).mean(0)


def extended(p: np.ndarray, width: float, water: float) -> tuple[np.ndarray, int]:
    """Projections with as many columns more at either side, and how many these are.

    Args:
        p: (views, columns, rows).
        width: of a column at the isocenter, mm.
        water: mu in 1/mm.
    """
    more = math.ceil((WIDEST - 1) * p.shape[1] / 2)
    sides = []
    for side in (p[:, ::-1], p):
        near = max(3, p.shape[1] // 40)
        steps = np.arange(near) * width
        last = side[:, -near:]
        slope = np.einsum("n,vnr->vr", steps - steps.mean(), last) / np.square(steps - steps.mean()).sum()
        value = np.maximum(last.mean(1) + slope * (steps[-1] - steps.mean()), 0.0)
        middle = np.minimum(value * slope / (4 * water**2), 0.0)[:, None]  # c from the edge; bodies fall off outside
        radius2 = np.square(value[:, None] / (2 * water)) + np.square(middle)
        away = (np.arange(1, more + 1) * width)[:, None]
        goes_on = 2 * water * np.sqrt(np.maximum(radius2 - np.square(away - middle), 0.0))
        sides.append(goes_on.astype(p.dtype))
    return np.concatenate([sides[0][:, ::-1], p, sides[1]], axis=1), more


def outside(p: np.ndarray, operator: RayTransform, water: float) -> torch.Tensor:
    """(views, columns, rows), A x_out above.

    Args:
        p: line integrals (views, columns, rows).
        operator: of the grid to reconstruct on, with a background of 0.
        water: mu in 1/mm.
    """
    geometry, grid = operator.geometry, operator.grid
    longer, more = extended(p, geometry.column_size / geometry.magnification, water)
    wider = replace(geometry, num_columns=geometry.num_columns + 2 * more)
    large, inner = around(grid, wider)
    x = filtered_back_projection(torch.from_numpy(longer), Seen(wider, large))
    x[x < THIN * water] = 0.0
    x[inner] = 0.0
    return on_grid(operator, large).forward(x)


class Seen:
    """What filtered back-projection asks of an operator whose volumes lie in nothing."""

    background = 0.0

    def __init__(self, geometry: ScanGeometry, grid: Grid) -> None:
        self.geometry, self.grid, self.range_shape = geometry, grid, geometry.range_shape


def around(grid: Grid, geometry: ScanGeometry) -> tuple[Grid, tuple[slice, ...]]:
    """The grid, larger in-plane by whole voxels so that it holds the field of view, and where it lies within."""
    room = geometry.field_radius
    if geometry.beam != "parallel":  # neither source nor detector lies within
        iso, det = (geometry.per_view(n) for n in ("source_to_isocenter", "source_to_detector"))
        room = min(room, 0.95 * float(torch.minimum(iso, det - iso).min()) / math.sqrt(2))
    pads = [max(0, math.ceil((room - abs(c)) / s - n / 2)) for n, s, c in zip(grid.shape, grid.spacing, grid.center)][
        :2
    ] + [0]
    shape = tuple(n + 2 * pad for n, pad in zip(grid.shape, pads))
    return replace(grid, shape=shape), tuple(slice(pad, pad + n) for n, pad in zip(grid.shape, pads))


def on_grid(operator: RayTransform, grid: Grid) -> RayTransform:
    """The same scan of another grid, which lies in nothing; used once, so that no matrix of it is kept."""
    if isinstance(operator, ConeBeam):
        return ConeBeam(operator.geometry, grid, operator.backend, 0.0)
    return SparseRadon(operator.geometry, grid, operator.model, 0.0, keep=False)


class MendTruncationd(MapTransform):
    """Says where projections are cut off, and mends it as it was chosen.

    Args:
        keys: projections (1, views, columns, rows), line integrals, with their geometry.
        scanner: says on which grid they are reconstructed.
        scale: the HounsfieldScale, for mu of water.
        truncation: "leave" them; "extrapolate": take off what lies outside of the grid, as above; "grid": reconstruct
            on a grid that holds what the extended projections would show.
    """

    def __init__(self, keys, scanner: Scanner, scale: HounsfieldScale, truncation: str = "extrapolate") -> None:
        super().__init__(keys)
        self.scanner, self.scale, self.truncation = scanner, scale, choice("truncation", truncation, CHOICES)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            p = d[key].as_tensor()[0].numpy()
            shares = shares_cut_off(p, d[key].meta.get("geometry"))
            if (cut := shares > SHARE).any():
                rows = "" if cut.all() else f" in {cut.sum()} of {len(cut)} rows"
                said = (
                    f"{shares[cut].mean():.0%} of the views do not come to air at the detector's edge{rows}: the body "
                    "is cut off"
                )
                d[key] = self._mended(d[key], cut, f"{said}, and near the border values are ")
        return d

    def _mended(self, projections: MetaTensor, cut: np.ndarray, said: str) -> MetaTensor:
        if self.truncation == "leave":
            add_doubts(projections, f"{said}too high, with a bright rim (--truncation extrapolate guesses the rest)")
            return projections
        operator, p = self.scanner.for_measurement(projections), projections.as_tensor()[0].numpy()
        if self.truncation == "grid":
            wider = replace(operator.geometry, num_columns=2 * math.ceil(WIDEST * operator.geometry.num_columns / 2))
            projections.meta["grid"] = grid = around(operator.grid, wider)[0]
            if self.scanner.for_measurement(projections).grid != grid:
                raise ValueError(
                    f"{projections.meta.get('filename_or_obj', 'the projections')}: truncation grid enlarges the grid, "
                    "and operator#shape, #spacing or #center state it: leave out one of them"
                )
            add_doubts(projections, f"{said}uncertain; the grid is enlarged to hold it")
            return projections
        off = outside(p, operator, self.scale.water)
        if operator.separable_axes:  # rows are slices, and others than these are whole
            off *= torch.from_numpy(cut)
        mended = MetaTensor(projections.as_tensor() - off[None], meta=projections.meta)
        add_doubts(mended, f"{said}uncertain; what lies outside of the grid is guessed, as water, and taken off")
        return mended
