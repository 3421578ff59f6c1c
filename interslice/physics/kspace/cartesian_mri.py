"""Multi-coil Cartesian MRI, slice by slice, of an image that is real.

    y_c = M F P s_c x,      A^T y = sum_c Re( conj(s_c) P^T F^H M y_c )

x (X, Y, Z), real; s_c the complex sensitivity of coil c, with the phase of the image in it; P puts the volume into the
middle of the field of view, which may be larger and is empty around it; F the centred orthonormal 2-D Fourier transform
of each slice; M the mask, 1 where k-space was measured and 0 elsewhere. (SENSE: Pruessmann et al., "SENSE: sensitivity
encoding for fast MRI", Magn. Reson. Med. 1999.)

The prior knows magnitudes, so the phase is in the maps and x is real: half of the unknowns are gone, and half of the
noise with them. What the maps, which are smooth, do not follow is lost: where the phase turns by d against them, a
signal v shows as v cos d.

k-space is kept as (C, Z, KY, KX, 2): coils, slices, rows, columns, and real and imaginary part. The innermost axes are
those that are transformed, which is fast, and the order is that of most files. Index N // 2 is the centre of k-space,
and index n // 2 of an axis of the volume lies in the middle of the field of view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from interslice.files.memory import FLOAT, array_bytes
from interslice.physics.linear_operator import LinearOperator


class CartesianMRI(LinearOperator):
    """Undersampled k-space of several coils.

    A A^T is no multiple of the identity, even for one coil, because x is real: k and -k are not independent. There is
    hence no closed form: `pseudo_inverse` and `prox` take conjugate gradients.

    Args:
        maps: complex (C, Z, Y, X), finite, on the grid of the volume.
        mask: (KY, KX), or (Z, KY, KX) if slices differ; what is not 0 is measured. KY and KX are at least Y and X.
        spacing: of the voxels along X, Y, Z, in mm; neighbours that are farther apart count less in total variation.
        background: value of no signal (air) in the volume.

    Raises:
        ValueError: shapes that do not fit, or nothing measured.
    """

    separable_axes = (2,)
    smaller = "a file of fewer slices"
    misfit_limit = 0.12
    """Maps that are estimated from few lines do not explain all of the measurement."""

    misfit_causes = (
        "the layout of k-space (its centre at N // 2, the image in the middle, coils on the second axis, 2-D slices), "
        "coils with unequal noise or one without signal, a centre too small for their maps, motion between lines"
    )

    def __init__(self, maps: torch.Tensor, mask: torch.Tensor, spacing: Sequence[float] = (1.0, 1.0, 1.0),
                 background: float = -1.0) -> None:  # fmt: skip
        if maps.ndim != 4 or not maps.is_complex():
            raise ValueError(f"maps must be complex (C, Z, Y, X), got {maps.dtype} {tuple(maps.shape)}")
        coils, z, y, x = maps.shape
        per_slice = () if mask.ndim == 2 else (z,)
        if tuple(mask.shape[:-2]) != per_slice or mask.shape[-2] < y or mask.shape[-1] < x:
            raise ValueError(
                f"the mask must be (KY, KX) or ({z}, KY, KX) with KY from {y} and KX from {x}, got {tuple(mask.shape)}"
            )
        self.mask = mask.detach().cpu() != 0
        if not self.mask.any():
            raise ValueError("the mask is 0 everywhere: nothing was measured")
        super().__init__((x, y, z), (coils, z, *self.mask.shape[-2:], 2))
        self.maps, self.spacing, self.background = maps.detach(), tuple(map(float, spacing)), float(background)
        self.gains = tuple(min(self.spacing) / s for s in self.spacing)
        self.undersampled_axes = tuple(a for a, dim in ((0, -1), (1, -2)) if varies(self.mask, dim))
        self.slice_axes = self._slice_axes()
        # Transform along the undersampled axis first: the other one then has only measured lines to transform.
        self._first, self._second = (-2, -1) if self.undersampled_axes == (1,) else (-1, -2)
        lines = self.mask.any(self._second)
        self._lines = (lines.any(0) if lines.ndim == 2 else lines).nonzero()[:, 0]
        self._whole_lines = not varies(self.mask, self._second)
        self._placed: dict[tuple, tuple[torch.Tensor, ...]] = {}

    def _slice_axes(self) -> tuple[int, ...]:
        """Slices along the fully sampled direction show no aliasing; a single slice has no other planes."""
        if self.domain_shape[2] == 1:
            return (2,)
        under = self.undersampled_axes
        return (2, *(a for a in (0, 1) if a not in under or len(under) == 2))

    @property
    def acceleration(self) -> float:
        """Points of k-space over points measured."""
        return self.mask.numel() / int(self.mask.sum())

    def __str__(self) -> str:
        coils = "1 coil" if self.range_shape[0] == 1 else f"{self.range_shape[0]} coils"
        size = " x ".join(map(str, self.mask.shape[:-3:-1]))
        voxels = " x ".join(f"{s:.3g}" for s in self.spacing)
        return f"{self.acceleration:.2g}-fold undersampled k-space of {size}, {coils}, voxels of {voxels} mm"

    def _norm(self) -> float:
        """An upper bound of |A|, met if k-space is complete: the largest root-sum-of-squares of the maps."""
        return float(self.maps.abs().square().sum(0).max().sqrt())

    def _range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        return tuple(box[2] if axis == 1 else slice(0, n) for axis, n in enumerate(self.range_shape))

    def _cut(self, box: tuple[slice, ...]) -> None:
        """A part has its slices' maps and masks, and transforms them as the whole does."""
        super()._cut(box)

        def cut(table: torch.Tensor) -> torch.Tensor:
            return table[..., box[2], :, :] if table.ndim > 2 else table

        self.maps, self.mask = cut(self.maps), cut(self.mask)
        self._placed = {key: (*map(cut, tables), lines) for key, (*tables, lines) in self._placed.items()}
        self.slice_axes = self._slice_axes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check(x, self.domain_shape, "volume")
        maps, weights, _, lines = self._on(x)
        image = x.transpose(-1, -3)
        y = x.new_zeros(*x.shape[:-3], *self.range_shape)
        for c, coil in enumerate(maps):
            k = self._fft(coil * image, self._first).index_select(self._first, lines)
            k = self._fft(k, self._second).mul_(weights)
            torch.view_as_complex(y).select(-4, c).index_copy_(self._first, lines, k)
        return y

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        maps, weights, _, lines = self._on(y)
        kspace = torch.view_as_complex(y.contiguous())
        x = y.new_zeros(*y.shape[:-5], *self.domain_shape)
        image = x.transpose(-1, -3)
        weights = weights.conj()
        for c, coil in enumerate(maps):
            k = kspace.select(-4, c).index_select(self._first, lines) * weights
            k = self._ifft(k, self._second)
            size = list(k.shape)
            size[self._first] = self.mask.shape[self._first]
            k = k.new_zeros(size).index_copy_(self._first, lines, k)
            image.add_(self._ifft(k, self._first).mul(coil.conj()).real)
        return x

    def normal(self, x: torch.Tensor, rho: float = 0.0) -> torch.Tensor:
        if not self._whole_lines:
            return super().normal(x, rho)
        # The transform along a direction that is sampled completely, and its inverse, cancel.
        self._check(x, self.domain_shape, "volume")
        maps, _, kept, _ = self._on(x)
        out = x * rho
        image, result = x.transpose(-1, -3), out.transpose(-1, -3)
        for coil in maps:
            k = self._fft(coil * image, self._first).mul_(kept)
            result.add_(self._ifft(k, self._first).mul(coil.conj()).real)
        return out

    def _fft(self, image: torch.Tensor, dim: int) -> torch.Tensor:
        """To k-space along an axis, with the origins at the first index; the field of view is filled up with 0."""
        return torch.fft.fft(image, n=self.mask.shape[dim], dim=dim, norm="ortho")

    def _ifft(self, k: torch.Tensor, dim: int) -> torch.Tensor:
        """The adjoint of `_fft`."""
        return torch.fft.ifft(k, dim=dim, norm="ortho").narrow(dim, 0, self.maps.shape[dim])

    def zero_filled(self, y: torch.Tensor) -> torch.Tensor:
        """A^T y over the sum of squares of the maps: what was not measured counts as 0. For a background of 0."""
        squares = self.maps.abs().square().sum(0).transpose(-1, -3).to(y)
        return self.adjoint(y) / squares.clamp_min(1e-6 * self.norm**2)  # |A|^2 is the largest of all slices

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """The coils combined, zero-filled; air, `background`, has no signal."""
        air = y.new_full(self.domain_shape, self.background)
        return air + self.zero_filled(y - self.forward(air))

    def working_bytes(self) -> float:
        """Three images of one coil, complex, on the whole field of view; and two that the allocator keeps."""
        return 5 * 2 * FLOAT * self.domain_shape[2] * math.prod(self.mask.shape[-2:])

    def kept_bytes(self) -> float:
        """Of the maps, complex, with the phases of the shifts."""
        return float(2 * FLOAT * self.maps.numel())

    def starting_bytes(self) -> float:
        """Air, its k-space and what is left of y; the coils combined; and the squares of the maps."""
        at_once = max(2 * array_bytes(self.range_shape), array_bytes(self.maps.shape))
        return 4 * array_bytes(self.domain_shape) + at_once + self.working_bytes()

    def noise_norm(self, y: torch.Tensor) -> float:
        """From the median of |y|^2 over measured points, most of which lie far from the centre and hold little else.

        |n|^2 of complex noise is distributed exponentially: its mean is its median over log 2.
        """
        energy = y.square().sum(-1)
        measured = energy[energy > 0]
        return math.sqrt(float(measured.median()) / math.log(2) * measured.numel()) if measured.numel() else 0.0

    def domain_affine(self, range_affine: torch.Tensor) -> torch.Tensor:
        """k-space carries the affine (4, 4) of its volume."""
        return range_affine.double()

    def range_affine(self, domain_affine: torch.Tensor) -> torch.Tensor:
        """See `domain_affine`."""
        return domain_affine.double()

    def _on(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(maps, mask, lines kept, their indices) on a device, for a dtype.

        The shifts to the centre are in maps and mask as phases.
        """
        key = (like.device, like.dtype)
        if key not in self._placed:
            dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
            maps, weights = self.maps.to(like.device, dtype), self.mask.to(like.device)
            for dim in (-1, -2):
                before, after = centring(maps.shape[dim], weights.shape[dim])
                shape = (-1, 1) if dim == -2 else (-1,)
                maps = maps * before.to(like.device, dtype).reshape(shape)
                weights = weights * after.to(like.device, dtype).reshape(shape)
            lines = self._lines.to(like.device)
            kept = self.mask.any(self._second, keepdim=True).to(like.device)
            self._placed[key] = (maps, weights.index_select(self._first, lines), kept, lines)
        return self._placed[key]


def centring(n: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(a, b), complex128 (n,) and (size,): b * fft(a * x, size) has its origins at n // 2 and at size // 2."""
    i, k = torch.arange(n, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    a = torch.polar(torch.ones_like(i), 2 * math.pi * (size // 2) * i / size)
    b = torch.polar(torch.ones_like(k), 2 * math.pi * (n // 2) * (k - size // 2) / size)
    return a, b


def varies(mask: torch.Tensor, dim: int) -> bool:
    """True if the mask is not constant along a dimension."""
    return bool((mask.any(dim) != mask.all(dim)).any())
