"""Which of the views along a helix a voxel is reconstructed from.

    share = f(q) / sum over all views k that see the voxel along the same line, or nearly so, of f(q_k)

q is where the voxel lies between the middle (0) and the edge (1) of the detector's rows, f falls from 1 to 0 between
q = `FULL` and 1. Those views are at theta + 2 pi k and, from the other side, at theta + pi - 2 gamma + 2 pi k, where
gamma is the voxel's fan angle. After weighted filtered back-projection (Stierstorfer et al., "Weighted FBP: a simple
approximate 3D FBP algorithm for multislice spiral CT with good dose usage for arbitrary pitch", Phys. Med. Biol. 2004),
without its resampling to parallel rays. As there the cone angle is not accounted for: the result is approximate.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from interslice.physics.ct.geometry import ScanGeometry
from interslice.physics.ct.redundancy import TURN, angular_steps, source_angle

FULL = 0.6
"""Where on the detector, from its middle to its edge, views begin to count less."""


class Helix:
    """The turns of a helical scan, for `shares`.

    Args:
        geometry: a helical cone beam.
    """

    def __init__(self, geometry: ScanGeometry) -> None:
        self.theta = (geometry.unwrapped + source_angle(geometry)).numpy()
        order = np.argsort(self.theta, kind="stable")
        self.sorted = self.theta[order]
        self.height = geometry.per_view("source_row_offset").numpy()[order]
        # The middle of the rows above the source.
        self.middle = (geometry.per_view("row_offset") - geometry.per_view("source_row_offset")).tolist()
        self.half = geometry.num_rows * geometry.row_size / 2
        iso, det = (geometry.per_view(name) for name in ("source_to_isocenter", "source_to_detector"))
        reach = 2 * self.half * float((iso / det).max())
        turns = (self.sorted[-1] - self.sorted[0]) / TURN
        pitch = float(np.ptp(self.height)) / turns
        self.turns = math.ceil(min(turns, 2 * reach / pitch + 1))
        self.margin = float(angular_steps(geometry).max()) / 2
        self.flat = geometry.detector == "flat"
        self.iso, self.det = iso.tolist(), det.tolist()

    def slices(self, view: int, z: torch.Tensor, nearest: float, farthest: float) -> slice:
        """Those of the slices at heights z that a view sees, of voxels at distances from `nearest` to `farthest`."""
        source = float(self.height[np.searchsorted(self.sorted, self.theta[view])])
        edges = [(self.middle[view] + side * self.half) / self.det[view] * distance
                 for side in (-1, 1) for distance in (nearest, farthest)]  # fmt: skip
        seen = ((z > source + min(edges)) & (z < source + max(edges))).nonzero().flatten().tolist()
        return slice(seen[0], seen[-1] + 1) if seen else slice(0, 0)

    def shares(self, view: int, across: torch.Tensor, depth: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """(pixels, slices) shares of a view.

        Args:
            across, depth: (pixels,) position seen from the source, along u and d.
            z: (slices,) heights.
        """
        iso, offset = self.iso[view], float(self.theta[view])
        length = torch.hypot(across, depth)
        gamma = torch.atan2(across, depth)
        other = (2 * iso * torch.cos(gamma) - length).clamp_min(1e-3 * iso)  # from the source on the other side
        zero = torch.zeros_like(gamma)
        own = self._worth(view, zero + offset, length, gamma, z)
        total = own.clone()
        for k in range(-self.turns, self.turns + 1):
            if k:
                total += self._worth(view, zero + (offset + k * TURN), length, gamma, z)
            total += self._worth(view, offset + math.pi - 2 * gamma + k * TURN, other, gamma, z)
        return own / total.clamp_min(1e-6)

    def _worth(self, view: int, theta: torch.Tensor, length: torch.Tensor, gamma: torch.Tensor, z: torch.Tensor):
        """f(q) for views at angles theta (pixels,), 0 for angles without a view."""
        there = (theta >= self.sorted[0] - self.margin) & (theta <= self.sorted[-1] + self.margin)
        if not bool(there.any()):
            return z.new_zeros(len(theta), len(z))
        source = torch.from_numpy(np.interp(theta.double().cpu().numpy(), self.sorted, self.height)).to(z)
        distance = length * torch.cos(gamma) if self.flat else length
        b = (z - source[:, None]) * (self.det[view] / distance)[:, None]
        q = (b - self.middle[view]).abs() / self.half
        fall = torch.cos(math.pi / 2 * ((q - FULL) / (1 - FULL)).clamp(0, 1)).square()
        return fall * there[:, None]
