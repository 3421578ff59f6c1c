"""Thick slices: each is the weighted mean of the volume along one axis.

    y_k = sum_j W_kj x_j,   W_kj = integral over voxel j of p(z - c_k) dz / its sum over j

z is the position along the thick axis in mm, c_k = c_0 + k (thickness + gap) the centre of thick slice k, and p the
slice profile (interslice.physics.thick.profile): a box of width `thickness`, or what is that wide at half maximum. W is
a small (K, N) matrix, so everything is closed form along the axis:

    A^+ y       = W^+ y                                                     pseudo-inverse (SVD)
    prox(x, y)  = x + W^T (W W^T + rho I)^-1 (y - W x)                      proximal step
    smooth(y)   = argmin |D^2 x|^2  subject to  W x = y                      the least curved volume with that data

Grid convention: fine voxel 0 begins where thick slice 0 begins, and the fine grid ends with the voxel that contains
the end of the last thick slice. Volumes are (..., X, Y, Z) in any units, which the weighted mean keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from interslice.files.memory import array_bytes
from interslice.physics.blocks import block_means
from interslice.physics.linear_operator import LinearOperator, check_rho
from interslice.physics.noise_level import noise_deviation, noise_norm
from interslice.physics.thick.profile import Profile, cumulative

MIN_RATIO = 1.5
"""Distance of slices in voxels, at least: below 1 they would determine more than there is, at 1 nothing is missing."""
SLACK = 1e-6
"""Of the limits of a ratio, which is computed."""
SINGULAR_CUTOFF = 1e-3
"""Relative cutoff of the pseudo-inverse: a Gaussian profile hardly passes the finest detail of its slices."""


def slice_weights(
    num_fine: int, spacing: float, num_thick: int, pitch: float, thickness: float, profile: Profile = "box"
) -> torch.Tensor:
    """The matrix W (num_thick, num_fine), float64, rows summing to 1.

    Args:
        num_fine, spacing: fine voxels and their size in mm; voxel 0 begins at 0.
        num_thick, pitch: thick slices and the distance of their centres in mm; slice 0 begins at 0.
        thickness: full width of a slice at half maximum, in mm; its middle lies half of that past its begin.
        profile: "box", "gaussian", "sinc", or a Table.

    A slice that reaches past the fine grid keeps the part that is inside, scaled to sum 1.
    """
    edges = torch.arange(num_fine + 1, dtype=torch.float64) * spacing
    centres = thickness / 2 + torch.arange(num_thick, dtype=torch.float64) * pitch
    z = edges[None, :] - centres[:, None]
    weights = cumulative(profile, z, thickness).diff(dim=1)
    return weights / weights.sum(1, keepdim=True)


class ThroughPlane(LinearOperator):
    """Weighted means along one axis of a volume.

    Args:
        domain_shape: (X, Y, Z) of the fine volume.
        axis: the thick axis, 0, 1 or 2.
        weights: (K, N) matrix with N = domain_shape[axis]; range_shape has K there.
        spacing, pitch, thickness: in mm along the axis, for the affines; see `slice_weights`.
        voxel_size: (3) of the fine volume, in mm; by default cubes of `spacing`.
    """

    units = "the volume's own (a weighted mean)"
    smaller = "larger voxels (--operator#spacing)"
    misfit_limit = 0.05
    misfit_causes = "a thickness, gap or profile that is not the scan's, or a solver that does not follow noisy slices"

    def __init__(self, domain_shape: tuple[int, int, int], axis: int, weights: torch.Tensor, spacing: float,
                 pitch: float, thickness: float, voxel_size: Sequence[float] | None = None) -> None:  # fmt: skip
        shape = list(domain_shape)
        if weights.shape[1] != shape[axis]:
            raise ValueError(
                f"weights have {weights.shape[1]} columns, but the volume has {shape[axis]} voxels along axis {axis}"
            )
        shape[axis] = weights.shape[0]
        super().__init__(domain_shape, tuple(shape))
        self.axis = self.averaged_axis = axis
        self.weights = weights.double()
        self.slice_axes = self.separable_axes = tuple(a for a in range(3) if a != axis)
        self.spacing, self.pitch, self.thickness = float(spacing), float(pitch), float(thickness)
        self.voxel_size = tuple(float(s) for s in voxel_size or (spacing, spacing, spacing))
        self.gains = tuple(min(self.voxel_size) / s for s in self.voxel_size)
        limits = [math.inf] * 3
        limits[axis] = max(1, math.floor(self.pitch / (MIN_RATIO * self.spacing) + SLACK))
        self.block_limits = tuple(limits)
        self._cast: dict[tuple, torch.Tensor] = {}

    # -- the operator -----------------------------------------------------------------------------
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        return self._along(x, "forward")

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        return self._along(y, "adjoint")

    # Closed forms: no iterations, and nothing to tolerate.
    def pseudo_inverse(
        self, y: torch.Tensor, x: torch.Tensor | None = None, iterations: int = 0, tolerance: float = 0.0
    ) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        if x is None:
            return self._along(y, "pseudo_inverse")
        return self._along(y - self.forward(x), "pseudo_inverse").add_(x)

    def prox(
        self, x: torch.Tensor, y: torch.Tensor, rho: float, iterations: int = 0, tolerance: float = 0.0
    ) -> torch.Tensor:
        check_rho(rho)
        return self._along(y - self.forward(x), rho).add_(x)

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """The least curved volume (along the axis) that agrees with the data."""
        self._check(y, self.range_shape, "measurement")
        return self._along(y, "smooth")

    def noise_norm(self, y: torch.Tensor) -> float:
        """From differences of neighbouring voxels within slices."""
        return noise_norm(y, dim=self.slice_axes[0])

    def noise_deviation(self, y: torch.Tensor) -> float:
        """From the finest detail within slices."""
        return noise_deviation(y, self.slice_axes)

    def _norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.weights, 2))

    def _range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        """Cut across the other axes: all positions in a slice are alike, and a part shares all matrices."""
        return tuple(slice(0, self.range_shape[a]) if a == self.axis else s for a, s in enumerate(box))

    def coarser(self, factors: Sequence[int]) -> ThroughPlane:
        """The same slices of a volume that is made of blocks of `factors` (3) voxels, rounded up to whole blocks."""
        shape = tuple(math.ceil(n / k) for n, k in zip(self.domain_shape, factors))
        k = factors[self.axis]
        weights = F.pad(self.weights, (0, -self.weights.shape[1] % k)).unflatten(1, (-1, k)).sum(2)
        voxel_size = [n * s for n, s in zip(factors, self.voxel_size)]
        coarse = ThroughPlane(shape, self.axis, weights, k * self.spacing, self.pitch, self.thickness, voxel_size)
        return coarse.with_guide(None if self.guide is None else block_means(self.guide, factors))

    def working_bytes(self) -> float:
        return super().working_bytes() if self.axis != 2 else array_bytes(self.range_shape)

    def solving_bytes(self) -> float:
        """A closed form: the residual, and what is added to x."""
        return array_bytes(self.domain_shape) + 2 * array_bytes(self.range_shape) + self.working_bytes()

    # -- geometry ---------------------------------------------------------------------------------
    def __str__(self) -> str:
        return f"slices {self.pitch:g} mm apart, {self.thickness:.4g} mm thick, reconstructed at {self.spacing:g} mm"

    def domain_affine(self, range_affine: torch.Tensor) -> torch.Tensor:
        """Affine (4, 4) of the fine volume, given the affine of the thick one; every voxel stays in place."""
        # Position of fine voxel 0, counted in thick slices from the centre of thick slice 0.
        first = (self.spacing - self.thickness) / 2 / self.pitch
        return range_affine.double() @ self._axis_map(self.spacing / self.pitch, first)

    def range_affine(self, domain_affine: torch.Tensor) -> torch.Tensor:
        """Affine (4, 4) of the thick volume, given the affine of the fine one."""
        first = (self.thickness - self.spacing) / 2 / self.spacing
        return domain_affine.double() @ self._axis_map(self.pitch / self.spacing, first)

    def _axis_map(self, scale: float, offset: float) -> torch.Tensor:
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[self.axis, self.axis], matrix[self.axis, 3] = scale, offset
        return matrix

    # -- matrices along the axis ------------------------------------------------------------------
    def _along(self, x: torch.Tensor, name: str | float) -> torch.Tensor:
        """Multiply the named matrix along the thick axis."""
        key = (name, x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = self._matrix(name).to(x.device, x.dtype)
        dim = x.ndim - 3 + self.axis
        return torch.matmul(x.movedim(dim, -1), self._cast[key].T).movedim(-1, dim)

    def _matrix(self, name: str | float) -> torch.Tensor:
        w = self.weights
        if name == "forward":
            return w
        if name == "adjoint":
            return w.T
        if name == "pseudo_inverse":
            return torch.linalg.pinv(w, rtol=SINGULAR_CUTOFF)
        if name == "smooth":
            return self._smooth()
        return w.T @ torch.linalg.inv(w @ w.T + name * torch.eye(len(w), dtype=w.dtype))

    def _smooth(self) -> torch.Tensor:
        w, n = self.weights, self.weights.shape[1]
        identity = torch.eye(n, dtype=w.dtype)
        second = identity[:-2] - 2 * identity[1:-1] + identity[2:] if n > 2 else identity[:0]
        curvature = second.T @ second + 1e-8 * identity
        # Lagrange multipliers: [C W^T; W 0] [x; m] = [0; y].
        k = len(w)
        system = torch.cat([torch.cat([curvature, w.T], 1), torch.cat([w, w.new_zeros(k, k)], 1)])
        return torch.linalg.solve(system, torch.cat([w.new_zeros(n, k), torch.eye(k, dtype=w.dtype)]))[:n]
