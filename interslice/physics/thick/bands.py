"""Bands of interleaved slices: a scale per package, estimated place by place and divided out.

    y_k(r) = exp(g_p(r)) x_k(r),   p = k mod P,   sum_p g_p = 0
    c_k = log y_k - (log y_{k-1} + log y_{k+1}) / 2,   M_p(r) = robust local mean of c_k over k mod P = p in flat tissue
    g = C^+ M,   C_pq = [q = p] - ([q = p - 1] + [q = p + 1]) / 2,   indices mod P

Slices k of a scan (X, Y, Z) along its thick axis were acquired in P packages (odd slices, then even ones), each with
an own gain: of the receiver, of saturation by the neighbours. g_p changes smoothly with the place. A slice is compared
with what its neighbours say of it, which anatomy that changes steadily leaves at 0; what it changes otherwise does not
know the package, and C^+ takes out the mean over all of them. The local mean is Huber's, by rounds: of what is left of
c_k, clipped about the last round's g. A round also makes up for what smoothing took off g (Tukey's twicing).

Whether there are bands is asked of one number per step, m_k = median of log y_{k+1} - log y_k: the power of m at the
frequencies j / P that packages have, against that of the frequencies beside them, where anatomy and noise are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d, uniform_filter, zoom

from interslice.physics.foreground import foreground_threshold

MOST = 4
"""Packages that are looked for, at most."""
SLICES = 4
"""Slices of each package, at least: fewer do not tell it from anatomy."""
FLAT = 0.5
"""Part of the tissue that counts as flat: that with the smallest changes within the slices."""
OUTLIER = 1.0
"""What is left of c_k is clipped at so many robust deviations: the efficiency of a mean, the outliers of a median."""
CELL_MM, REACH_MM, REACH_SLICES, ROUNDS = 4.0, 24.0, 9.0, 3
"""Cells of the field, the deviations of the Gaussian that it is smoothed by within slices and across, and rounds.

Chosen on simulated bands that change at random over the head: less smoothing follows bands, and anatomy too."""
PRIOR_SHARE = 0.02
"""Weight of the whole scan's mean in a cell: it decides where there is no flat tissue near."""
NEGATIVE = 0.1
"""Share of the largest intensity that the smallest may lie below 0: interpolation swings over; air of CT is -1000."""
POWER, STEP, BESIDE = 20.0, 0.006, 0.2
"""Of bands that are found: power over that of frequencies up to BESIDE away, and the logarithmic step, at least.

By trial on simulated scans without bands."""


@dataclass(frozen=True, eq=False)
class Bands:
    """What makes the slices of a scan bright and dark in turn.

    Attributes:
        axis: the thick axis.
        packages: P; 1 where there are no bands.
        step: range of the mean scales exp(g_p), as a share: 0.04 for slices 4 percent brighter than their neighbours.
        field: (P, A, B, K) logarithms g_p on coarse cells of the slices (A, B), per slice; None where P is 1.
    """

    axis: int
    packages: int = 1
    step: float = 0.0
    field: np.ndarray | None = None

    def evened(self, voxels: torch.Tensor) -> torch.Tensor:
        """The scan (X, Y, Z) without its bands, and with the same mean; itself where there are none."""
        if self.packages == 1:
            return voxels
        slices = voxels.movedim(self.axis, 0)
        even = torch.empty_like(slices)
        for k, plane in enumerate(slices):  # one by one: a field of the scan's size would be another copy
            even[k] = plane * torch.from_numpy(np.exp(-self._plane(k, plane.shape))).to(plane)
        mean = float(even.double().mean())
        if mean:
            even *= float(slices.double().mean()) / mean
        return even.movedim(0, self.axis).contiguous()

    def _plane(self, k: int, shape: tuple[int, int]) -> np.ndarray:
        """g of slice k at its voxels; cells are means of blocks, so that their middles are half a block in."""
        coarse = self.field[k % self.packages, :, :, k]
        return zoom(coarse, [n / m for n, m in zip(shape, coarse.shape)], order=1, mode="nearest", grid_mode=True)

    def __str__(self) -> str:
        every = {2: "every other slice", 3: "every third slice"}.get(self.packages, f"every {self.packages}th slice")
        return f"{every} is {100 * self.step:.2g} percent brighter than the darkest package"


def find_bands(voxels: torch.Tensor, axis: int, packages: int | str = "auto", spacing=(1.0, 1.0, 1.0)) -> Bands:
    """The bands of a scan.

    Args:
        voxels: (X, Y, Z), intensities with air near 0.
        axis: the thick axis.
        packages: P from 1, or "auto": 2 to MOST if the test finds bands, else 1.
        spacing: (3) voxel size in mm.

    Raises:
        ValueError: more packages than half the slices, or intensities below 0, as of CT.
    """
    count = voxels.shape[axis]
    if packages == 1 or (packages == "auto" and count < 2 * SLICES):
        return Bands(axis)
    if packages != "auto" and packages > count // 2:
        raise ValueError(f"{count} slices are not {packages} packages of two and more: lower --operator#packages")
    if float(voxels.min()) < -NEGATIVE * float(voxels.max()):
        if packages == "auto":
            return Bands(axis)
        raise ValueError(
            f"its intensities go down to {float(voxels.min()):.4g}, and packages differ by a factor, which only "
            "intensities from 0 show: --operator#packages 1"
        )
    slices = np.ascontiguousarray(voxels.movedim(axis, 0).cpu().numpy(), dtype=np.float32)
    in_plane = [s for a, s in enumerate(spacing) if a != axis]
    steps, flat = flat_steps(slices)
    medians = np.array([np.median(s[f]) if f.any() else np.nan for s, f in zip(steps, flat)])
    if packages == "auto":
        packages = _tested(medians)
        if packages == 1:
            return Bands(axis)
    field, step = _field(steps, flat, packages, in_plane)
    return Bands(axis, packages, step, field)


def flat_steps(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log y_{k+1} - log y_k (K - 1, A, B), and where both slices are flat tissue."""
    threshold = max(foreground_threshold(slices), 1e-6 * float(slices.max()), 1e-30)
    smooth = np.stack([uniform_filter(s, 3) for s in slices])
    slope = np.stack([np.hypot(*np.gradient(s)) for s in smooth])
    slope /= np.maximum(smooth, threshold)
    tissue = smooth > threshold
    limit = np.quantile(slope[tissue], FLAT) if tissue.any() else 0.0
    inside = tissue & (slope <= limit)
    logs = np.log(np.maximum(slices, 0.1 * threshold))
    return np.diff(logs, axis=0), inside[1:] & inside[:-1]


def _tested(medians: np.ndarray) -> int:
    """P of the packages whose frequency stands out of the spectrum of the slices' median steps, or 1."""
    known = np.isfinite(medians)
    if known.sum() < 2 * SLICES:
        return 1
    first, last = np.flatnonzero(known)[[0, -1]]
    m = np.where(known, medians, 0.0)[first : last + 1]
    deviation = 1.4826 * np.median(np.abs(m - np.median(m)))
    m = np.clip(m, np.median(m) - 4 * deviation, np.median(m) + 4 * deviation)
    window = np.hanning(len(m) + 2)[1:-1]
    k = np.arange(len(m))

    def power(frequency):
        wave = np.exp(-2j * np.pi * frequency * k)
        # The level of a band is its step over |1 - exp(-2 pi i f)|.
        return abs((window * (m - m.mean())) @ wave / window.sum() / (2 * np.sin(np.pi * frequency))) ** 2

    for packages in range(MOST, 1, -1):  # four packages may also show the frequency of two
        if len(m) < SLICES * packages:
            continue
        own = [j / packages for j in range(1, packages // 2 + 1) if math.gcd(j, packages) == 1]
        width = 2.5 / len(m)  # of the window's main lobe, and some
        apart = {f: min(abs(f - o) for o in own) for f in np.linspace(0.1, 0.5, 81)}
        beside = [f for f, away in apart.items() if width < away < BESIDE]
        if not beside:  # too few slices to tell frequencies apart
            continue
        level = np.mean([power(f) for f in beside])
        best = max(power(f) for f in own)
        if best > POWER * level and 2 * np.sqrt(best) > STEP:
            return packages
    return 1


def _field(steps: np.ndarray, flat: np.ndarray, packages: int, spacing) -> tuple[np.ndarray, float]:
    """g (P, A', B', K) on cells, and the range of the mean scales."""
    size, count = [max(1, round(CELL_MM / s)) for s in spacing], len(steps) + 1
    own = np.arange(count) % packages
    curve = np.eye(packages) - (np.roll(np.eye(packages), 1, 0) + np.roll(np.eye(packages), -1, 0)) / 2
    inverse = np.linalg.pinv(curve)

    def compared(k: int) -> tuple[np.ndarray, np.ndarray]:
        """c_k (A, B), and where it counts."""
        return (steps[k - 1] - steps[k]) / 2, flat[k - 1] & flat[k]

    inner = range(1, count - 1)
    values = [[c[w] for k in inner if own[k] == p for c, w in [compared(k)]] for p in range(packages)]
    values = [np.concatenate(v) if v else np.zeros(0) for v in values]
    means = inverse @ [float(np.median(v)) if v.size else 0.0 for v in values]
    left = np.abs(np.concatenate([v - m for v, m in zip(values, curve @ means)]))
    width = OUTLIER * 1.4826 * float(np.median(left)) if left.size else 0.0
    inside = max(float(np.mean(left < width)), 0.1) if left.size else 1.0  # a clipped mean moves by so much of a shift

    cells = (count, *_cells(steps.shape[1:], size))
    weight, total = np.zeros((2, *cells))
    for k in inner:
        weight[k] = _block_sum(compared(k)[1].astype(np.float32), size)
    reach = [n * s for n, s in zip(size, spacing)]
    packaged = [(own == p)[:, None, None] for p in range(packages)]
    near = [_smoothed(weight * mine, reach) + PRIOR_SHARE * size[0] * size[1] / packages for mine in packaged]
    gains = np.broadcast_to(means[:, None, None, None], (packages, *cells)).copy()
    for _ in range(ROUNDS):
        for k in inner:
            c, where = compared(k)
            c -= _spread(np.tensordot(curve[own[k]], gains[:, k], 1), size, c.shape)
            total[k] = _block_sum(np.where(where, c.clip(-width, width), 0), size)
        local = np.stack([_smoothed(total * mine, reach) / n for mine, n in zip(packaged, near)])
        gains += np.tensordot(inverse, local, 1) / inside
    return gains.transpose(0, 2, 3, 1).astype(np.float32), float(np.exp(means.max() - means.min()) - 1)


def _cells(shape, size) -> tuple[int, int]:
    return tuple(-(-n // k) for n, k in zip(shape, size))


def _block_sum(plane: np.ndarray, size) -> np.ndarray:
    for axis, k in enumerate(size):
        plane = np.add.reduceat(plane, np.arange(0, plane.shape[axis], k), axis=axis)
    return plane


def _spread(cells: np.ndarray, size, shape) -> np.ndarray:
    """The other way: (A', B') to (A, B)."""
    return cells.repeat(size[0], 0).repeat(size[1], 1)[: shape[0], : shape[1]]


def _smoothed(cells: np.ndarray, size) -> np.ndarray:
    """(K, A', B') smoothed across slices and within."""
    across = gaussian_filter1d(cells, REACH_SLICES, axis=0, mode="constant")
    return gaussian_filter(across, (0, *(REACH_MM / s for s in size)), mode="constant")
