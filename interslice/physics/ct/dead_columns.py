"""Detector elements that tell nothing: found, and filled in from their neighbours.

Columns see an object's shadow move. In a parallel beam the shadow of a point at distance r from the axis of rotation
keeps, over an arc phi of at most half a turn, to no fewer than r (1 - cos(phi / 2)) of the detector, so that only what
lies within 2 columns / (1 - cos(phi / 2)) of the axis can stay within a column of its place. Beyond, an element is dead

    if it has one value in all views, while others on both sides of it, in its row, have not;
    if its value is far above that of both neighbours in all views: a dead element of which dark noise is left.

About the axis the first holds, too, but for what is as high as anything and has high neighbours: there no photon
arrives, as behind metal.
"""

from __future__ import annotations

import math

import numpy as np

from interslice.physics.ct.geometry import ScanGeometry

WIDEST_GAP = 8
"""So many neighbouring columns are filled in; what lies across more is not known."""
FAR_ABOVE = 1.0
"""Line integral by which dead elements exceed their neighbours in all views, at least."""
HIGH = 0.5
"""Share of the largest line integral that is near it."""
FEW_VIEWS = 8
"""In fewer views noise may lie above its neighbours by chance."""


def may_stay(geometry: ScanGeometry) -> np.ndarray:
    """bool (columns,): whether the shadow of an object may stay within a column of this one in all views."""
    arc = math.radians(min(180.0, max(geometry.angles) - min(geometry.angles)))
    reach = 2 * geometry.column_size / max(1 - math.cos(arc / 2), 1e-9)
    return (geometry.columns.abs() <= reach).any(0).numpy()


def dead_elements(p: np.ndarray, still: np.ndarray | None = None) -> np.ndarray:
    """bool (columns, rows) of projections (views, columns, rows); `still` from `may_stay`, by default all columns."""
    still = np.ones(p.shape[1], bool) if still is None else still
    dead = one_value(p)
    dead |= far_above_neighbours(p, still)
    return dead & ~starved_elements(p, still)


def one_value(p: np.ndarray) -> np.ndarray:
    """bool (columns, rows): the same in all views, between elements that are not."""
    constant = np.ptp(p, axis=0) <= 1e-6 * max(1.0, float(np.abs(p).max()))
    alive = ~constant
    left, right = np.maximum.accumulate(alive, 0), np.maximum.accumulate(alive[::-1], 0)[::-1]
    return constant & left & right


def starved_elements(p: np.ndarray, still: np.ndarray) -> np.ndarray:
    """bool (columns, rows): as high as anything in all views, beside high ones, where a shadow may stay."""
    top = float(p.max())
    at_top = one_value(p) & (p.min(0) >= top - 1e-6 * max(1.0, abs(top)))
    starved = np.zeros_like(at_top)
    for row in np.flatnonzero(at_top.any(0)):
        for start, stop in runs(at_top[:, row]):
            beside = p[:, [start - 1, stop], row].mean(0)
            starved[start:stop, row] = still[start:stop].any() and (beside > HIGH * top).all()
    return starved


def far_above_neighbours(p: np.ndarray, still: np.ndarray) -> np.ndarray:
    """bool (columns, rows): at most WIDEST_GAP beside each other, high and far above both neighbours in all views.

    None where a shadow may stay.
    """
    found = np.zeros(p.shape[1:], bool)
    if len(p) < FEW_VIEWS:
        return found
    least, top = p.min(0), float(p.max())
    high = least > max(HIGH * top, FAR_ABOVE)
    for row in np.flatnonzero(high.any(0)):
        for start, stop in runs(high[:, row]):
            if start == 0 or stop == len(high) or stop - start > WIDEST_GAP or still[start:stop].any():
                continue
            within = p[:, start:stop, row].min(1)
            found[start:stop, row] = all(float((within - p[:, i, row]).min()) > FAR_ABOVE for i in (start - 1, stop))
    return found


def with_dead_filled(p: np.ndarray, still: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Projections (views, columns, rows) with dead elements interpolated along the columns; which; and what to say.

    Args:
        still: bool (columns,) of `may_stay`; by default a shadow may stay anywhere.

    Raises:
        ValueError: more than WIDEST_GAP neighbouring columns are dead.
    """
    still = np.ones(p.shape[1], bool) if still is None else still
    dead, said = dead_elements(p, still), starvation(p, still)
    if not dead.any():
        return p, dead, said
    names = listed(dead)
    why = "have one value in all views" if one_value(p)[dead].all() else "are far above their neighbours in all views"
    gap = max(longest_run(row) for row in dead.T)
    if gap > WIDEST_GAP:
        raise ValueError(
            f"{names} {why}, up to {gap} beside each other: the detector is dead there, and at "
            f"most {WIDEST_GAP} are filled in; leave those columns out, or repair them"
        )
    mended = f"{names} {why}: the detector is dead there, and they are interpolated from their neighbours; repair them"
    return interpolated(p, dead), dead, [*said, mended]


def interpolated(p: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Projections (views, columns, rows) with lost elements, bool (columns, rows), interpolated along the columns."""
    filled, index = p.copy(), np.arange(p.shape[1])
    for row in np.flatnonzero(lost.any(0)):
        here = lost[:, row]
        for view in filled:
            view[here, row] = np.interp(index[here], index[~here], view[~here, row])
    return filled


def starvation(p: np.ndarray, still: np.ndarray) -> list[str]:
    """A sentence if no photons arrive at some elements in all views."""
    starved = starved_elements(p, still)
    if not starved.any():
        return []
    share = float((p >= p.max() - 1e-6 * abs(float(p.max()))).mean())
    return [
        f"{listed(starved)} are at the largest line integral, {float(p.max()):.3g}, in all views, as where metal lets "
        f"no photons through; {share:.1%} of the rays are starved so, and what lies behind is denser than it seems"
    ]


def listed(elements: np.ndarray) -> str:
    """The columns of elements, bool (columns, rows), in words."""
    columns = np.flatnonzero(elements.any(1))
    return f"{len(columns)} columns ({', '.join(map(str, columns[:6]))}{', ...' if len(columns) > 6 else ''})"


def runs(flags: np.ndarray) -> np.ndarray:
    """(n, 2): where runs of true values begin, and one after where they end."""
    return np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]]))).reshape(-1, 2)


def longest_run(flags: np.ndarray) -> int:
    """Of true values."""
    return int(np.diff(runs(flags), axis=1).max(initial=0))
