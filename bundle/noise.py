"""Noise fields: the random draws of all slices of a volume, as one field along the slice axis.

A field of S slices is white within each slice and has covariance k(i, j) between slices i and j; every slice
alone is exactly N(0, I), which is all that a 2-D network ever sees.

    independent   k = delta_ij         what sampling slice by slice does
    identical     k = 1                one draw for all slices
    slerp         NOISE_i = [sin((1 - a_i) W) z_1 + sin(a_i W) z_S] / sin(W),   a_i = (i - 1) / (S - 1)
                  k = cos(pi / 2 (a_i - a_j)) for W = pi / 2
                  (Du et al., "Improving 2D Diffusion Models for 3D Medical Imaging with Inter-Slice
                  Consistent Stochasticity", ICLR 2026, eq. 9: two anchors z_1, z_S drawn anew at each step)

Draws are keyed by (seed, step, slice or anchor) on a counter-based generator (Philox; Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", 2011) on the CPU, so that batch size, chunks, device and resumed runs do not
change the field.

A new field is one subclass of `NoiseField` and one `configs/noise_*.json`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch


def keyed_normal(shape: tuple[int, ...], seed: int, step: int, index: int) -> torch.Tensor:
    """Standard normal float32 tensor of `shape`, a function of the key (seed, step, index) alone.

    Args:
        seed, step, index: integers from 0 to 2^63 - 1.
    """
    if min(seed, step, index) < 0:
        raise ValueError(f"seed, step and index must not be negative, got {seed}, {step}, {index}")
    # The last two counter words name the stream; the first two count its 2^128 draws.
    philox = np.random.Philox(key=[seed, 0], counter=[0, 0, step, index])
    return torch.from_numpy(np.random.Generator(philox).standard_normal(shape, dtype=np.float32))


class NoiseField(ABC):
    """A Gaussian field over slices; subclasses say how slices share their randomness."""

    @abstractmethod
    def draw(
        self, num_slices: int, slice_shape: tuple[int, int], *, seed: int, step: int, slices: range | None = None
    ) -> torch.Tensor:
        """Draw the field of one step, or a part of it.

        Args:
            num_slices: slices S of the whole field.
            slice_shape: (H, W) of a slice.
            seed, step: the key of the draw.
            slices: which of the S slices to return; all by default. A part of a field is the field of the part.

        Returns:
            (len(slices), H, W) float32 tensor on the CPU.
        """

    @abstractmethod
    def covariance(self, num_slices: int) -> torch.Tensor:
        """Stated covariance (S, S) between slices, float64."""


class IndependentNoise(NoiseField):
    """Every slice draws its own noise."""

    def draw(self, num_slices, slice_shape, *, seed, step, slices=None):
        slices = range(num_slices) if slices is None else slices
        field = torch.empty(len(slices), *slice_shape)
        for row, i in enumerate(slices):
            field[row] = keyed_normal(slice_shape, seed, step, i)
        return field

    def covariance(self, num_slices):
        return torch.eye(num_slices, dtype=torch.float64)


class IdenticalNoise(NoiseField):
    """One draw for all slices."""

    def draw(self, num_slices, slice_shape, *, seed, step, slices=None):
        count = num_slices if slices is None else len(slices)
        return keyed_normal(slice_shape, seed, step, 0).expand(count, *slice_shape)

    def covariance(self, num_slices):
        return torch.ones(num_slices, num_slices, dtype=torch.float64)


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
            raise ValueError(f'angle must be "orthogonal" or "empirical", got {angle!r}')
        self.angle = angle

    def draw(self, num_slices, slice_shape, *, seed, step, slices=None):
        first, last = (keyed_normal(slice_shape, seed, step, anchor) for anchor in (0, 1))
        w = math.pi / 2
        if self.angle == "empirical":
            w = float(torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0).acos())
        slices = range(num_slices) if slices is None else slices
        a = torch.tensor(list(slices), dtype=torch.float64) / max(1, num_slices - 1)
        weights = torch.stack([torch.sin((1 - a) * w), torch.sin(a * w)]) / math.sin(w)
        to_first, to_last = weights.float()[:, :, None, None]
        # Elementwise, so that a slice is the same to the last bit in whatever chunk it is drawn.
        return to_first * first + to_last * last

    def covariance(self, num_slices):
        a = torch.arange(num_slices, dtype=torch.float64) / max(1, num_slices - 1)
        return torch.cos(math.pi / 2 * (a[:, None] - a[None, :]))
