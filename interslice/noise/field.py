"""Noise fields: the random draws of all slices of a volume, as one field along the slice axis.

A field of slices at positions z_i (mm) is white within each slice and has covariance k(z_i, z_j) between slices i and
j; every slice alone is exactly N(0, I), which is all that a 2-D network ever sees.

    independent   k = delta_ij                          what sampling slice by slice does
    identical     k = 1                                 one draw for all slices
    mixed         k = c + (1 - c) delta_ij              c of the variance is shared, the rest is each slice's own
    slerp         NOISE_i = [sin((1 - a_i) W) z_1 + sin(a_i W) z_S] / sin(W),   a_i = (z_i - z_1) / (z_S - z_1)
                  k = cos(pi / 2 (a_i - a_j)) for W = pi / 2
                  (Du et al., "Improving 2D Diffusion Models for 3D Medical Imaging with Inter-Slice
                  Consistent Stochasticity", ICLR 2026, eq. 9: two anchors z_1, z_S drawn anew at each step)
    piecewise     slerp between neighbours of several anchors
    OU, Matern    k = exp(-d / l) and its smoother kin, d = |z_i - z_j|: see interslice/noise/markov.py

Draws are keyed by (seed, step, purpose, slice or anchor) on a counter-based generator (interslice/noise/counter.py):
batch size, chunks, ranks and resumed runs do not change the field, and another device does by rounding alone.

A new field is one subclass of `NoiseField` and a name in interslice/noise/named.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Real

import torch

from interslice.noise.counter import Key, Purpose, keyed_normals, numbers
from interslice.usage import UsageError

Positions = int | Sequence[float] | torch.Tensor
"""Where the slices of a whole stack lie, in mm from its beginning; a number S stands for S slices 1 mm apart."""
Scheduled = float | Sequence[float]
"""A constant, or (value at pure noise, value at the clean image)."""
SHORTEST, LONGEST = 1e-3, 1e15
"""Lengths in mm."""


def as_positions(positions: Positions) -> torch.Tensor:
    """Positions in mm, float64 (S,); raises ValueError for negative or non-finite ones."""
    if isinstance(positions, int) and positions >= 0:
        return torch.arange(positions, dtype=torch.float64)
    try:
        z = torch.as_tensor(positions, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        z = torch.tensor(math.nan)
    if z.ndim != 1 or not bool((torch.isfinite(z) & (z >= 0)).all()):
        raise ValueError(f"positions must be a list of finite numbers of mm, not negative, got {positions}")
    return z


def at_level(value: Scheduled, level: float) -> float:
    """A scheduled value where the noise has standard deviation `level`: geometric between its two ends."""
    if isinstance(value, (int, float)):
        return float(value)
    noisy, clean = value
    return float(noisy) ** level * float(clean) ** (1 - level)


def check_positive(name: str, value: Scheduled, unit: str = "mm") -> Scheduled:
    """Return `value`; raises ValueError unless it is one positive number, or two, of a sensible size."""
    return _numbers(name, value, f"from {SHORTEST:g} to {LONGEST:g} {unit}", SHORTEST, LONGEST)


def _numbers(name: str, value: Scheduled, allowed: str, low: float, high: float) -> Scheduled:
    """One number, or two as a tuple, within limits."""
    ends = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(ends) not in (1, 2) or not all(isinstance(v, Real) and low <= v <= high for v in ends):
        raise UsageError(
            f"{name} must be a number {allowed}, or two (at pure noise, at the clean image), got {value!r}"
        )
    return float(ends[0]) if len(ends) == 1 else tuple(float(v) for v in ends)


class NoiseField(ABC):
    """A Gaussian field over slices; subclasses say how slices share their randomness."""

    correlated = True
    """Whether slices share any of it."""

    def draw(
        self,
        positions: Positions,
        slice_shape: Sequence[int],
        *,
        seed: int,
        step: int,
        level: float = 1.0,
        slices: range | None = None,
        purpose: Purpose = Purpose.RENOISE,
        device: torch.device | str = "cpu",
    ) -> torch.Tensor:
        """Draw the field of one step, or a part of it.

        Args:
            positions: of the slices of the whole stack, in mm from its beginning.
            slice_shape: of a slice: (H, W), or (C, H, W) for slices of several channels.
            seed, step, purpose: the key of the draw.
            level: standard deviation of the noise in the image that is made, sqrt(1 - ab), from 0 (clean) to 1 (pure
                noise); matters to fields whose parameters follow the schedule.
            slices: which of the slices to return; all by default. A part of a field is the field of the part.
            device: where it is drawn.

        Returns:
            (len(slices), *slice_shape) float32 tensor on the device.
        """
        z = as_positions(positions)
        slices = range(len(z)) if slices is None else slices
        if len(slices) and not (slices.step == 1 and slices.start >= 0 and slices.stop <= len(z)):
            raise ValueError(f"slices must be a range within the {len(z)} of the stack, got {slices}")
        if not 0 <= level <= 1:
            raise ValueError(f"level must lie in [0, 1], 0 the clean image and 1 pure noise, got {level}")
        return self._draw(z, tuple(slice_shape), Key(seed, step, purpose), level, slices, torch.device(device))

    @abstractmethod
    def _draw(self, z: torch.Tensor, slice_shape: tuple[int, ...], key: Key, level: float, slices: range,
              device: torch.device) -> torch.Tensor:  # fmt: skip
        """`draw`, of checked positions z (S,), which lie on the CPU."""

    def across(self, axis: int) -> NoiseField:
        """The field of slices across an axis of the volume: this one, unless it differs by axis."""
        return self

    def fit(self, y: torch.Tensor, operator, spacing: Sequence[float]) -> NoiseField:
        """The field for a measurement y of an operator, with voxels of `spacing` (mm): this one, unless it adapts."""
        return self

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({settings})"

    @abstractmethod
    def covariance(self, positions: Positions, level: float = 1.0) -> torch.Tensor:
        """Stated covariance (S, S) between slices, float64."""


class NoiseByAxis(NoiseField):
    """A field, and others for slices across some axes.

    Args:
        field: where no other is named.
        others: axis of the volume -> its field.
    """

    def __init__(self, field: NoiseField, others: Mapping[int, NoiseField]) -> None:
        self.field, self.others = field, dict(others)

    def across(self, axis: int) -> NoiseField:
        return self.others.get(axis, self.field)

    def _draw(self, z, slice_shape, key, level, slices, device):
        return self.field._draw(z, slice_shape, key, level, slices, device)

    def covariance(self, positions: Positions, level: float = 1.0) -> torch.Tensor:
        return self.field.covariance(positions, level)


class IndependentNoise(NoiseField):
    """Every slice draws its own noise."""

    correlated = False

    def _draw(self, z, slice_shape, key, level, slices, device):
        return keyed_normals(slice_shape, key, slices, device)

    def covariance(self, positions, level=1.0):
        return torch.eye(len(as_positions(positions)), dtype=torch.float64)


class IdenticalNoise(NoiseField):
    """One draw for all slices."""

    def _draw(self, z, slice_shape, key, level, slices, device):
        return keyed_normals(slice_shape, key, [0], device).expand(len(slices), *slice_shape)

    def covariance(self, positions, level=1.0):
        count = len(as_positions(positions))
        return torch.ones(count, count, dtype=torch.float64)


class MixedNoise(NoiseField):
    """Part of the variance is one draw for all slices, the rest is each slice's own.

    Args:
        share: c, the shared part of the variance, from 0 (independent) to 1 (identical); or two, at pure noise and at
            the clean image, with straight interpolation between.
    """

    def __init__(self, share: Scheduled = 0.5) -> None:
        self.share = _numbers("share", share, "from 0 to 1", 0, 1)

    def _share(self, level: float) -> float:
        if isinstance(self.share, tuple):
            return level * self.share[0] + (1 - level) * self.share[1]
        return self.share

    def _draw(self, z, slice_shape, key, level, slices, device):
        c = self._share(level)
        shared = keyed_normals(slice_shape, key, [0], device).mul_(math.sqrt(c))
        return keyed_normals(slice_shape, key, [i + 1 for i in slices], device).mul_(math.sqrt(1 - c)).add_(shared)

    def covariance(self, positions, level=1.0):
        c, count = self._share(level), len(as_positions(positions))
        return torch.full((count, count), c, dtype=torch.float64).fill_diagonal_(1.0)


class SlerpNoise(NoiseField):
    """Spherical interpolation between two anchors, drawn anew at each step (ISCS).

    The field has rank 2 along the slice axis, and its correlation depends on the number of slices, not on
    millimetres: neighbours of 30 slices correlate by 0.9985, of 300 by 0.99999.

    Args:
        angle: "orthogonal" takes W = pi / 2, which makes every slice exactly N(0, I); "empirical" takes the angle
            between the two drawn anchors as the paper does, and is N(0, I) only in the limit of large slices,
            where W concentrates at pi / 2.
    """

    def __init__(self, angle: str = "orthogonal") -> None:
        if angle not in ("orthogonal", "empirical"):
            raise UsageError(f'angle must be "orthogonal" or "empirical", got {angle!r}')
        self.angle = angle

    @staticmethod
    def _shares(z: torch.Tensor) -> torch.Tensor:
        """a_i, from 0 at the first slice to 1 at the last."""
        if len(z) < 2 or z.max() == z.min():
            return torch.zeros_like(z)
        return (z - z.min()) / (z.max() - z.min())

    def _draw(self, z, slice_shape, key, level, slices, device):
        first, last = keyed_normals(slice_shape, key, [0, 1], device).split(1)
        w = math.pi / 2
        if self.angle == "empirical":
            w = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0).acos()
        return slerp(first, last, self._shares(z)[slices.start : slices.stop], w)

    def covariance(self, positions, level=1.0):
        a = self._shares(as_positions(positions))
        return torch.cos(math.pi / 2 * (a[:, None] - a[None, :]))


class PiecewiseSlerpNoise(NoiseField):
    """Slerp between the neighbours of several anchors: a correlation that reaches as far as the anchors are apart.

    A slice at u between anchors m and m + 1 (u from 0 to 1) is cos(pi/2 u) z_m + sin(pi/2 u) z_{m+1}; k of two slices
    is the sum of products of their shares of the anchors that they have in common, and 0 without one.

    Args:
        anchors: number of anchors, evenly spread from the first slice to the last; 2 is `SlerpNoise`.
        spacing: instead, their distance in mm, from the beginning of the stack; or two, at pure noise and at the clean
            image.
    """

    def __init__(self, anchors: int | None = None, spacing: Scheduled | None = None) -> None:
        if (anchors is None) == (spacing is None):
            raise UsageError(f"give either anchors or spacing, got anchors {anchors} and spacing {spacing}")
        if anchors is not None and (not isinstance(anchors, int) or anchors < 2):
            raise UsageError(f"anchors must be a whole number from 2, got {anchors}")
        self.anchors = anchors
        self.spacing = None if spacing is None else check_positive("spacing", spacing)

    def _places(self, z: torch.Tensor, level: float) -> torch.Tensor:
        """Where each slice lies, counted in anchors."""
        if self.anchors is None:
            return z / at_level(self.spacing, level)
        return SlerpNoise._shares(z) * (self.anchors - 1)

    def _draw(self, z, slice_shape, key, level, slices, device):
        places = self._places(z, level)[slices.start : slices.stop]
        left = places.floor().long()
        anchors = torch.cat([left, left + 1]).unique()  # in order
        drawn = keyed_normals(slice_shape, key, anchors.tolist(), device)
        first, last = (numbers(tuple(torch.searchsorted(anchors, k).tolist()), device) for k in (left, left + 1))
        return slerp(drawn[first], drawn[last], places - left)

    def covariance(self, positions, level=1.0):
        places = self._places(as_positions(positions), level)
        left = places.floor()
        shares = places.new_zeros(len(places), int(left.max()) + 2 if len(places) else 0)
        angle = math.pi / 2 * (places - left)
        shares.scatter_(1, left.long()[:, None], torch.cos(angle)[:, None])
        shares.scatter_(1, left.long()[:, None] + 1, torch.sin(angle)[:, None])
        return shares @ shares.T


def slerp(
    first: torch.Tensor, last: torch.Tensor, shares: torch.Tensor, angle: float | torch.Tensor = math.pi / 2
) -> torch.Tensor:
    """[sin((1 - a) W) first + sin(a W) last] / sin(W) for every a of `shares` (S,); returns (S, ...).

    Args:
        first, last: anchors (1, ...) of all slices, or (S, ...) of each.
        shares: float64.
        angle: W, a number or a tensor () on the anchors' device.
    """
    if isinstance(angle, torch.Tensor):
        shares = on_device(shares, angle.device)
        sines = torch.sin(torch.stack([1 - shares, shares]) * angle) / torch.sin(angle)
    else:
        sines = torch.sin(torch.stack([1 - shares, shares]) * angle) / math.sin(angle)
    to_first, to_last = (on_device(sine, first.device).reshape(-1, *[1] * (first.ndim - 1)) for sine in sines)
    # Elementwise, so that a slice is the same to the last bit in whatever chunk it is drawn.
    return to_first * first + to_last * last


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A few numbers as float32 on a device, which are sent there once and not in every step."""
    if values.device == device:
        return values.float()
    return _sent(tuple(values.tolist()), device)


@lru_cache(maxsize=64)
def _sent(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)
