"""Line integrals of attenuation to those of the prior's x, and volumes of x back to Hounsfield units.

mu = slope (x - air)     so     A x = p / slope + air A 1          p = A mu, as it was measured
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.measurement import operator_of


class ScaleProjectionsd(MapTransform, InvertibleTransform):
    """Line integrals of attenuation become line integrals of the prior's x, in mm; inverse: volumes of x become HU.

    Args:
        keys: projections (1, views, columns, rows) with their operator, whose `background` is the scale's `air`.
        scale: the HounsfieldScale.
        label_key: a volume in HU, brought to the prior's range if it is there.

    Raises:
        ValueError: the operator has another background.
    """

    def __init__(self, keys, scale: HounsfieldScale, label_key: str = "label") -> None:
        MapTransform.__init__(self, keys)
        self.scale, self.label_key = scale, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            operator = operator_of(d[key])
            if operator.background != self.scale.air:
                raise ValueError(
                    f"the operator's background is {operator.background:g}, but air is {self.scale.air:g} in this "
                    "scale: set background to the scale's air"
                )
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
