"""Detector elements that tell nothing: found, and filled in from their neighbours.

An element is dead if it has one value in all views while others on both sides of it, in its row, have not. That cannot
be an object's shadow: what does not look the same from all sides moves over every column up to its edge.
"""

from __future__ import annotations

import numpy as np

WIDEST_GAP = 8
"""So many neighbouring columns are filled in; what lies across more is not known."""


def dead_elements(p: np.ndarray) -> np.ndarray:
    """bool (columns, rows) of projections (views, columns, rows)."""
    constant = np.ptp(p, axis=0) <= 1e-6 * max(1.0, float(np.abs(p).max()))
    alive = ~constant
    left, right = np.maximum.accumulate(alive, 0), np.maximum.accumulate(alive[::-1], 0)[::-1]
    return constant & left & right


def with_dead_filled(p: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Projections (views, columns, rows) with dead elements interpolated along the columns, and a sentence if any.

    Raises:
        ValueError: more than WIDEST_GAP neighbouring columns are dead.
    """
    dead = dead_elements(p)
    if not dead.any():
        return p, []
    columns = np.flatnonzero(dead.any(1))
    names = f"{len(columns)} columns ({', '.join(map(str, columns[:6]))}{', ...' if len(columns) > 6 else ''})"
    gap = max(longest_run(row) for row in dead.T)
    if gap > WIDEST_GAP:
        raise ValueError(
            f"{names} have one value in all views, up to {gap} beside each other: the detector is dead there, and at "
            f"most {WIDEST_GAP} are filled in; leave those columns out, or repair them"
        )
    filled, index = p.copy(), np.arange(p.shape[1])
    for row in np.flatnonzero(dead.any(0)):
        lost = dead[:, row]
        for view in filled:
            view[lost, row] = np.interp(index[lost], index[~lost], view[~lost, row])
    return filled, [
        f"{names} have one value in all views: the detector is dead there, and they are interpolated from their "
        "neighbours; better repair them"
    ]


def longest_run(flags: np.ndarray) -> int:
    """Of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags, [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
