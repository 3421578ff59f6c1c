"""Projections of a known volume, with the noise of counted photons: what `read` gives of a measured scan.

N  ~ Poisson(I0 exp(-p)) + electronic noise,     p = A mu;      what N says of p is in counting.py
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import number, whole_number
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.counting import rays_of
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.measurement import Scanner, origin_of
from interslice.usage import UsageError


class SimulateProjectionsd(MapTransform):
    """Replaces a volume in HU by its simulated projections and keeps the volume as the truth.

    What follows sees the noisy line integrals alone.

    Args:
        keys: volume (1, X, Y, Z) in HU.
        scanner: measures the volume (interslice.physics.ct.Tomography).
        scale: the HounsfieldScale.
        photons: I0 of Poisson noise, per detector element; None for none.
        electronic_noise: standard deviation in counts, only with photons.
        seed: of the noise.
        label_key: where the truth goes.
    """

    def __init__(self, keys, scanner: Scanner, scale: HounsfieldScale, photons: float | None = None,
                 electronic_noise: float = 0.0, seed: int = 0, label_key: str = "label") -> None:  # fmt: skip
        super().__init__(keys)
        if electronic_noise and photons is None:
            raise UsageError(f"electronic_noise is {electronic_noise} counts, but photons is not set: give both")
        self.scanner, self.scale, self.label_key = scanner, scale, label_key
        self.photons = photons if photons is None else number("photons", photons, above=0)
        self.electronic_noise = number("electronic_noise", electronic_noise, 0, kind="a number of counts")
        self.seed = whole_number("seed", seed)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        operator = self.scanner.for_volume(volume)
        projections = operator.forward(self.scale.attenuation(volume.as_tensor().float()))
        noise = {}
        if self.photons is not None:
            counts = count_photons(projections, self.photons, self.electronic_noise, self.seed)
            p, noise["noise"] = rays_of(counts[0].numpy(), self.photons, self.electronic_noise)
            projections = torch.from_numpy(p)[None]
        d[key] = with_scan(projections, operator.geometry, operator.grid, volume)
        d[key].meta |= noise
        d[self.label_key] = volume
        return d


def count_photons(line_integrals: torch.Tensor, photons: float, electronic_noise: float, seed: int) -> torch.Tensor:
    """Counts, float64, of a detector that receives `photons` photons per element through air.

    Args:
        line_integrals: of any shape.
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
    return torch.from_numpy(counts)


def with_scan(projections: torch.Tensor, geometry: ScanGeometry, grid: Grid, source: MetaTensor) -> MetaTensor:
    """Projections with their geometry and grid, and with the name and history of a volume."""
    meta = origin_of(source) | {"geometry": geometry, "grid": grid}
    return MetaTensor(projections, meta=meta, applied_operations=source.applied_operations)
