"""Hounsfield units, attenuation, line integrals, and the prior's range.

mu  = mu_w (1 + HU / 1000)                         attenuation in 1/mm; mu_w is water's
HU  = low + (x + 1) / 2 (high - low)               x: the prior's range, -1 at `low` and 1 at `high`, not clipped
p   = A mu = -log(N / I0)                          line integrals, without unit; N of I0 photons arrive
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import number
from interslice.usage import UsageError

LOWEST_COUNT = 0.5
"""Counts below it are raised to it before the logarithm: no photon arrived, but nothing is infinitely dense."""
LARGEST_TRANSMISSION_AIR = 2.0
"""So low a count through air is no count: values are transmission, shares of what the source sends."""
LOWEST_TRANSMISSION = 1e-6
"""Transmission below it is raised to it; detectors tell no more than 1e5 or 1e6 levels apart."""


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
        number("low", self.low, kind="a number of HU")
        number("high", self.high, kind="a number of HU")
        if not self.high > self.low:
            raise UsageError(f"the HU window must rise, got {self.low:g} to {self.high:g}")
        number("water", self.water, above=0, kind="an attenuation in 1/mm")

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


def line_integrals_of(counts: torch.Tensor, air: float) -> torch.Tensor:
    """-log(max(counts, lowest) / air), of counts or of transmission; see `lowest_of`."""
    return -torch.log(counts.clamp_min(lowest_of(air)) / air)


def lowest_of(air: float) -> float:
    """Half a count; of transmission, where `air` is about 1, a millionth."""
    return LOWEST_COUNT if air > LARGEST_TRANSMISSION_AIR else LOWEST_TRANSMISSION


class CheckHounsfieldd(MapTransform):
    """Passes on volumes in Hounsfield units; raises ValueError, naming the file, for what plainly is not.

    Even a crop without air reaches down to fat (about -100), and none is all air. Many scanners write values below
    -1024 outside the field of view: these become -1024.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            low, high = float(d[key].min()), float(d[key].max())
            if not (low < -50 and -200 < high < 40000):
                name = (
                    d[key].meta.get("filename_or_obj", "the image") if isinstance(d[key], MetaTensor) else "the image"
                )
                raise ValueError(
                    f"{name}: values from {low:g} to {high:g} are not Hounsfield units (air is -1000, water 0); "
                    "rescale the volume, or apply its rescale slope and intercept"
                )
            d[key] = d[key].clamp_min(-1024.0)
        return d
