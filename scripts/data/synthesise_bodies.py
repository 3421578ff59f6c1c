"""Training bodies from few CT volumes: each is deformed, rescaled and resampled many times.

Two people are too few to learn shapes from, but their tissues, borders and textures are real. Each body draws

1. a piece of a volume: the slab that is kept for validation, with a margin, is cut out of the source;
2. a shape: left-right flip, rotation, anisotropic zoom and smooth displacements at two scales (deformation.py);
3. a voxel size, with the blur that a coarser voxel brings;
4. the strength of contrast agent and bone: Hounsfield units above 80 are stretched or shrunk. Air and water stay
   where they are and no order of tissues is inverted.

Volumes are (X, Y, Z) in Hounsfield units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.blocks import Warp
from monai.networks.layers import GaussianFilter
from scipy.ndimage import gaussian_filter, map_coordinates

from scripts.data.deformation import displacement, uniform

AIR = -1000.0
SOFT_TISSUE = 80.0
"""Hounsfield units up to here are left alone."""
MIN_SLICES = 24
"""Thinner pieces are not worth deforming."""


def pieces(
    volume: torch.Tensor, kept: tuple[int, int] | None, margin: int = 4
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """What is left of a volume for training, and the slab of slices [first, last) of axis 2 that is not."""
    if kept is None:
        return [volume], None
    first, last = kept
    if not 0 <= first < last <= volume.shape[2]:
        raise ValueError(f"slices {first} to {last} cannot be kept of a volume of {volume.shape[2]}")
    rest = [volume[..., : max(0, first - margin)], volume[..., last + margin :]]
    return [p for p in rest if p.shape[2] >= MIN_SLICES], volume[..., first:last]


def resample(volume: torch.Tensor, spacing: float, new_spacing: float) -> torch.Tensor:
    """Isotropic resampling; a coarser grid is blurred to its own resolution first."""
    zoom = spacing / new_spacing
    if zoom < 1:
        # Gaussian whose width adds, in quadrature, to that of the finer voxel.
        sigma = 0.42 * (1 / zoom**2 - 1) ** 0.5
        reach = math.ceil(4 * sigma) + 1
        padded = F.pad(volume[None, None], [reach] * 6, mode="replicate")  # MONAI's filter pads with zeros
        volume = GaussianFilter(3, sigma)(padded)[0, 0, reach:-reach, reach:-reach, reach:-reach]
    size = [max(1, int(n * zoom)) for n in volume.shape]
    # Voxel centres of the new grid, from the same corner.
    axes = [((torch.arange(m) + 0.5) / zoom - 0.5) / max(n - 1, 1) * 2 - 1 for m, n in zip(size, volume.shape)]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([z, y, x], -1)[None]
    return F.grid_sample(volume[None, None], grid, padding_mode="border", align_corners=True)[0, 0]


def cubic(volume: torch.Tensor, spacing: Sequence[float]) -> tuple[torch.Tensor, float]:
    """A volume with voxels as long as the longest side of its own (mm) in all directions, and that length.

    Finer axes are blurred to the resolution of the coarsest, one after the other.
    """
    coarse = float(max(spacing))
    for axis, size in enumerate(map(float, spacing)):
        if math.isclose(size, coarse, rel_tol=1e-3):
            continue
        zoom = size / coarse
        sigma = [0.42 * (1 / zoom**2 - 1) ** 0.5 if a == axis else 0.0 for a in range(3)]
        blurred = gaussian_filter(volume.numpy(), sigma, mode="nearest")
        places = (np.arange(int(volume.shape[axis] * zoom)) + 0.5) / zoom - 0.5
        grid = [places if a == axis else np.arange(n) for a, n in enumerate(volume.shape)]
        at = np.stack(np.meshgrid(*grid, indexing="ij"))
        volume = torch.from_numpy(map_coordinates(blurred, at, order=1, mode="nearest"))
    return volume, coarse


class BodySynthesiser:
    """Draws bodies from CT volumes.

    Args:
        volumes: pieces of CT volumes (X, Y, Z) in HU, isotropic.
        spacings: voxel size of each in mm.
        coarsest: largest voxel size to draw, in mm; the finest is the volume's own.
    """

    def __init__(self, volumes: Sequence[torch.Tensor], spacings: Sequence[float], coarsest: float = 2.75) -> None:
        if not volumes or len(volumes) != len(spacings):
            raise ValueError(f"expected one spacing per volume, got {len(volumes)} volumes, {len(spacings)} spacings")
        self.volumes, self.spacings, self.coarsest = list(volumes), list(spacings), coarsest

    def __call__(self, seed: int) -> tuple[torch.Tensor, float]:
        """One body in HU and its voxel size in mm; depends on `seed` alone. Large pieces are drawn more often."""
        rng = torch.Generator().manual_seed(seed)
        sizes = torch.tensor([float(v.numel()) for v in self.volumes])
        index = int(torch.multinomial(sizes, 1, generator=rng))
        volume, spacing = self.volumes[index] - AIR, self.spacings[index]
        if uniform(rng, 0, 1) < 0.5:
            volume = volume.flip(0)
        waves = ((60 / spacing, 6 / spacing), (25 / spacing, 2 / spacing))
        ddf = displacement(rng, volume.shape, 0.12, (0.85, 1.15), waves)
        volume = Warp("bilinear", "zeros")(volume[None, None], ddf[None])[0, 0] + AIR
        edge = round(0.08 * volume.shape[2])  # the ends of the slab were pulled from outside
        volume = volume[..., edge : volume.shape[2] - edge]
        new_spacing = uniform(rng, spacing, max(spacing, self.coarsest)) if spacing < self.coarsest else spacing
        volume = resample(volume, spacing, new_spacing)
        gain = uniform(rng, 0.6, 1.2)
        return torch.where(volume > SOFT_TISSUE, SOFT_TISSUE + gain * (volume - SOFT_TISSUE), volume), new_spacing
