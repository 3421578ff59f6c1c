"""A noise field on the voxels of a volume: which slices lie where, and a few of them at a time.

Volumes are (X, Y, Z); slices across an axis lie at the multiples of its voxel size, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from interslice.noise.counter import Purpose
from interslice.noise.field import NoiseField
from interslice.prior.diffusion import renoise

NOISE_CHUNK = 16
"""Slices of noise drawn at once on a CPU."""
DEVICE_CHUNK = 1 << 24
"""Numbers drawn at once on another device, about: many calls cost more there than memory."""


@dataclass
class VolumeNoise:
    """The draws of one seed.

    Args:
        field: a noise field (interslice.noise.field).
        spacing: voxel size (mm) along X, Y and Z.
        seed: key of the draws.
        sign: 1, or -1 for the opposite of every draw.
        device: where it is drawn and added; that of the volume if None.
    """

    field: NoiseField
    spacing: Sequence[float]
    seed: int
    sign: int = 1
    device: torch.device | None = None

    def opposite(self) -> VolumeNoise:
        """The same draws with the opposite sign: noise of the same law."""
        return replace(self, sign=-self.sign)

    def slices(
        self, shape: Sequence[int], axis: int, step: int, ab_s: float, purpose: Purpose = Purpose.RENOISE,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[slice, torch.Tensor]]:  # fmt: skip
        """Ranges of slices across `axis` and their noise on a device, for an image of alpha-bar `ab_s`."""
        count, *slice_shape = (shape[axis], *(n for a, n in enumerate(shape) if a != axis))
        positions = torch.arange(count, dtype=torch.float64) * float(self.spacing[axis])
        field = self.field.across(axis)
        on_cpu = torch.device(device).type == "cpu"
        chunk = NOISE_CHUNK if on_cpu else max(1, DEVICE_CHUNK // max(1, math.prod(slice_shape)))
        for start in range(0, count, chunk):
            part = range(start, min(start + chunk, count))
            key = {"seed": self.seed, "step": step, "purpose": purpose, "level": math.sqrt(1 - ab_s), "device": device}
            noise = field.draw(positions, tuple(slice_shape), slices=part, **key)
            yield slice(part.start, part.stop), noise if self.sign > 0 else -noise

    def volume(self, like: torch.Tensor, axis: int, ab_s: float, step: int, purpose: Purpose) -> torch.Tensor:
        """A whole volume of noise, of the shape and device of `like`."""
        out = torch.empty_like(like)
        for part, noise in self.slices(like.shape, axis, step, ab_s, purpose, device=self.device or like.device):
            out.movedim(axis, 0)[part] = noise.to(out)
        return out

    def renoise(self, out, x0, eps, ab_s: float, sigma: float, axis: int, step: int, let_in: float = 0.0):
        """`interslice.prior.diffusion.renoise` of volumes, into `out`, which may be eps."""
        device = self.device or out.device
        target, x0 = out.movedim(axis, 0), x0.movedim(axis, 0)
        eps = None if eps is None else eps.movedim(axis, 0)
        for part, noise in self.slices(out.shape, axis, step, ab_s, device=device):
            kept = None if eps is None else eps[part].to(device)
            target[part] = renoise(x0[part].to(device), kept, noise.to(x0.dtype), ab_s, sigma, let_in).to(out.device)
        return out
