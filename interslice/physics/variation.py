"""The differences whose lengths total variation adds up; with a guide, those that the guide does not explain.

    (G x)_a = g_a D_a x            D_a the forward difference along axis a, none at the last voxel; g_a its gain
    D x     = P G x                P = I - xi xi^T in each voxel
    xi      = G v / sqrt(|G v|^2 + e^2)                    v the guide, e = EDGE in its units; 0 without a guide

Where the guide has an edge, |xi| is near 1 and P keeps the part of the gradient that lies within the edge: a change of
x across it, of either sign and any height, is free, so that volumes of other contrasts share edges. Where the guide is
flat, xi is near 0 and the variation is that without a guide: an edge of x alone costs what it did. P is symmetric, with
eigenvalues 1 and 1 - |xi|^2, so that |P| <= 1 and |D|^2 <= |G|^2 <= 4 sum g^2.

(Directional total variation: Ehrhardt and Betcke, "Multicontrast MRI reconstruction with structure-guided total
variation", SIAM J. Imaging Sciences 9(3), 2016, equations 2.8 and 2.10.) Volumes are (..., X, Y, Z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

EDGE = 0.1
"""e: a difference of neighbouring voxels of the guide, whose range is 2, of which half is an edge."""


def differences(x: torch.Tensor, axes: Sequence[int] = (-3, -2, -1)) -> torch.Tensor:
    """Forward differences along each axis, stacked in front; zero at the far border."""
    out = x.new_zeros(len(axes), *x.shape)
    for d, axis in zip(out, axes):
        n = x.shape[axis]
        torch.sub(x.narrow(axis, 1, n - 1), x.narrow(axis, 0, n - 1), out=d.narrow(axis, 0, n - 1))
    return out


def differences_adjoint(q: torch.Tensor, axes: Sequence[int] = (-3, -2, -1)) -> torch.Tensor:
    """The adjoint of `differences`: minus the divergence."""
    x = q.new_zeros(q.shape[1:])
    for d, axis in zip(q, axes):
        n = x.shape[axis]
        inner = d.narrow(axis, 0, n - 1)
        x.narrow(axis, 1, n - 1).add_(inner)
        x.narrow(axis, 0, n - 1).sub_(inner)
    return x


@dataclass(frozen=True, eq=False)
class Variation:
    """D above, for volumes of any place and type.

    Args:
        gains: g of each axis, for voxels that are not cubes.
        guide: v, (X, Y, Z) of the volume's grid, in a range of 2; NaN where it shows nothing, and has no edge. None for
            no guide.
        edge: e.
    """

    BYTES = 5
    """Volumes that a guide takes while it is at work: itself, three of xi, and the inner product with it."""

    gains: Sequence[float] = (1.0, 1.0, 1.0)
    guide: torch.Tensor | None = None
    edge: float = EDGE

    def on(self, x: torch.Tensor) -> Differences:
        """At work on volumes such as x: of its type, and where it lies."""
        gain = torch.tensor(self.gains, dtype=x.dtype, device=x.device).view(-1, *[1] * x.ndim)
        return Differences(gain, None if self.guide is None else self.field(x))

    def field(self, x: torch.Tensor) -> torch.Tensor:
        """xi (3, X, Y, Z), of the type of x and where it lies; raises ValueError where x is of another grid."""
        if tuple(self.guide.shape) != tuple(x.shape[-3:]):
            raise ValueError(
                f"the guide has {tuple(self.guide.shape)} voxels, and the volume {tuple(x.shape[-3:])}: give the "
                "operator a guide on the grid of its volumes"
            )
        xi = differences(self.guide.to(x.device, x.dtype)).nan_to_num_(0.0)
        for d, gain in zip(xi, self.gains):
            d.mul_(gain)
        return xi.div_(xi.square().sum(0).add_(self.edge**2).sqrt_())

    def total(self, x: torch.Tensor) -> float:
        """TV(x), the sum of |D x| over the voxels."""
        return float(self.on(x).of(x).square_().sum(0).sqrt_().sum())


@dataclass(frozen=True, eq=False)
class Differences:
    """D of volumes of one type in one place.

    Args:
        gain: (3, 1, ..., 1).
        xi: (3, X, Y, Z), or None for no guide.
    """

    gain: torch.Tensor
    xi: torch.Tensor | None = None

    @property
    def bound(self) -> float:
        """|D|^2, at most."""
        return 4 * float(self.gain.square().sum())

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """D x, (3, ..., X, Y, Z)."""
        return self._across(differences(x).mul_(self.gain))

    def adjoint(self, q: torch.Tensor) -> torch.Tensor:
        """D^T q for q of (3, ..., X, Y, Z), which is not changed."""
        return differences_adjoint(q * self.gain if self.xi is None else self._across(q.clone()).mul_(self.gain))

    def _across(self, q: torch.Tensor) -> torch.Tensor:
        """P q, in its place."""
        if self.xi is None:
            return q
        inner = self.xi[0] * q[0]
        for xi, part in zip(self.xi[1:], q[1:]):
            inner.addcmul_(xi, part)
        for xi, part in zip(self.xi, q):
            part.addcmul_(xi, inner, value=-1)
        return q
