"""Which part of a result the measurement determines, and which part the prior filled in.

    x = background + A^+ A (x - background)  +  filled          filled lies in the null space of A: A filled = 0

A^+ A projects onto what A sees. Two volumes with the same measurement differ in `filled` alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.transforms import MapTransform

from bundle.linear_solvers import conjugate_gradient


def measured_part(x: torch.Tensor, operator, iterations: int = 50, tolerance: float = 1e-4) -> torch.Tensor:
    """A^+ A x of a volume (X, Y, Z), in closed form or by conjugate gradients from zero.

    Conjugate gradients are stopped early, as A^+ would amplify the noise: directions that A hardly sees count as not
    measured.
    """
    y = operator.forward(x)
    if operator.closed_form:
        return operator.pseudo_inverse(y)
    return conjugate_gradient(operator.normal, operator.adjoint(y), torch.zeros_like(x), iterations, tolerance)


class SplitEvidenced(MapTransform):
    """Puts the part of a result that the prior filled in, (X, Y, Z), into its metadata as "filled".

    Args:
        keys: results (1, X, Y, Z) in the prior's range.
        operator: builds the operator for a measurement.
        image_key: the measurement.
        iterations: of conjugate gradients, for operators without a closed form.
    """

    def __init__(self, keys, operator, image_key: str = "image", iterations: int = 50) -> None:
        super().__init__(keys)
        self.operator, self.image_key, self.iterations = operator, image_key, iterations

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        operator = self.operator.for_measurement(d[self.image_key])
        for key in self.key_iterator(d):
            x = d[key].as_tensor()[0] - operator.background
            d[key].meta["filled"] = x - measured_part(x, operator, self.iterations)
        return d
