"""What counts of photons say of a ray: its line integral, without a bias, and the variance of that.

    y ~ Poisson(m) + N(0, s^2),    m = I0 exp(-p)          y counts of I0 through air; s of the read-out, in photons

Many photons      p = -log((y + c) / I0),   c = 1/2 + s^2 / (2 m)
    E log(y + c) = log m + c / m - (m + s^2) / (2 m^2) + ..., so this c leaves a bias of order 1 / m^2, where the plain
    logarithm has 1 / (2 m) (Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
    Biometrika 1948, has the same step for its roots).
Few photons       p = p0 + 1 - y / m0,      first from m0, the mean of n neighbours, and p0 = -log((m0 + c / n) / I0);
                                            then from p0, the first p smoothed by local parabolas, and m0 = I0 exp(-p0)
    steps of Fisher's scoring of the likelihood: linear in y, so that no logarithm of zero is taken, readings below zero
    count as they are, and the mean is p - (p - p0)^2 / 2 + h / (2 m0); the last, with h what p0 has of its own ray, is
    taken off (the quadratic of Sauer and Bouman, "A local update strategy for iterative reconstruction from
    projections", IEEE Trans. Signal Process. 1993, about p0).
Variance          v = (m0 + s^2) / m0^2     of both; m0 of neighbours, as weights made of a ray's own count favour those
                                            that are high by chance, which draws results down by 1 / m

Neighbours are those along columns and rows of one view: as few as have `ENOUGH` photons together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter, uniform_filter1d
from scipy.signal import savgol_coeffs, savgol_filter

from interslice.files.carried import carried

ENOUGH = 100
"""Photons that neighbours of a ray amount to together, m^2 / (m + s^2) each, for its p0: known to a tenth."""
ENOUGH_TO_WEIGH = 1000
"""The same for its variance; what is left of the bias is a thousandth."""
SIZES = (1, 3, 5, 7, 9, 13, 17, 25, 33)
"""Elements along a side of the neighbourhood."""
ASTRAY = 5.0
"""Standard deviations from the neighbours' mean beyond which a count is not of their kind: an edge, a dead element."""
LEAST = 0.5
"""Photons that are taken where fewer are, and no neighbours can tell."""
ORDER = 2
"""Of the local polynomials along the columns that p0 follows."""
AT_ONCE = 2**18
"""Rays that are worked on at once, in whole views: it takes 40 arrays of them, which is little beside a scan."""
FARTHEST = 5.0
"""How far from p0 the step may lead: it is as long only where the read-out drowns what little arrives."""


@carried
@dataclass(frozen=True, eq=False)
class RayNoise:
    """Kept in the metadata of projections as "noise", from their counts to their weights.

    Attributes:
        variance: of the line integrals, (views, columns, rows), float32; infinite where nothing was measured.
    """

    variance: np.ndarray

    def changed(self, slope: np.ndarray) -> RayNoise:
        """That of f(p), where f has this slope at p."""
        return RayNoise((self.variance * np.square(slope)).astype(np.float32))

    def without(self, lost: np.ndarray) -> RayNoise:
        """The same with nothing measured at elements, bool (columns, rows)."""
        return RayNoise(np.where(lost, np.float32(np.inf), self.variance))


def as_float64(counts: np.ndarray) -> np.ndarray:
    """Counts that are photons already."""
    return counts.astype(np.float64)


def some_views(counts: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = as_float64
               ) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Which views, AT_ONCE rays or one view, and what `of` makes of their counts (some views, columns, rows)."""
    step = max(1, AT_ONCE // math.prod(counts.shape[1:]))
    for begin in range(0, len(counts), step):
        views = slice(begin, begin + step)
        yield views, of(counts[views])


def rays_of(counts: np.ndarray, air: float | np.ndarray, read_out: float = 0.0,
            photons_of: Callable[[np.ndarray], np.ndarray] = as_float64) -> tuple[np.ndarray, RayNoise]:  # fmt: skip
    """Line integrals (views, columns, rows) of counts of photons, float32, with their variance.

    Args:
        counts: (views, columns, rows), finite; zero and negative readings are data like others.
        air: I0, positive, in photons; of each element (columns, rows), or one number.
        read_out: s, standard deviation in photons.
        photons_of: what makes photons, float64, of the counts of some views.
    """
    low, high = np.full(counts.shape[1:], np.inf), np.full(counts.shape[1:], -np.inf)
    for _, y in some_views(counts, photons_of):
        np.minimum(low, y.min(0), out=low)
        np.maximum(high, y.max(0), out=high)
    air, constant = np.asarray(air, np.float64), low == high
    p, variance = np.empty(counts.shape, np.float32), np.empty(counts.shape, np.float32)
    for views, y in some_views(counts, photons_of):
        p[views], variance[views] = _rays_of(y, np.broadcast_to(air, y.shape), read_out, constant)
    return p, RayNoise(variance)


def _rays_of(y: np.ndarray, photons: np.ndarray, read_out: float, constant: np.ndarray
             ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """p and v of some views; `constant`, bool (columns, rows), are elements that have one value in all views."""
    mean, size, number = neighbours(y, photons, read_out, ENOUGH)
    offset = 0.5 * (1 + read_out**2 / np.maximum(mean, 1.0))
    first = p = scored(-np.log((mean + offset / number) / photons), y, mean)
    for window in SIZES[1:]:
        if (here := size == window).any():
            p0, own = smoothed(first, window)
            m0 = photons * np.exp(-p0)
            p = np.where(here, scored(p0, y, m0) - own * (1 + read_out**2 / m0) / (2 * m0), p)
    # Neighbours do not know of dead elements, which have one value in all views, nor of edges where few meet many.
    alone = (np.abs(y - mean) > ASTRAY * np.sqrt(mean + read_out**2)) | constant
    alone |= (size == 1) & (y < ENOUGH / 4)
    p[alone] = -np.log(np.maximum(y, LEAST) / photons)[alone]
    mean, *_ = neighbours(y, photons, read_out, ENOUGH_TO_WEIGH, others=True)
    return p, (mean + read_out**2) / np.square(mean)


def scored(p0: np.ndarray, y: np.ndarray, m0: np.ndarray) -> np.ndarray:
    """p0 + 1 - y / m0, the step of Fisher's scoring."""
    return p0 + np.clip(1 - y / m0, -FARTHEST, FARTHEST)


def smoothed(p: np.ndarray, size: int) -> tuple[np.ndarray, float]:
    """p0 of each ray, by local parabolas along the columns and means along the rows, and what its own p has of it."""
    columns, rows = (min(size, n) for n in p.shape[1:])
    own = 1.0 / rows
    if p.shape[1] >= ORDER + 3:
        columns = max(columns - 1 + columns % 2, ORDER + 3)
        p, own = savgol_filter(p, columns, ORDER, axis=1), own * savgol_coeffs(columns, ORDER)[columns // 2]
    else:
        p, own = np.broadcast_to(p.mean(1, keepdims=True), p.shape), own / p.shape[1]
    return uniform_filter1d(p, rows, axis=2, mode="mirror"), own


def neighbours(y: np.ndarray, photons: np.ndarray, read_out: float, enough: float, others: bool = False
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """m0 of each ray, the mean over neighbours that amount to `enough` photons, the size of the window, their number.

    At least as many photons as its own standard error: fewer cannot be told from none.

    Args:
        y: counts of photons (views, columns, rows).
        photons: through air, alike.
        read_out: s.
        others: that there are neighbours at all, where the ray alone would be enough.
    """
    share, mean, sizes, number = y / photons, y, np.ones(y.shape, int), np.ones_like(y)
    for size in SIZES[1:]:
        window = [min(size, n) for n in y.shape[1:]]
        several = uniform_filter(share, (0, *window), mode="mirror") * photons
        if size == SIZES[1]:  # asked of all: those that are low by chance would be read otherwise
            poor = np.ones(y.shape, bool) if others else known(several, read_out) < enough
        if not poor.any():
            break
        mean = np.where(poor, several, mean)
        sizes, number = np.where(poor, size, sizes), np.where(poor, math.prod(window), number)
        poor &= known(several, read_out) * number < enough
    error = np.sqrt((np.maximum(mean, 1 / number) + read_out**2) / number)
    return np.maximum(mean, error), sizes, number


def known(mean: np.ndarray, read_out: float) -> np.ndarray:
    """m^2 / (m + s^2): as many photons, counted without a read-out, say as much."""
    mean = np.maximum(mean, 0.0)
    return np.square(mean) / np.maximum(mean + read_out**2, 1e-12)
