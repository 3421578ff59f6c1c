"""Does a result agree with its measurement, as far as noise allows?

    |A x - y| / |y|  >  SLACK (limit + noise),        noise = |n| / |y|, estimated from y

says that y was not made by A, whatever the prior: a wrong geometry, unit, layout or scale. `limit` is what is left of
right measurements without noise, on which operators know their own; so do they the noise in y. That it is not exceeded
proves nothing: with few data much fits that is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from dataclasses import replace

import torch
from monai.transforms import MapTransform

from interslice.files.doubts import doubts_of
from interslice.files.find import case_of
from interslice.files.findings import findings_of
from interslice.files.values import number
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of

SLACK = 1.5
"""Residuals of right measurements stay below `limit` + noise; docs/reference/result_files.md has the figures."""


def misfit(residual: float, y: torch.Tensor, operator: LinearOperator, slack: float = SLACK) -> str | None:
    """What a residual says against a measurement, in words, or None.

    Args:
        residual: |A x - y| / |y|.
        y: (*range_shape).
        slack: times `limit` and noise that is allowed.
    """
    noise = operator.noise_norm(y) / max(float(y.norm()), 1e-12)
    allowed = slack * (operator.misfit_limit + noise)
    if not residual > allowed:
        return None
    return (
        f"the result does not agree with the measurement: relative_residual is {residual:.2g}, and at most "
        f"{allowed:.2g} is usual for this scan and its noise. Likely causes: {operator.misfit_causes}"
    )


class Judged(MapTransform):
    """Adds to the findings of results what is doubtful about them, and says it on stderr.

    That is what their measurements carry (interslice.files.doubts), and whether they agree with them.

    Args:
        keys: results (1, X, Y, Z) in the prior's range, with their findings.
        image_key: the measurement.
        slack: see `misfit`; None for solvers that do not follow the measurement.
    """

    def __init__(self, keys, image_key: str = "image", slack: float | None = SLACK) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.slack = None if slack is None else number("slack", slack, above=0)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            found, said = findings_of(d[key]), list(doubts_of(image))
            if self.slack is not None:
                y = image.as_tensor()[0].float()
                said += filter(None, [misfit(found.relative_residual, y, operator_of(image), self.slack)])
            d[key].meta["findings"] = replace(found, doubts=tuple(said))
            for sentence in said:
                print(f"doubt about {case_of(image)}: {sentence}", file=sys.stderr, flush=True)
        return d
