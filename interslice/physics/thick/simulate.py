"""Thick slices of a known volume: what `read` gives of a scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import number, whole_number
from interslice.physics.measurement import SIMULATED, Scanner


class SimulateMeasurementd(MapTransform):
    """Replaces a volume by its simulated measurement and keeps the volume itself as the truth.

    The measurement carries the operator that made it, so that result and truth share one grid.

    Args:
        keys: the volume; it becomes the measurement, with the measurement's affine.
        scanner: measures the volume (interslice.physics.thick.ThroughPlaneSampling).
        label_key: where the truth goes, cropped to what the measurement covers.
        region_key: a mask of the volume's grid, cropped alike, if it is there.
        noise_std: standard deviation of Gaussian noise on the measurement, as a share of the volume's maximum.
        seed: of that noise.
    """

    def __init__(self, keys, scanner: Scanner, label_key: str = "label", region_key: str = "region",
                 noise_std: float = 0.0, seed: int = 0) -> None:  # fmt: skip
        super().__init__(keys)
        self.scanner, self.label_key, self.region_key = scanner, label_key, region_key
        # A standard deviation of the whole range leaves nothing to reconstruct.
        self.noise_std = number("measurement_noise", noise_std, 0, below=1, kind="a share of the volume's maximum")
        self.seed = whole_number("seed", seed)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        operator = self.scanner.for_volume(volume)
        covered = (slice(None), *(slice(n) for n in operator.domain_shape))
        truth = volume[covered]
        if self.region_key in d:
            d[self.region_key] = d[self.region_key][covered]
        measured = operator.forward(truth.as_tensor())
        if self.noise_std:
            noise = np.random.default_rng(self.seed).normal(0, self.noise_std * float(volume.max()), measured.shape)
            measured = measured + torch.from_numpy(noise).to(measured)
        meta = {k: v for k, v in volume.meta.items() if k not in ("affine", "slice_thickness")}  # the truth's
        # The scan alone does not tell the truth's grid: 0.5 x 0.5 x 5 mm looks like one of 0.5 mm.
        meta[SIMULATED] = operator
        d[key] = MetaTensor(
            measured,
            affine=operator.range_affine(volume.affine),
            meta=meta,
            applied_operations=volume.applied_operations,
        )
        d[self.label_key] = truth
        return d
