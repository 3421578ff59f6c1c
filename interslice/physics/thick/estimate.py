"""How thick are slices? What the scan itself says, by its own finer axes.

    A_n(t) = mean |y_{k+n} - y_k|^2 across the slices of a scan y,  after a box of width t along an in-plane axis
    B_n(t) = the same of thick slices that are simulated along that in-plane axis: profile of thickness t, pitch p
    t^     : sum over n of log A_n / A_N  =  sum over n of log B_n / B_N,     n = 1 to N - 1

If anatomy looks alike along both axes, A and B of the true t are means over the same random field: voxels of t along
one axis, t along another and the fine one along the third, and the same noise. Thicker slices are more alike to their
neighbours, so that the difference of the two sums changes its sign once. It takes spacings of a scan, no training; the
idea to compare the axes of a scan is that of Han et al., "ESPRESO: An algorithm to estimate the slice profile of a
single magnetic resonance image", Magnetic Resonance Imaging 98 (2023), which trains a network for it.
"""

from __future__ import annotations

import numpy as np
import torch

from interslice.physics.foreground import foreground_box, foreground_threshold
from interslice.physics.thick.profile import Profile, cumulative

LAGS = (1, 2, 3)
"""Distances of slices that are compared, the last one being N."""
SHARES = tuple(0.3 * 1.17**k for k in range(13))
"""Thicknesses that are tried, as shares of the pitch: 0.3 to 2."""
FEWEST = 10
"""Slices, and simulated ones along an in-plane axis, at least."""
SIDE = 96
"""Lines of each axis that are looked at, at most: more change nothing."""


def estimated_thickness(voxels: torch.Tensor, axis: int, spacing, profile: Profile = "box") -> float | None:
    """Thickness of the slices in mm, or None where the scan does not tell it.

    Args:
        voxels: (X, Y, Z), without bands.
        axis: the thick axis.
        spacing: (3) voxel size in mm; in plane at most half the distance of the slices.
        profile: of the slices; its thickness is its width at half maximum.
    """
    pitch = float(spacing[axis])
    subject = voxels > foreground_threshold(voxels.cpu().numpy())
    slices = voxels[foreground_box(subject, share=0.05)].movedim(axis, 0).float()
    fine = [float(s) for a, s in enumerate(spacing) if a != axis]
    lengths = [n * s / pitch for n, s in zip(slices.shape[1:], fine)]
    if slices.shape[0] < FEWEST or min(lengths) < FEWEST or max(fine) > pitch / 2:
        return None
    differences = []
    for share in SHARES:
        logs = [_compared(slices, own, fine, pitch, share * pitch, profile) for own in (1, 2)]
        differences.append(np.mean(logs))
    differences = np.array(differences)
    # Too thin a trial looks rougher than the scan, too thick a one smoother: the sign changes from + to -.
    changes = np.flatnonzero((differences[:-1] > 0) & (differences[1:] <= 0))
    if len(changes) != 1:
        return None
    k = changes[0]
    weight = differences[k] / (differences[k] - differences[k + 1])
    return pitch * float(np.exp((1 - weight) * np.log(SHARES[k]) + weight * np.log(SHARES[k + 1])))


def _compared(slices: torch.Tensor, own: int, fine, pitch: float, thickness: float, profile: Profile) -> float:
    """Sum of log B_n / B_N less that of A, along the in-plane axis `own` of slices (K, A, B)."""
    size = fine[own - 1]
    other = 3 - own
    slices = _thinned(slices, other)
    across = _thinned(_averaged(slices, own, size, thickness, max(size, pitch / 2), "box"), own)
    along = _averaged(slices, own, size, thickness, pitch, profile)
    return _roughness(along, own) - _roughness(across, 0)


def _averaged(volume: torch.Tensor, axis: int, size: float, thickness: float, pitch: float, profile: Profile):
    """Slices of a thickness, a pitch apart, along an axis of voxels of `size` mm."""
    count = volume.shape[axis]
    number = int((count * size - thickness) // pitch) + 1
    edges = torch.arange(count + 1, dtype=torch.float64) * size
    centres = thickness / 2 + torch.arange(number, dtype=torch.float64) * pitch
    weights = cumulative(profile, edges[None] - centres[:, None], thickness).diff(dim=1)
    weights = (weights / weights.sum(1, keepdim=True)).float()
    return torch.matmul(volume.movedim(axis, -1), weights.T).movedim(-1, axis)


def _thinned(volume: torch.Tensor, axis: int) -> torch.Tensor:
    step = -(-volume.shape[axis] // SIDE)
    return volume[(slice(None),) * axis + (slice(None, None, step),)]


def _roughness(volume: torch.Tensor, axis: int) -> float:
    """Sum over n of log of the mean squared difference at lag n over that at lag N."""
    size = volume.shape[axis]
    means = [float((volume.narrow(axis, n, size - n) - volume.narrow(axis, 0, size - n)).square().mean()) for n in LAGS]
    return sum(np.log(max(m, 1e-30) / max(means[-1], 1e-30)) for m in means[:-1])
