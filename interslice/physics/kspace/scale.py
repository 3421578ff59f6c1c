"""k-space of an image to that of the prior's x, and volumes of x back to the image.

    x = background + (1 - background) v / u        v: image, 0 without signal; u: intensity that becomes 1
    A x = (1 - background) A v / u + background A 1

v is known only through k-space A v, so u is a percentile of a quick reconstruction (interslice.physics.intensity).
Nothing is clipped, so the inverse is exact: v = u (x - background) / (1 - background).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from interslice.physics.intensity import intensity_range
from interslice.physics.kspace.cartesian_mri import CartesianMRI
from interslice.physics.measurement import operator_of


class ScaleKspaced(MapTransform, InvertibleTransform):
    """k-space of an image becomes k-space of the prior's x (see above); inverse: volumes of x become the image.

    Args:
        keys: k-space (1, C, Z, KY, KX, 2) with its operator, whose `background` is x without signal.
        iterations: of the least squares that u is taken from.
        label_key: an image, brought to the prior's range if it is there.
    """

    def __init__(self, keys, iterations: int = 5, label_key: str = "label") -> None:
        MapTransform.__init__(self, keys)
        self.iterations, self.label_key = iterations, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            operator = operator_of(d[key])
            background, slope = operator.background, 1 - operator.background
            upper = self._upper(d[key].as_tensor()[0].float(), operator)
            air = operator.forward(torch.full(operator.domain_shape, background, device=d[key].device))
            d[key] = d[key] * (slope / upper) + air
            if isinstance(d[key], MetaTensor):
                self.push_transform(d[key], extra_info={"upper": upper, "background": background})
            if self.label_key in d:
                d[self.label_key] = d[self.label_key] * (slope / upper) + background
        return d

    def _upper(self, kspace: torch.Tensor, operator: CartesianMRI) -> float:
        """The intensity that becomes 1."""
        image = operator.zero_filled(kspace)
        image = operator.conjugate_gradient(image, kspace, 0.0, self.iterations, tolerance=1e-6)
        return intensity_range(image)[1]

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            info = self.pop_transform(d[key])["extra_info"]
            upper, background = info["upper"], info["background"]
            d[key] = (d[key] - background) * (upper / (1 - background))
        return d
