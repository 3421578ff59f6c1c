"""Thick slices: each is the weighted mean of the volume along one axis.

    y_k = sum_j W_kj x_j,   W_kj = integral over voxel j of p(z - c_k) dz / its sum over j

z is the position along the thick axis in mm, c_k = c_0 + k (thickness + gap) the centre of thick slice k, and p the
slice profile: a box of width `thickness`, or a Gaussian whose full width at half maximum is `thickness`. W is a
small (K, N) matrix, so everything is closed form along the axis:

    A^+ y       = W^+ y                                                     pseudo-inverse (SVD)
    prox(x, y)  = x + W^T (W W^T + rho I)^-1 (y - W x)                      proximal step
    smooth(y)   = argmin |D^2 x|^2  subject to  W x = y                      the least curved volume with that data

Grid convention: fine voxel 0 begins where thick slice 0 begins, and the fine grid ends with the voxel that contains
the end of the last thick slice. Volumes are (..., X, Y, Z) in any units, which the weighted mean keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch

from bundle.operators.linear_operator import LinearOperator

MIN_RATIO, MAX_RATIO, RATIO = 1.5, 10.0, 5.0
PROFILES = ("box", "gaussian")
EDGE = 0.01
"""Share of a fine voxel by which thick slices may reach past the fine grid: headers are rounded."""
SINGULAR_CUTOFF = 1e-3
"""Relative cutoff of the pseudo-inverse: a Gaussian profile hardly passes the finest detail of its slices."""


def slice_weights(
    num_fine: int, spacing: float, num_thick: int, pitch: float, thickness: float, profile: str = "box"
) -> torch.Tensor:
    """The matrix W (num_thick, num_fine), float64, rows summing to 1.

    Args:
        num_fine, spacing: fine voxels and their size in mm; voxel 0 begins at 0.
        num_thick, pitch: thick slices and the distance of their centres in mm; slice 0 begins at 0.
        thickness: width of the box, or FWHM of the Gaussian, in mm.
        profile: "box" or "gaussian".

    A slice that reaches past the fine grid keeps the part that is inside, scaled to sum 1.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")
    edges = torch.arange(num_fine + 1, dtype=torch.float64) * spacing
    centres = thickness / 2 + torch.arange(num_thick, dtype=torch.float64) * pitch
    z = edges[None, :] - centres[:, None]
    if profile == "box":
        cumulative = z.clamp(-thickness / 2, thickness / 2)
    else:
        sigma = thickness / (2 * math.sqrt(2 * math.log(2)))
        cumulative = torch.erf(z / (sigma * math.sqrt(2)))
    weights = cumulative.diff(dim=1)
    return weights / weights.sum(1, keepdim=True)


class ThroughPlane(LinearOperator):
    """Weighted means along one axis of a volume.

    Args:
        domain_shape: (X, Y, Z) of the fine volume.
        axis: the thick axis, 0, 1 or 2.
        weights: (K, N) matrix with N = domain_shape[axis]; range_shape has K there.
        spacing, pitch, thickness: in mm along the axis, for the affines; see `slice_weights`.
    """

    units = "the volume's own (a weighted mean)"
    closed_form = True

    def __init__(self, domain_shape: tuple[int, int, int], axis: int, weights: torch.Tensor, spacing: float,
                 pitch: float, thickness: float) -> None:  # fmt: skip
        shape = list(domain_shape)
        if weights.shape[1] != shape[axis]:
            raise ValueError(
                f"weights have {weights.shape[1]} columns, but the volume has {shape[axis]} voxels along axis {axis}"
            )
        shape[axis] = weights.shape[0]
        super().__init__(domain_shape, tuple(shape))
        self.axis, self.weights = axis, weights.double()
        self.slice_axes = tuple(a for a in range(3) if a != axis)
        self.spacing, self.pitch, self.thickness = float(spacing), float(pitch), float(thickness)
        self._cast: dict[tuple, torch.Tensor] = {}
        self._matrices: dict[str | float, torch.Tensor] = {}

    # -- the operator -----------------------------------------------------------------------------
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        return self._along(x, "forward")

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        return self._along(y, "adjoint")

    def pseudo_inverse(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        return self._along(y, "pseudo_inverse")

    def prox(self, x: torch.Tensor, y: torch.Tensor, rho: float) -> torch.Tensor:
        if rho <= 0:
            raise ValueError(f"rho must be positive, got {rho}; for rho -> 0 use the null-space step")
        return self._along(y - self.forward(x), rho).add_(x)

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """The least curved volume (along the axis) that agrees with the data."""
        self._check(y, self.range_shape, "measurement")
        return self._along(y, "smooth")

    @property
    def norm(self) -> float:
        return float(torch.linalg.matrix_norm(self.weights, 2))

    # -- geometry ---------------------------------------------------------------------------------
    def __str__(self) -> str:
        return f"slices {self.pitch:g} mm apart, reconstructed at {self.spacing:g} mm"

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


@dataclass
class ThroughPlaneSampling:
    """How a scanner samples thick slices; builds the operator for a scan or for a volume.

    Args:
        axis: 0, 1, 2, or "auto" for the axis with the largest spacing.
        thickness: slice thickness in mm; by default the distance of the slices less `gap`.
        gap: empty space between slices in mm; negative for slices that overlap. By default what a scan's metadata say
            ("slice_thickness" in mm, from DICOM), or 0.
        profile: "box" or "gaussian" (FWHM = thickness).
        spacing: voxel size to reconstruct along the axis in mm; by default the finest in-plane spacing.
        ratio: distance of thick slices in fine voxels, 1.5 to 10, whole or not; for a scan instead of `spacing`, and
            by default none; for a volume to sample, 5 by default.
    """

    axis: int | str = "auto"
    thickness: float | None = None
    gap: float | None = None
    profile: str = "box"
    spacing: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.axis not in ("auto", 0, 1, 2):
            raise ValueError(f'axis must be 0, 1, 2 or "auto", got {self.axis!r}')
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {PROFILES}, got {self.profile!r}")
        for name in ("thickness", "spacing"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive (mm), got {value}")
        if self.ratio is not None:
            self._check_ratio(self.ratio)
            if self.spacing is not None:
                raise ValueError(f"set the spacing ({self.spacing:g} mm) or the ratio ({self.ratio:g}), not both")

    def for_measurement(self, scan) -> ThroughPlane:
        """The operator whose measurement is this thick scan, (1, X, Y, Z) with its spacing; see `for_scan`."""
        stated = float(getattr(scan, "meta", {}).get("slice_thickness", 0))
        return self.for_scan(tuple(scan.shape[1:]), tuple(scan.pixdim.tolist()), stated)

    def for_volume(self, volume) -> ThroughPlane:
        """The operator that samples this volume, (1, X, Y, Z) with its spacing; see `for_grid`."""
        return self.for_grid(tuple(volume.shape[1:]), tuple(volume.pixdim.tolist()))

    def for_scan(
        self, shape: tuple[int, int, int], spacing: tuple[float, float, float], stated: float = 0.0
    ) -> ThroughPlane:
        """The operator whose measurement is a thick scan of this shape and spacing (mm).

        `stated` is the thickness of slices (mm) in the scan's header, 0 for none; `thickness` and `gap` go before it.

        Raises:
            ValueError: no axis is thick, or the ratio of its spacing to the fine one is out of range.
        """
        axis = self._thick_axis(spacing)
        pitch = spacing[axis]
        finest = min(s for a, s in enumerate(spacing) if a != axis)
        fine = self.spacing or (pitch / self.ratio if self.ratio else finest)
        self._check_ratio(pitch / fine, f"slices {pitch:g} mm apart, to reconstruct at {fine:g} mm")
        thickness = self._thickness(pitch, stated)
        length = (shape[axis] - 1) * pitch + thickness
        return self._build(shape, axis, math.ceil(length / fine - EDGE), fine, shape[axis], pitch, thickness)

    def for_grid(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> ThroughPlane:
        """The operator that samples a fine volume of this shape and spacing (mm) every `ratio` voxels.

        The domain ends with the last whole thick slice: crop the volume to `domain_shape`. With axis "auto" the
        slices are stacked along axis 2.

        Raises:
            ValueError: the volume is thinner than one thick slice.
        """
        axis = 2 if self.axis == "auto" else self.axis
        fine = spacing[axis]
        pitch = (self.ratio or RATIO) * fine
        thickness = self._thickness(pitch)
        length = shape[axis] * fine
        num_thick = math.floor((length - thickness + EDGE * fine) / pitch) + 1
        if num_thick < 1:
            raise ValueError(
                f"the volume is {length:g} mm thick along axis {axis}, less than one slice of {thickness:g} mm: "
                "lower the ratio or the thickness"
            )
        num_fine = math.ceil(((num_thick - 1) * pitch + thickness) / fine - EDGE)
        return self._build(shape, axis, num_fine, fine, num_thick, pitch, thickness)

    def _build(self, shape, axis, num_fine, fine, num_thick, pitch, thickness) -> ThroughPlane:
        weights = slice_weights(num_fine, fine, num_thick, pitch, thickness, self.profile)
        domain = list(shape)
        domain[axis] = num_fine
        return ThroughPlane(tuple(domain), axis, weights, fine, pitch, thickness)

    def _thickness(self, pitch: float, stated: float = 0.0) -> float:
        if self.thickness is None and self.gap is None and stated:
            if not pitch / MAX_RATIO <= stated <= 2 * pitch:
                raise ValueError(
                    f"the header states slices {stated:g} mm thick, but they are {pitch:g} mm apart: set the thickness"
                )
            return stated
        thickness = self.thickness if self.thickness is not None else pitch - (self.gap or 0.0)
        if not thickness > 0:
            raise ValueError(
                f"a gap of {self.gap:g} mm leaves no slice between centres {pitch:g} mm apart: lower the gap"
            )
        return thickness

    def _thick_axis(self, spacing: tuple[float, float, float]) -> int:
        if self.axis != "auto":
            return self.axis
        thickest, others = max(spacing), sorted(spacing)[:2]
        if thickest < MIN_RATIO * others[1]:
            raise ValueError(
                f"no thick axis found: spacing {tuple(round(s, 3) for s in spacing)} mm, but the thick one must be at "
                f"least {MIN_RATIO} times the others; this scan needs no super-resolution, or set the axis"
            )
        return list(spacing).index(thickest)

    @staticmethod
    def _check_ratio(ratio: float, what: str = "ratio") -> None:
        if not isinstance(ratio, Real):
            raise ValueError(f"ratio must be a number from {MIN_RATIO} to {MAX_RATIO:g}, got {ratio!r}")
        if not MIN_RATIO - 1e-6 <= ratio <= MAX_RATIO + 1e-6:
            raise ValueError(
                f"{what}: ratio {ratio:.3g} is outside {MIN_RATIO} to {MAX_RATIO:g}; set the spacing to reconstruct at"
            )
