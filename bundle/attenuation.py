"""Hounsfield units, attenuation, photon counts, and the prior's range.

    mu  = mu_w (1 + HU / 1000)                         attenuation in 1/mm; mu_w is water's
    HU  = low + (x + 1) / 2 (high - low)               x: the prior's range, -1 at `low` and 1 at `high`, not clipped
    p   = A mu                                         line integrals, without unit
    N  ~ Poisson(I0 exp(-p)) + electronic noise,   p_measured = -log(max(N, 1/2) / I0)

mu is linear in x, mu = slope (x - air), so that line integrals of x follow from those of mu: A x = p / slope + air A 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

LOWEST_COUNT = 0.5
"""Counts below it are raised to it before the logarithm: no photon arrived, but nothing is infinitely dense."""


@dataclass(frozen=True)
class HounsfieldScale:
    """Between Hounsfield units, attenuation and the prior's range.

    Args:
        low, high: HU that become -1 and 1.
        water: attenuation of water in 1/mm: 0.0192 at about 70 keV, a usual mean energy of a 120 kV spectrum.
    """

    low: float = -1000.0
    high: float = 1000.0
    water: float = 0.0192

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"the HU window must rise, got {self.low:g} to {self.high:g}")
        if not self.water > 0:
            raise ValueError(f"the attenuation of water must be positive (1/mm), got {self.water}")

    @property
    def slope(self) -> float:
        """Attenuation in 1/mm per unit of the prior's range."""
        return self.water * (self.high - self.low) / 2000

    @property
    def air(self) -> float:
        """The prior's value of nothing: -1000 HU."""
        return self.from_hu(-1000.0)

    def from_hu(self, hu):
        return (hu - self.low) * (2 / (self.high - self.low)) - 1

    def to_hu(self, x):
        return self.low + (x + 1) * ((self.high - self.low) / 2)

    def attenuation(self, hu):
        """1/mm; below -1000 HU it is negative, as noise in air is."""
        return (hu / 1000 + 1) * self.water


class ScaleProjectionsd(MapTransform, InvertibleTransform):
    """Line integrals of attenuation become line integrals of the prior's x, in mm; inverse: volumes of x become HU.

    Args:
        keys: projections (1, views, columns, rows).
        operator: builds their operator (bundle.operators.Tomography, with `background` the scale's `air`).
        scale: the HounsfieldScale.
        label_key: a volume in HU, brought to the prior's range if it is there.
    """

    def __init__(self, keys, operator, scale: HounsfieldScale, label_key: str = "label") -> None:
        MapTransform.__init__(self, keys)
        if operator.background != scale.air:
            raise ValueError(
                f"the operator's background is {operator.background:g}, but air is {scale.air:g} in this scale: "
                "set background to the scale's air"
            )
        self.operator, self.scale, self.label_key = operator, scale, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            operator = self.operator.for_measurement(d[key])
            ones = operator.forward(torch.ones(operator.domain_shape))
            d[key] = d[key] / self.scale.slope + self.scale.air * ones
            if isinstance(d[key], MetaTensor):
                self.push_transform(d[key])
        if self.label_key in d:
            d[self.label_key] = self.scale.from_hu(d[self.label_key])
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            self.pop_transform(d[key])
            d[key] = self.scale.to_hu(d[key])
        return d


def count_photons(line_integrals: torch.Tensor, photons: float, electronic_noise: float, seed: int) -> torch.Tensor:
    """Line integrals as a detector sees them that receives `photons` photons per element through air.

    Args:
        photons: I0, positive.
        electronic_noise: standard deviation of the read-out, in counts.
        seed: of the random draws.
    """
    if not (photons > 0 and electronic_noise >= 0):
        raise ValueError(
            f"photons must be positive and electronic_noise not negative, got {photons} and {electronic_noise}"
        )
    random = np.random.default_rng(seed)
    counts = random.poisson(photons * np.exp(-line_integrals.double().numpy())).astype(np.float64)
    if electronic_noise:
        counts += random.normal(0, electronic_noise, counts.shape)
    return line_integrals_of(torch.from_numpy(counts), photons).to(line_integrals.dtype)


def line_integrals_of(counts: torch.Tensor, air: float) -> torch.Tensor:
    """-log(max(counts, 1/2) / air)."""
    return -torch.log(counts.clamp_min(LOWEST_COUNT) / air)


class SimulateProjectionsd(MapTransform):
    """Replaces a volume in HU by its simulated projections and keeps the volume as the truth.

    What follows sees the noisy line integrals alone.

    Args:
        keys: volume (1, X, Y, Z) in HU.
        operator: builds the operator for a volume (`for_volume`).
        scale: the HounsfieldScale.
        photons: I0 of Poisson noise, per detector element; None for none.
        electronic_noise: standard deviation in counts, only with photons.
        seed: of the noise.
        label_key: where the truth goes.
    """

    def __init__(self, keys, operator, scale: HounsfieldScale, photons: float | None = None,
                 electronic_noise: float = 0.0, seed: int = 0, label_key: str = "label") -> None:  # fmt: skip
        super().__init__(keys)
        if electronic_noise and photons is None:
            raise ValueError(f"electronic_noise is {electronic_noise} counts, but photons is not set: give both")
        self.operator, self.scale, self.label_key = operator, scale, label_key
        self.photons, self.electronic_noise, self.seed = photons, electronic_noise, seed

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        operator = self.operator.for_volume(volume)
        projections = operator.forward(self.scale.attenuation(volume.as_tensor().float()))
        if self.photons is not None:
            projections = count_photons(projections, self.photons, self.electronic_noise, self.seed)
        d[key] = with_scan(projections, operator.geometry, operator.grid, volume)
        d[self.label_key] = volume
        return d


def with_scan(projections: torch.Tensor, geometry, grid, source: MetaTensor) -> MetaTensor:
    """Projections with their geometry and grid, as text, and with the name and history of a volume."""
    meta = {k: v for k, v in source.meta.items() if k in ("filename_or_obj",)}
    meta |= {"geometry": geometry.to_json(), "grid": grid.to_json()}
    return MetaTensor(projections, meta=meta, applied_operations=source.applied_operations)
