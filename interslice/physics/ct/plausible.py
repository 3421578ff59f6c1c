"""Whether projections can be what their geometry says, before long work begins; and what is wrong with them, if not.

With p(theta, a) the line integrals of view theta at column coordinate a (mm), of an object that no view cuts off:

    sum_a p(theta, a) = m,    sum_a a p(theta, a) / m = x cos theta + y sin theta - e          parallel beam

m is the same in every view; (x, y) is the object's centre of mass, and e what the stated column_offset lacks (the first
two of the conditions of Helgason, "The Radon transform", 1980, and Ludwig, Comm. Pure Appl. Math. 1966). A ray through
air alone has p = 0. The sense of rotation cannot be told: a mirrored volume has the same projections.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from types import SimpleNamespace

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.doubts import add_doubts
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.dead_columns import may_stay, with_dead_filled
from interslice.physics.ct.filtered_back_projection import filtered_back_projection
from interslice.physics.ct.geometry import Grid, ScanGeometry

MANY_VIEWS = 8
"""From so many views on an arc of 2 pi degrees or less is short enough to ask for radians."""
AS_SCANS = 0.02
"""Share by which an arc in radians may miss half a turn or a whole one, to be one."""
DRIFT, WRONG_AIR = 0.05, 0.2
"""Line integral of rays through air: from the first on it is doubtful, from the second on plainly wrong."""
FLAT = 0.02
"""Columns through air differ by less, of view and of side."""
STEADY = 0.05
"""Share by which m may scatter among views: more, and the object is cut off."""
SUBSTANCE = 0.5
"""Share of the 98th percentile above which a voxel of the quick reconstruction is the object."""
DENSE, THIN = 5.0, 0.1
"""Times the attenuation of water: nothing in a body that most of it could be."""
METAL, SPOT = 4.0, 4
"""Times the attenuation of water that no bone reaches, and voxels of a quick reconstruction that do, for metal."""
TEN = 1 / math.log(10)
"""Decadic logarithms are so many times the natural ones."""
QUICK = 96
"""Voxels along a side of the quick reconstruction."""


class CheckProjectionsd(MapTransform):
    """Passes projections on that can be what they are said to be; dead columns are filled in.

    Args:
        keys: projections (1, views, columns, rows), line integrals, with their geometry and, of counts, the
            "air_counts" in `meta`.
        scale: the HounsfieldScale, for the attenuation of water.

    Raises:
        ValueError: a scan in steps, angles in radians, wrong counts through air, a missing offset of the detector,
            lengths in another unit, too many dead columns; with the value, the limit and what to do.

    What is doubtful alone is warned of, and carried along (interslice.files.doubts).
    """

    def __init__(self, keys, scale: HounsfieldScale) -> None:
        super().__init__(keys)
        self.scale = scale

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            geometry = d[key].meta["geometry"]
            try:
                check_stops(geometry)
                said = check_angles(geometry)
                p, dead, more = with_dead_filled(d[key].as_tensor()[0].numpy(), may_stay(geometry))
                said += more
                said += check_air(p, d[key].meta.get("air_counts"))
                said += check_offset(p, geometry)
                said += check_attenuation(p, geometry, self.scale.water)
            except ValueError as error:
                raise ValueError(f"{d[key].meta.get('filename_or_obj', 'the projections')}: {error}") from None
            d[key] = MetaTensor(torch.from_numpy(p)[None], meta=d[key].meta)
            if dead.any() and "noise" in d[key].meta:
                d[key].meta["noise"] = d[key].meta["noise"].without(dead)
            add_doubts(d[key], *said)
        return d


def check_stops(geometry: ScanGeometry) -> None:
    """Raise ValueError for a scan whose table stood still while the source turned, and moved on in between."""
    if geometry.stops > 1:
        raise ValueError(
            f"the source turns at {geometry.stops} heights (source_row_offset), one after the other: a scan in steps "
            "is no helix and no circle; make a file of the views of each height, and reconstruct them one by one"
        )


def check_angles(geometry: ScanGeometry) -> list[str]:
    """A sentence for a short arc that may be in radians; raises ValueError where it is as long as scans are in them.

    Tomosynthesis turns by a few degrees, too, so that only pi and 2 pi are plain.
    """
    low, high, views = min(geometry.angles), max(geometry.angles), len(geometry.angles)
    arc = (high - low) * views / (views - 1)
    if views < MANY_VIEWS or not 0 < arc <= 2 * math.pi * (1 + AS_SCANS) * views / (views - 1):
        return []
    said = f"{views} views lie within {arc:.3g} degrees"
    # The last view stands at the end of the arc, or one step before.
    if any(abs(length / turn - 1) < AS_SCANS for turn in (math.pi, 2 * math.pi) for length in (arc, high - low)):
        raise ValueError(
            f"{said}: the angles look like radians, and {math.degrees(arc):.4g} degrees are meant; angles are in "
            "degrees"
        )
    return [f"{said}: is the arc so short, or are the angles in radians ({math.degrees(arc):.4g} degrees)?"]


def air_of(p: np.ndarray) -> float | None:
    """The line integral of rays through air alone; None if the outermost columns do not all see the same of it.

    Where an object is cut off the outermost columns differ from view to view, or from their neighbours inside.
    """
    width = max(2, p.shape[1] // 40)
    if p.shape[1] < 6 * width:
        return None
    outer, inner = ([p[:, s].mean((1, 2)) for s in sides] for sides in (
        (slice(None, width), slice(-width, None)), (slice(width, 2 * width), slice(-2 * width, -width))))  # fmt: skip
    blocks = np.concatenate([*outer, *inner])
    air = float(np.median(blocks))
    return air if float((np.abs(blocks - air) < FLAT).mean()) > 0.95 else None


def check_air(p: np.ndarray, air_counts: float | None) -> list[str]:
    """A sentence if rays through air are not 0; raises ValueError if they are far from it, or above the object."""
    air = air_of(p)
    if air is None:
        return []
    check_sense(p - air, air, air_counts)
    if abs(air) < DRIFT:
        return []
    what = f"rays beside the object have the line integral {air:.3g} in all views, and air has 0"
    fix = "subtract it"
    if air_counts is not None:
        fix = f"air_counts is {air_counts:g}, the counts say {air_counts * math.exp(-air):.5g}"
    if abs(air) < WRONG_AIR:
        return [f"{what}: {fix}"]
    raise ValueError(f"{what}: the counts through air are wrong; {fix}")


def check_sense(above: np.ndarray, air: float, air_counts: float | None) -> None:
    """Raise ValueError if the values of the object are below that of air.

    Args:
        above: projections, less the value `air` of rays through air.
    """
    if not (float(above.min()) < -FLAT and above.sum() < -0.5 * np.abs(above).sum()):
        return
    lowest = float(above.min()) + air
    if air_counts is not None:
        raise ValueError(
            f"line integrals fall from {air:.3g} beside the object to {lowest:.3g} behind it: the values are no "
            "counts; if they are line integrals, leave out air_counts"
        )
    what = f"values fall from {air:.3g} beside the object to {lowest:.3g} behind it, and line integrals rise from 0"
    if lowest < -FLAT:
        raise ValueError(f"{what}: is their sign wrong? Line integrals are -log(I / I0)")
    raise ValueError(f"{what}: they look like transmission I / I0; take -log of it, or state air_counts {air:.3g}")


def missing_offset(p: np.ndarray, geometry: ScanGeometry) -> tuple[float, float, float] | None:
    """(e, its standard error, largest departure of a view), in mm; None if the conditions above tell nothing.

    That is: no parallel beam, views cut off, fewer than MANY_VIEWS of them, or an arc that is too short.
    """
    if geometry.beam != "parallel" or len(geometry.angles) < MANY_VIEWS:
        return None
    air = air_of(p)
    mass = p.sum((1, 2), dtype=np.float64)
    if air is None or abs(air) > DRIFT or not mass.min() > 0 or np.ptp(mass) > STEADY * np.median(mass):
        return None
    columns, theta = geometry.columns.numpy(), geometry.radians.numpy()
    centre = np.einsum("vcr,vc->v", p, columns, dtype=np.float64) / mass
    waves = np.stack([np.cos(theta), np.sin(theta), np.ones_like(theta)], 1)
    covariance = np.linalg.pinv(waves.T @ waves)
    if covariance[2, 2] * len(theta) > 20:  # 8.4 for half a turn, 1 for a whole one
        return None
    left = centre - waves @ (fit := covariance @ waves.T @ centre)
    error = math.sqrt(left @ left / (len(theta) - 3) * covariance[2, 2])
    return -float(fit[2]), error, float(np.abs(left).max())


def check_offset(p: np.ndarray, geometry: ScanGeometry) -> list[str]:
    """A sentence if views do not fit together; raises ValueError if the offset of the detector is plainly missing."""
    found = missing_offset(p, geometry)
    if found is None:
        return []
    missing, error, astray = found
    size = geometry.column_size
    if abs(missing) > max(size, 10 * error):
        offset = float(geometry.per_view("column_offset").mean()) + missing
        raise ValueError(
            f"the views fit together about a centre that is {missing:.3g} mm ({missing / size:.2g} columns) off the "
            f"stated one: set column_offset to {offset:.4g} mm"
        )
    if astray > 2 * size:
        return [
            f"the centre of mass strays {astray:.3g} mm ({astray / size:.2g} columns) from the curve that the stated "
            "angles give: are angles wrong or in another order, or did the object move?"
        ]
    if abs(missing) > max(size / 2, 10 * error):
        return [f"the views fit together best with column_offset {missing:+.3g} mm from what is stated"]
    return []


def quick_slice(p: torch.Tensor, geometry: ScanGeometry) -> torch.Tensor:
    """(X, Y, 1) attenuation in 1/mm in the plane of the middle row, filtered back-projection on a coarse grid."""
    if geometry.beam != "cone":
        p, geometry = p[..., p.shape[2] // 2, None], geometry.one_row()
    side = 2 * geometry.field_radius / QUICK
    grid = Grid((QUICK, QUICK, 1), (side, side, 1.0))
    scan = SimpleNamespace(geometry=geometry, grid=grid, background=0.0, range_shape=geometry.range_shape)
    return filtered_back_projection(p, scan)


def check_attenuation(p: np.ndarray, geometry: ScanGeometry, water: float) -> list[str]:
    """Sentences if the object is no body by its attenuation, or holds metal; ValueError if lengths must be wrong.

    Args:
        water: attenuation in 1/mm.
    """
    if geometry.helical or geometry.field_radius <= 0 or air_of(p) is None:  # what is cut off seems denser than it is
        return []
    mu = quick_slice(torch.from_numpy(p), geometry).numpy()
    dense = mu[mu > SUBSTANCE * np.percentile(mu, 98)]
    if not (len(dense) and (typical := float(np.median(dense))) > 0):
        return []
    ratio = typical / water
    said = []
    if ratio < DENSE and (spots := int((mu > METAL * max(water, typical)).sum())) >= SPOT:
        said = [
            f"{spots} of {mu.size} voxels of a quick reconstruction attenuate more than {METAL:g} times as much as "
            "water, as metal does: metal is not modelled, and streaks and shadows beside it are to be expected"
        ]
    what = f"most of the object attenuates {typical:.3g}/mm in a quick reconstruction, {ratio:.2g} times water"
    if ratio > DENSE:
        unit = "cm" if ratio < 50 else "m"
        raise ValueError(
            f"{what} ({water:g}/mm), within a field of view of {2 * geometry.field_radius:.3g} mm: are lengths in "
            f"{unit}? They are in mm. For an object so dense, state hounsfield#water"
        )
    if ratio < THIN:
        return [*said, f"{what} ({water:g}/mm): are lengths in mm, and values natural logarithms?"]
    # With part of a turn, or few views, quick reconstructions are too low by themselves.
    turn = 180.0 if geometry.beam == "parallel" else 360.0
    arc = (max(geometry.angles) - min(geometry.angles)) * len(geometry.angles) / (len(geometry.angles) - 1)
    if abs(ratio - TEN) < 0.1 * TEN and arc > 0.95 * turn:
        return [*said, f"{what} ({water:g}/mm), as if logarithms were decadic: take natural ones, -log(I / I0)"]
    return said
