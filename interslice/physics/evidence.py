"""Which part of a result the measurement determines, and which part the prior filled in.

    x = background + A^+ A (x - background)  +  filled          filled lies in the null space of A: A filled = 0

A^+ A projects onto what A sees. Two volumes with the same measurement differ in `filled` alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.transforms import MapTransform

from interslice.files.findings import findings_of
from interslice.files.switch import is_on
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of


def measured_part(
    x: torch.Tensor, operator: LinearOperator, iterations: int = 50, tolerance: float = 1e-4
) -> torch.Tensor:
    """A^+ A x of a volume (X, Y, Z).

    Where A^+ takes conjugate gradients, they begin at zero and are stopped early, as it would amplify the noise:
    directions that A hardly sees count as not measured.
    """
    return operator.pseudo_inverse(operator.forward(x), iterations=iterations, tolerance=tolerance)


class SplitEvidenced(MapTransform):
    """Adds the part of a result that the prior filled in to its findings, as the map "filled".

    Args:
        keys: results (1, X, Y, Z) in the prior's range.
        enabled: a switch; where it is off, data pass as they are.
        image_key: the measurement.
        iterations: of conjugate gradients, for operators without a closed form.
    """

    def __init__(self, keys, enabled: bool | str = True, image_key: str = "image", iterations: int = 50) -> None:
        super().__init__(keys)
        self.enabled, self.image_key, self.iterations = is_on(enabled, "evidence"), image_key, iterations

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        if not self.enabled:
            return d
        operator = operator_of(d[self.image_key])
        for key in self.key_iterator(d):
            x = d[key].as_tensor()[0] - operator.background
            filled = x - measured_part(x, operator, self.iterations)
            d[key].meta["findings"] = findings_of(d[key]).with_map("filled", filled[None])
        return d
