"""k-space of MRI: simulated from a volume, read from files, and scaled to the prior's range.

    x = background + (1 - background) v / u        v: image, 0 without signal; u: intensity that becomes 1
    A x = (1 - background) A v / u + background A 1

v is known only through k-space A v, so u is a percentile of a quick reconstruction (bundle.intensity). Nothing is
clipped, so the inverse is exact: v = u (x - background) / (1 - background).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from bundle.intensity import intensity_range
from bundle.kspace_files import read_kspace
from bundle.linear_solvers import conjugate_gradient


class LoadKspaced(MapTransform):
    """Paths become k-space (1, C, Z, KY, KX, 2) with `mask` in its metadata, checked; see bundle.kspace_files."""

    def __call__(self, data: Mapping[Hashable, str]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = read_kspace(d[key])
        return d


class SimulateKspaced(MapTransform):
    """Replaces a volume by its simulated k-space and keeps the volume as the truth.

    What follows sees the noisy k-space alone, and estimates the maps of the coils from it.

    Args:
        keys: volume (1, X, Y, Z), 0 without signal.
        operator: builds the operator for a volume (bundle.operators.CartesianSampling).
        noise_std: standard deviation of Gaussian noise, as a share of the volume's maximum, in the real and in the
            imaginary part of each measured point of each coil. The Fourier transform is orthonormal, so the complete
            k-space of a coil has the same noise as its image.
        seed: of that noise.
        label_key: where the truth goes.

    Raises:
        ValueError: noise_std is negative, or the volume has no signal.
    """

    def __init__(self, keys, operator, noise_std: float = 0.0, seed: int = 0, label_key: str = "label") -> None:
        super().__init__(keys)
        if not 0 <= noise_std < 1:
            raise ValueError(f"noise_std must lie between 0 and 1, a share of the volume's maximum, got {noise_std}")
        self.operator, self.noise_std, self.seed, self.label_key = operator, noise_std, seed, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        highest = float(volume.max())
        if not highest > 0:
            raise ValueError(f"the highest value of the volume is {highest:g}: there is no signal to measure")
        operator = self.operator.for_volume(volume)
        kspace = operator.forward(volume.as_tensor()[0].float())
        if self.noise_std:
            random = np.random.default_rng(self.seed)
            noise = torch.from_numpy(random.standard_normal(kspace.shape, dtype=np.float32))
            kspace += self.noise_std * highest * noise * operator.mask[..., None]
        meta = {k: v for k, v in volume.meta.items() if k in ("filename_or_obj",)}
        meta |= {"mask": operator.mask, "grid": json.dumps({"shape": operator.domain_shape[:2]})}
        d[key] = MetaTensor(kspace[None], affine=volume.affine, meta=meta, applied_operations=volume.applied_operations)
        d[self.label_key] = volume
        return d


class ScaleKspaced(MapTransform, InvertibleTransform):
    """k-space of an image becomes k-space of the prior's x (see above); inverse: volumes of x become the image.

    Args:
        keys: k-space (1, C, Z, KY, KX, 2).
        operator: builds its operator (bundle.operators.CartesianSampling, whose `background` is x without signal).
        iterations: of the least squares that u is taken from.
        label_key: an image, brought to the prior's range if it is there.
    """

    def __init__(self, keys, operator, iterations: int = 5, label_key: str = "label") -> None:
        MapTransform.__init__(self, keys)
        if not operator.background < 1:
            raise ValueError(f"background must be below 1, which is bright in the prior, got {operator.background}")
        self.operator, self.iterations, self.label_key = operator, iterations, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        slope = 1 - self.operator.background
        for key in self.key_iterator(d):
            operator = self.operator.for_measurement(d[key])
            upper = self._upper(d[key].as_tensor()[0].float(), operator)
            # Maps cannot be estimated from what follows, where no signal is no longer 0.
            center = self.operator.calibration(d[key])
            air = operator.forward(torch.full(operator.domain_shape, self.operator.background, device=d[key].device))
            d[key] = d[key] * (slope / upper) + air
            if isinstance(d[key], MetaTensor):
                d[key].meta |= {"mask": operator.mask, "calibration": center}
                self.push_transform(d[key], extra_info={"upper": upper})
            if self.label_key in d:
                d[self.label_key] = d[self.label_key] * (slope / upper) + self.operator.background
        return d

    def _upper(self, kspace: torch.Tensor, operator) -> float:
        """The intensity that becomes 1."""
        image = operator.zero_filled(kspace)
        image = conjugate_gradient(operator.normal, operator.adjoint(kspace), image, self.iterations)
        return intensity_range(image)[1]

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        background = self.operator.background
        for key in self.key_iterator(d):
            upper = self.pop_transform(d[key])["extra_info"]["upper"]
            d[key] = (d[key] - background) * (upper / (1 - background))
        return d
