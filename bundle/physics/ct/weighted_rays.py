"""Rays that count by what is known of them: line integrals weighted by the inverse of their variance.

    B = W^(1/2) A,    y_B = W^(1/2) y,    |B x - y_B|^2 = sum over rays of  w (A x - y)^2,    w = s^2 / v

v is the variance of a ray's line integral (counting.py), and s^2 = 1 / mean(1 / v), so that the mean of w is 1 and the
noise of y_B is white, of standard deviation s: what knows least squares alone solves the weighted problem (generalised
least squares; for CT: Sauer and Bouman, IEEE Trans. Signal Process. 1993; Thibault et al., Med. Phys. 2007).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.files.memory import array_bytes
from bundle.files.values import choice
from bundle.physics.ct.attenuation import HounsfieldScale
from bundle.physics.ct.counting import RayNoise
from bundle.physics.ct.ray_transform import RayTransform
from bundle.physics.linear_operator import LinearOperator
from bundle.physics.measurement import operator_of

WEIGHTS = ("auto", "transmission", "none")
LEAST_ROW = 1e-3
"""Least W^(1/2), by which y_B is divided for filtered back-projection, whose rays all count alike."""


class WeightedRays(RayTransform):
    """The rays of an operator, each times a number.

    Args:
        rays: A.
        rows: (views, columns, rows), W^(1/2), positive.
        deviation: s, of the noise in a measurement y_B, in the measurement's unit; None where it is not known.
    """

    def __init__(self, rays: RayTransform, rows: torch.Tensor, deviation: float | None = None) -> None:
        if tuple(rows.shape) != rays.range_shape:
            raise ValueError(
                f"there are weights for {tuple(rows.shape)} rays, and {rays.range_shape} rays are measured"
            )
        if not bool((rows > 0).all()):
            raise ValueError("the weights of rays must be positive: give rays that tell nothing a small one")
        super().__init__(rays.geometry, rays.grid, rays.background)
        self.rays, self.rows, self.deviation = rays, rows.float(), deviation
        self.separable_axes = rays.separable_axes
        self._cast: dict[tuple, tuple[torch.Tensor, ...]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rays.forward(x).mul_(self._rows_on(x))

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        self._check(y, self.range_shape, "measurement")
        return self.rays.adjoint(y * self._rows_on(y))

    def weigh(self, y: torch.Tensor) -> torch.Tensor:
        """y_B of line integrals y."""
        return y * self._rows_on(y)

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection of the line integrals themselves."""
        return self.rays.linear_reconstruction(y / self._rows_on(y))

    def unweighted(self, y: torch.Tensor) -> tuple[LinearOperator, torch.Tensor, torch.Tensor]:
        rows = self._rows_on(y)
        return self.rays, y / rows, (rows * (self.rays.norm / self.norm)).square_()

    def noise_norm(self, y: torch.Tensor) -> float:
        """As counts say, where they are known."""
        return super().noise_norm(y) if self.deviation is None else self.deviation * y.numel() ** 0.5

    def noise_deviation(self, y: torch.Tensor) -> float:
        """s."""
        return self.noise_norm(y) / y.numel() ** 0.5

    def working_bytes(self) -> float:
        """A weighted measurement beside those of A."""
        return self.rays.working_bytes() + array_bytes(self.range_shape)

    def kept_bytes(self) -> float:
        """And the weights."""
        return self.rays.kept_bytes() + array_bytes(self.range_shape)

    def starting_bytes(self) -> float:
        """Line integrals beside what A takes."""
        return self.rays.starting_bytes() + array_bytes(self.range_shape)

    def _range_box(self, box: tuple[slice, ...]) -> tuple[slice, ...]:
        return self.rays.range_box(box)

    def _cut(self, box: tuple[slice, ...]) -> None:
        there = self._range_box(box)
        super()._cut(box)
        self.rays, self.rows, self._cast = self.rays.on(box), self.rows[there], {}
        self.geometry, self.grid = self.rays.geometry, self.rays.grid

    def _rows_on(self, like: torch.Tensor) -> torch.Tensor:
        key = (like.device, like.dtype)
        if key not in self._cast:
            self._cast[key] = (self.rows.to(like),)
        return self._cast[key][0]


def rows_of(noise: RayNoise) -> tuple[torch.Tensor, float]:
    """(W^(1/2), s) of rays with these variances; raises ValueError where no ray tells anything."""
    precision = 1 / noise.variance.astype(np.float64)
    mean = float(precision.mean())
    if not 0 < mean < np.inf:
        raise ValueError("no ray has a variance that is positive and finite: check air_counts")
    return torch.from_numpy(np.sqrt(precision / mean)).float().clamp_min(LEAST_ROW), mean**-0.5


class WeighRaysd(MapTransform):
    """Gives projections whose noise is known the weighted operator, and weighs them; others pass.

    Args:
        keys: projections (1, views, columns, rows) in the prior's scale, with their operator, and in `meta` the
            "noise" of the line integrals (RayNoise).
        scale: the HounsfieldScale.
        weights: "auto": by the noise, where it is known, of counts; "transmission": where it is not known, by
            v = exp(p), as of counts of an unknown number; "none": all rays alike.
    """

    def __init__(self, keys, scale: HounsfieldScale, weights: str = "auto") -> None:
        super().__init__(keys)
        self.scale, self.weights = scale, choice("ray_weights", weights, WEIGHTS)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            noise, known = d[key].meta.get("noise"), True
            if noise is None and self.weights == "transmission":
                noise, known = RayNoise(np.exp(self._line_integrals(d[key]))), False
            if noise is None or self.weights == "none":
                continue
            rows, deviation = rows_of(noise)
            operator = WeightedRays(operator_of(d[key]), rows, deviation / self.scale.slope if known else None)
            weighted = operator.weigh(d[key].as_tensor())
            d[key] = MetaTensor(weighted, meta=d[key].meta, applied_operations=d[key].applied_operations)
            d[key].meta["operator"] = operator
        return d

    def _line_integrals(self, y: MetaTensor) -> np.ndarray:
        """p of projections in the prior's scale, but for noise below 0."""
        operator = operator_of(y)
        of_air = operator.forward(torch.full(operator.domain_shape, self.scale.air))
        return ((y.as_tensor()[0] - of_air) * self.scale.slope).clamp_min(0.0).double().numpy()
