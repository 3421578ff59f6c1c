"""In-plane resolution that is less than the voxels say: where the spectrum of the slices ends.

    E(f) = mean over slices and the other frequency of |FFT(w y)|^2,   cycles per mm from 0 to 1 / (2 voxel)
    f_c  = the frequency at which log E falls most from just below to just above;   resolution 1 / (2 f_c)

A scanner that measures fewer frequencies than its images have pixels fills the rest with zeros (ZFI, "interpolation
512"). The voxels are smaller then, and the image no sharper. Anatomy falls smoothly towards high frequencies, noise not
at all: only a filled spectrum has an edge. w is a Hann window, or the border of the image would be an edge itself.
"""

from __future__ import annotations

import numpy as np
import torch

FALL = 12.0
"""Times that the power falls at an edge, at least, beyond what it falls by next to it."""
NEAR, GAP = 0.08, 0.03
"""Part of the spectrum that is compared on both sides of an edge, and what is left out between: edges are soft."""
LEAST = 0.25
"""Part of the spectrum below which no edge is looked for."""
SMALLEST = 64
"""Pixels of a side: fewer have too few frequencies."""
SLICES = 12
"""That are looked at, in the middle of the scan."""


def in_plane_resolution(voxels: torch.Tensor, axis: int, spacing) -> tuple[float, float] | None:
    """What is resolved along both in-plane axes in mm: the voxel size where no edge is; None where neither has one.

    Args:
        voxels: (X, Y, Z).
        axis: the thick axis.
        spacing: (3) voxel size in mm.
    """
    slices = voxels.movedim(axis, 0).cpu().numpy()
    middle = len(slices) // 2
    slices = slices[max(0, middle - SLICES // 2) : middle + SLICES // 2].astype(np.float32)
    fine = [float(s) for a, s in enumerate(spacing) if a != axis]
    if min(slices.shape[1:]) < SMALLEST:
        return None
    window = np.multiply.outer(*(np.hanning(n) for n in slices.shape[1:])).astype(np.float32)
    power = np.square(np.abs(np.fft.fft2((slices - slices.mean()) * window))).mean(0)
    shares = [_edge(power.mean(1 - a)) for a in range(2)]
    if shares == [1.0, 1.0]:
        return None
    return tuple(s / share for s, share in zip(fine, shares))


def _edge(power: np.ndarray) -> float:
    """The edge of a spectrum (N), as part of the largest frequency; 1 where there is none."""
    half = len(power) // 2
    folded = (power[1:half] + power[:-half:-1]) / 2
    if not folded.max() > 0:
        return 1.0
    logs = np.log(np.maximum(folded, 1e-30 * folded.max()))
    near, gap = max(3, round(NEAR * half)), max(1, round(GAP * half))
    falls = np.full(len(logs), -np.inf)
    for c in range(int(LEAST * half), len(logs) - near - gap):
        below, above = logs[c - gap - near : c - gap], logs[c + gap : c + gap + near]
        slope = abs(below[: near // 2].mean() - below[-(near // 2) :].mean()) * 2 * (near + 2 * gap) / near
        falls[c] = below.mean() - above.mean() - slope
    best = int(np.argmax(falls))
    return (best + 1) / half if falls[best] > np.log(FALL) else 1.0
