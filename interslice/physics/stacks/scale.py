"""The scanner's intensities of several stacks to the range that the prior knows, and volumes back.

    scaled = b_min + (b_max - b_min) (v - lower) / (upper - lower)     lower, upper: of the first stack, for all

(interslice.physics.intensity). Nothing is clipped, so the inverse is exact, and a result has the first stack's
intensities.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from interslice.physics.intensity import intensity_range
from interslice.physics.measurement import operator_of
from interslice.physics.stacks.stacked import deviation_of


class ScaleStacksd(MapTransform, InvertibleTransform):
    """Scales the stacks of a measurement, and makes the measurement of them anew; inverse: volumes of the result.

    From here on the measurement (1, M) has its rows weighted as its operator's are, and the stacks know their noise.

    Args:
        keys: measurements with their operator.
        b_min, b_max: target of the range.
        label_key: a volume in the first stack's intensities, scaled alike if it is there.
    """

    def __init__(self, keys, b_min: float = -1.0, b_max: float = 1.0, label_key: str = "label") -> None:
        MapTransform.__init__(self, keys)
        self.b_min, self.b_max, self.label_key = b_min, b_max, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            operator = operator_of(d[key])
            lower, upper = intensity_range(operator.stacks[0].voxels)
            slope = (self.b_max - self.b_min) / (upper - lower)
            scaled = [s.moved(voxels=(s.voxels - lower).mul_(slope).add_(self.b_min)) for s in operator.stacks]
            d[key] = measured_by(d[key], [s.moved(noise=deviation_of(s)) for s in scaled])
            self.push_transform(d[key], extra_info={"lower": lower, "upper": upper})
            if self.label_key in d:
                d[self.label_key] = (d[self.label_key] - lower).mul_(slope).add_(self.b_min)
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            info = self.pop_transform(d[key])["extra_info"]
            slope = (info["upper"] - info["lower"]) / (self.b_max - self.b_min)
            d[key] = (d[key] - self.b_min) * slope + info["lower"]
        return d


def measured_by(measurement: MetaTensor, stacks) -> MetaTensor:
    """The measurement (1, M) of the same volume by stacks that have changed, and its operator with them."""
    operator = operator_of(measurement).replaced(stacks)
    image = MetaTensor(
        operator.measurement()[None], affine=operator.affine,
        meta={name: value for name, value in measurement.meta.items() if name != "affine"},
        applied_operations=measurement.applied_operations,
    )  # fmt: skip
    image.meta |= {"stacks": operator.stacks, "operator": operator}
    return image
