"""Several stacks of thick slices as one measurement of one volume.

    y_m = r_m  sum_t w_t x(G p_m(t)),         r_m = sqrt(weight of its slice) * (reference's noise / its stack's noise)

m counts the voxels of all slices of all stacks, one after the other, slices first. p_m(t) is where voxel m was
measured, t mm off the middle of its slice (stack.py); G takes mm to voxels of the volume, where x is interpolated
trilinearly; w is the slice profile at points a voxel apart or less. |A x - y|^2 is then the weighted misfit of all
scans. A voxel of a slice that reaches beyond the volume has r = 0: what lies there is not known. The transpose spreads
what the forward reads, with the same weights, so it is exact.

With slices of a whole number of voxels along an axis of the volume, no motion and a box, A is that of thick slices
(interslice.physics.thick).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from interslice.files.memory import array_bytes
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.noise_level import noise_deviation
from interslice.physics.packages import has
from interslice.physics.stacks import slices_torch
from interslice.physics.stacks.mean import mean_of_slices
from interslice.physics.stacks.stack import Stack
from interslice.physics.thick.profile import reach, response
from interslice.usage import UsageError

BACKENDS = ("auto", "torch", "numba")
SEEN = math.cos(math.radians(30))
"""Slices whose normal is closer than 30 degrees to an axis count as lying across it."""
BORDER = 0.5 + 1e-4
"""How far beyond the middle of the first and last voxel a place is known, voxels; headers are rounded."""
NOISE_LIMITS = (0.25, 4.0)
"""Of the weight that a stack's noise gives it against the first one."""


class StackedSlices(LinearOperator):
    """Weighted means of a volume across the slices of several stacks.

    Args:
        stacks: the first is the reference.
        domain_shape: (X, Y, Z) of the volume, isotropic.
        affine: (4, 4) of the volume, voxel -> mm (RAS+).
        backend: "numba" for float32 on CPUs, "torch" for all, "auto" for numba where it is installed.
    """

    units = "the volume's own (a weighted mean)"
    smaller = "larger voxels (--operator#spacing)"
    misfit_limit = 0.08
    misfit_causes = "stacks that do not lie as assumed, another thickness, or another contrast"

    def __init__(self, stacks: Sequence[Stack], domain_shape: Sequence[int], affine: torch.Tensor,
                 backend: str = "auto") -> None:  # fmt: skip
        if not stacks:
            raise ValueError("no stack is given: a measurement has at least one")
        if backend not in BACKENDS:
            raise UsageError(f"backend must be one of {BACKENDS}, got {backend!r}")
        super().__init__(tuple(domain_shape), (sum(stack.voxels.numel() for stack in stacks),))
        self.stacks, self.affine, self.backend = tuple(stacks), affine.double(), backend
        self.slice_axes = planes_of(self.stacks, self.affine)
        self.voxel = float(self.affine[:3, 0].norm())
        self._ways = [stack.ways(torch.linalg.inv(self.affine)) for stack in self.stacks]
        self._points = [profile_points(stack, self.voxel) for stack in self.stacks]
        self.rows = self._rows()
        self._cast: dict[tuple, torch.Tensor] = {}

    def replaced(self, stacks: Sequence[Stack]) -> StackedSlices:
        """The same volume, measured by stacks that lie or count otherwise."""
        return StackedSlices(stacks, self.domain_shape, self.affine, self.backend)

    # -- the map ----------------------------------------------------------------------------------
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        batch, volumes = x.shape[:-3], x.reshape(-1, *self.domain_shape)
        kernels = self._kernels(x)
        parts = [
            kernels.sliced(volumes, ways, *points, tuple(stack.slices.shape[1:])).flatten(1)
            for stack, ways, points in zip(self.stacks, self._ways, self._points)
        ]
        return torch.cat(parts, 1).mul_(self._rows_on(x)).reshape(*batch, -1)

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        weighted = y.reshape(-1, *self.range_shape) * self._rows_on(y)
        kernels, x = self._kernels(y), None
        for ways, points, part in zip(self._ways, self._points, self._split(weighted)):
            one = kernels.spread(part, ways, *points, self.domain_shape)
            x = one if x is None else x.add_(one)
        return x.reshape(*y.shape[:-1], *self.domain_shape)

    def measurement(self) -> torch.Tensor:
        """y (M,) of the stacks: their voxels, as the rows are weighted."""
        return torch.cat([stack.slices.flatten() for stack in self.stacks]).mul_(self.rows)

    def split(self, y: torch.Tensor) -> list[torch.Tensor]:
        """(..., M) as one (..., K, I, J) for each stack."""
        return [part.reshape(*y.shape[:-1], *part.shape[1:]) for part in self._split(y.reshape(-1, *self.range_shape))]

    # -- and back ---------------------------------------------------------------------------------
    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """The mean of what the slices say of each voxel, brought closer to them by conjugate gradients."""
        return mean_of_slices(self, y)

    def noise_deviation(self, y: torch.Tensor) -> float:
        """That of the reference, from the finest detail within its slices: rows are weighted to its noise."""
        return self.stacks[0].noise or deviation_of(self.stacks[0])

    def noise_norm(self, y: torch.Tensor) -> float:
        """Of noise that is white in all rows that count."""
        return self.noise_deviation(y) * float(self.rows.norm())

    # -- what it takes ----------------------------------------------------------------------------
    def working_bytes(self) -> float:
        """Weighted rows, a stack's part, and the volumes that take in what is spread."""
        copies = 5 if self._fast(torch.float32, torch.device("cpu")) else 2
        return (
            copies * array_bytes(self.domain_shape)
            + 2 * array_bytes(self.range_shape)
            + 16.0 * min(slices_torch.PLACES, self.range_shape[0])
        )

    def kept_bytes(self) -> float:
        """The weights of the rows."""
        return array_bytes(self.range_shape)

    def __str__(self) -> str:
        pitches = " and ".join(sorted({f"{stack.pitch:.3g}" for stack in self.stacks}))
        count = len(self.stacks)
        return f"{count} stack{'s' * (count > 1)} of slices {pitches} mm apart, reconstructed at {self.voxel:.3g} mm"

    # -- where it lies ----------------------------------------------------------------------------
    def domain_affine(self, range_affine: torch.Tensor) -> torch.Tensor:
        """(4, 4) of the volume: stacks have many grids, and the volume its own."""
        return self.affine.to(range_affine.device)

    # -- pieces -----------------------------------------------------------------------------------
    def _rows(self) -> torch.Tensor:
        """(M,) r: 0 for what reaches beyond the volume."""
        last, rows, first = torch.tensor(self.domain_shape, dtype=torch.float64) - 1, [], self.stacks[0].noise
        for stack, ways, (offsets, _) in zip(self.stacks, self._ways, self._points):
            i, j = (torch.arange(n, dtype=torch.float64) for n in stack.slices.shape[1:])
            known = torch.ones(stack.slices.shape, dtype=torch.bool)
            for a in range(3):
                plane = ways[:, 1, a, None, None] * i[:, None] + ways[:, 2, a, None, None] * j
                for offset in (float(offsets.min()), float(offsets.max())):
                    place = plane + (ways[:, 0, a] + offset * ways[:, 3, a])[:, None, None]
                    known &= (place >= -BORDER) & (place <= last[a] + BORDER)
            low, high = NOISE_LIMITS
            share = min(max(first / stack.noise, low), high) if first and stack.noise else 1.0
            rows.append((known * stack.weights.sqrt()[:, None, None] * share).float().flatten())
        return torch.cat(rows)

    def _rows_on(self, like: torch.Tensor) -> torch.Tensor:
        key = (like.device, like.dtype)
        if key not in self._cast:
            self._cast[key] = self.rows.to(like)
        return self._cast[key]

    def _split(self, y: torch.Tensor) -> list[torch.Tensor]:
        parts = y.split([stack.voxels.numel() for stack in self.stacks], 1)
        return [part.reshape(len(y), *stack.slices.shape) for part, stack in zip(parts, self.stacks)]

    def _fast(self, dtype: torch.dtype, device: torch.device) -> bool:
        wanted = self.backend == "numba" or (self.backend == "auto" and has("numba"))
        return wanted and dtype == torch.float32 and device.type == "cpu"

    def _kernels(self, like: torch.Tensor):
        if not self._fast(like.dtype, like.device):
            return slices_torch
        from interslice.physics.stacks import slices_numba  # compiled where it is used

        return slices_numba


def profile_points(stack: Stack, voxel: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (T,) across a slice, mm off its middle, and their weights, which sum to 1; a voxel apart or less."""
    if stack.profile == "box":
        count = max(1, math.ceil(stack.thickness / voxel - 1e-3))
        offsets = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * stack.thickness
        return offsets, torch.full((count,), 1 / count, dtype=torch.float64)
    span = reach(stack.profile, stack.thickness)
    half = math.ceil(span / voxel)
    offsets = torch.arange(-half, half + 1, dtype=torch.float64) * (span / half)
    shares = torch.from_numpy(response(stack.profile, offsets.numpy(), stack.thickness))
    return offsets, shares / shares.sum()


def planes_of(stacks: Sequence[Stack], affine: torch.Tensor) -> tuple[int, ...]:
    """Axes of the volume across which a slice shows a direction that some stack measured thick.

    A slice across an axis holds the other two: where the normal of every stack lies along that axis, it holds nothing
    that is missing.
    """
    turn = (affine[:3, :3] / affine[:3, :3].norm(dim=0)).double()
    along = [(turn.mT @ stack.poses[0, :3, :3] @ stack.normal).abs() for stack in stacks]
    return tuple(a for a in range(3) if any(float(normal[a]) < SEEN for normal in along))


def deviation_of(stack: Stack) -> float:
    """Standard deviation of the noise of a stack."""
    return noise_deviation(stack.voxels, stack.in_plane)
