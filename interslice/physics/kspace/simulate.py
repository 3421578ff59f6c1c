"""k-space of a known volume, with noise: what `read` gives of a measured scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import number, whole_number
from interslice.physics.measurement import Scanner, origin_of


class SimulateKspaced(MapTransform):
    """Replaces a volume by its simulated k-space and keeps the volume as the truth.

    What follows sees the noisy k-space alone, and estimates the maps of the coils from it.

    Args:
        keys: volume (1, X, Y, Z), 0 without signal.
        scanner: measures the volume (interslice.physics.kspace.CartesianSampling).
        noise_std: standard deviation of Gaussian noise, as a share of the volume's maximum, in the real and in the
            imaginary part of each measured point of each coil. The Fourier transform is orthonormal, so the complete
            k-space of a coil has the same noise as its image.
        seed: of that noise.
        label_key: where the truth goes.

    Raises:
        ValueError: noise_std is negative, or the volume has no signal.
    """

    def __init__(self, keys, scanner: Scanner, noise_std: float = 0.0, seed: int = 0, label_key: str = "label") -> None:
        super().__init__(keys)
        self.scanner, self.seed, self.label_key = scanner, whole_number("seed", seed), label_key
        self.noise_std = number("kspace_noise", noise_std, 0, below=1, kind="a share of the volume's maximum")

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        highest = float(volume.max())
        if not highest > 0:
            raise ValueError(f"the highest value of the volume is {highest:g}: there is no signal to measure")
        operator = self.scanner.for_volume(volume)
        kspace = operator.forward(volume.as_tensor()[0].float())
        if self.noise_std:
            random = np.random.default_rng(self.seed)
            noise = torch.from_numpy(random.standard_normal(kspace.shape, dtype=np.float32))
            kspace += self.noise_std * highest * noise * operator.mask[..., None]
        meta = origin_of(volume) | {"mask": operator.mask, "volume_shape": operator.domain_shape[:2]}
        d[key] = MetaTensor(kspace[None], affine=volume.affine, meta=meta, applied_operations=volume.applied_operations)
        d[self.label_key] = volume
        return d
