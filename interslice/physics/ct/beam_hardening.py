"""Beam hardening of water: the line integrals that a spectrum measures, and those at one energy.

    q(L) = -log( sum_E S(E) exp(-mu(E) L) )       L mm of water, S the share of the detector's signal at energy E
    p    = mu_w L                                 mu_w at the energy that HU refer to
    p    = c_1 q + c_2 q^2 + ...                  fitted for 0 to LONGEST mm of water

Soft rays are absorbed first, so that q grows more slowly than L: discs of water look hollow (cupping). The polynomial
undoes it for water and what attenuates like it; bone and metal are left with what differs (Herman, "Correction for beam
hardening in computed tomography", Phys. Med. Biol. 1979).

A tube of U kV has Kramers' spectrum, U / E - 1 photons per keV, behind aluminium; the detector adds energies up:

    S(E) = E (U / E - 1) exp(-mu_Al(E) d),    normalised to a sum of 1
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from numbers import Real

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import number
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.usage import UsageError

ENERGIES = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
"""keV of the two tables: Hubbell and Seltzer, "Tables of X-ray mass attenuation coefficients", NISTIR 5632 (NIST)."""
WATER = (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505)
"""cm^2 / g of water, of density 1."""
ALUMINIUM = (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378)
"""cm^2 / g of aluminium, of density 2.699."""
FILTER = 6.0
"""mm of aluminium that stand for tube, housing and filter."""
LONGEST = 500.0
"""mm of water up to which the polynomial is fitted."""
ORDER = 4
TUBES = (40.0, 150.0)
"""kV."""


def attenuation(table: Sequence[float], density: float, energies: np.ndarray) -> np.ndarray:
    """1/mm at energies (keV), between those of a table along straight lines of the logarithms."""
    return np.exp(np.interp(np.log(energies), np.log(ENERGIES), np.log(table))) * density / 10


def spectrum(kilovolts: float, aluminium: float = FILTER) -> tuple[np.ndarray, np.ndarray]:
    """Energies in keV, and the share of each in the detector's signal without an object."""
    energies = np.arange(ENERGIES[0], kilovolts, 1.0)
    signal = energies * (kilovolts / energies - 1) * np.exp(-attenuation(ALUMINIUM, 2.699, energies) * aluminium)
    return energies, signal / signal.sum()


def hardened(lengths: np.ndarray, kilovolts: float, aluminium: float = FILTER) -> np.ndarray:
    """q of lengths of water in mm."""
    energies, shares = spectrum(kilovolts, aluminium)
    passed = np.exp(-np.multiply.outer(lengths, attenuation(WATER, 1.0, energies)))
    return -np.log(passed @ shares)


def water_polynomial(kilovolts: float, water: float, aluminium: float = FILTER) -> tuple[float, ...]:
    """c_1, c_2, ... of a tube, by relative least squares.

    Args:
        kilovolts: U.
        water: mu_w in 1/mm.
        aluminium: d in mm.
    """
    lengths = np.linspace(1.0, LONGEST, 500)
    q, p = hardened(lengths, kilovolts, aluminium), water * lengths
    powers = q[:, None] ** np.arange(1, ORDER + 1)
    return tuple(np.linalg.lstsq(powers / p[:, None], np.ones_like(p), rcond=None)[0].tolist())


class CorrectHardeningd(MapTransform):
    """Line integrals of a spectrum become those at one energy, as far as what they passed was water.

    Args:
        keys: projections (1, views, columns, rows), line integrals as they were measured; their "noise" follows.
        hardening: nothing; the voltage of the tube in kV; or c_1, c_2, ...
        scale: the HounsfieldScale, for mu_w.

    Raises:
        UsageError: neither of these, or a polynomial that does not rise.
    """

    def __init__(self, keys, hardening: float | Sequence[float] | None, scale: HounsfieldScale) -> None:
        super().__init__(keys)
        if hardening is None:
            self.coefficients: tuple[float, ...] = ()
        elif isinstance(hardening, Sequence) and not isinstance(hardening, str):
            if not all(isinstance(c, Real) and np.isfinite(c) for c in hardening):
                raise UsageError(f"beam_hardening must be numbers, the coefficients of q, q^2, ..., got {hardening!r}")
            self.coefficients = tuple(map(float, hardening))
        elif isinstance(hardening, Real):
            kilovolts = number("beam_hardening", hardening, *TUBES, kind="a tube voltage in kV")
            self.coefficients = water_polynomial(kilovolts, scale.water)
        else:
            raise UsageError(
                f"beam_hardening must be nothing, a tube voltage in kV, or the coefficients of q, q^2, ..., got "
                f"{hardening!r}"
            )
        if self.coefficients and not self.coefficients[0] > 0:
            raise UsageError(
                f"beam_hardening must begin with the coefficient of q, above 0 and near 1, got {hardening!r}"
            )

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.coefficients:
                q, meta = d[key].as_tensor().double().numpy(), dict(d[key].meta)
                p, slope = self.corrected(q), self.slope(q)
                if not slope[q > 0].min(initial=1.0) > 0:
                    raise ValueError(
                        f"{meta.get('filename_or_obj', 'the projections')}: the polynomial of beam_hardening falls "
                        f"within the line integrals of this scan, up to {q.max():.3g}: it is not for them"
                    )
                if "noise" in meta:
                    meta["noise"] = meta["noise"].changed(slope[0])
                d[key] = MetaTensor(torch.from_numpy(p).float(), meta=meta)
        return d

    def corrected(self, q: np.ndarray) -> np.ndarray:
        """p of q; below 0, where noise in air lies, along the tangent at 0."""
        above = np.maximum(q, 0.0)
        p = sum(c * above**k for k, c in enumerate(self.coefficients, 1))
        return p + self.coefficients[0] * np.minimum(q, 0.0)

    def slope(self, q: np.ndarray) -> np.ndarray:
        """dp / dq."""
        above = np.maximum(q, 0.0)
        return sum(k * c * above ** (k - 1) for k, c in enumerate(self.coefficients, 1)) * np.ones_like(q)
