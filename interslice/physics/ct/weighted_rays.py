"""Rays that count by what is known of them: line integrals weighted by the inverse of their variance.

    B = W^(1/2) A,    y_B = W^(1/2) y,    |B x - y_B|^2 = sum over rays of  w (A x - y)^2,    w = s^2 / (v + e^2)

v is the variance of a ray's line integral (counting.py) and e, MODEL_ERROR, what the model itself lacks: no ray is
known better. s^2 = 1 / mean(1 / (v + e^2)), so that the mean of w is 1 and the errors of y_B are white, of standard
deviation s: what knows least squares alone solves the weighted problem (generalised least squares; for CT: Sauer and
Bouman, IEEE Trans. Signal Process. 1993; Thibault et al., Med. Phys. 2007).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.memory import array_bytes
from interslice.files.values import choice
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.ray_transform import RayTransform
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of

MODEL_ERROR = 0.02
"""e, of a line integral. By scripts.studies.ct_noise: without it weights of 1e6 photons cost 0.3 to 0.4 dB, and
with 0.04 those of 1e4 and 1e5 gain less; it also lets iterations follow faster."""
WEIGHTS = ("auto", "transmission", "none")
LEAST_ROW = 1e-3
"""Least W^(1/2), by which y_B is divided for filtered back-projection, whose rays all count alike."""


CANDIDATES = 4
"""Slices among which the largest |B| is looked for."""


class WeightedRays(RayTransform):
    """The rays of an operator, each times a number.

    Args:
        rays: A.
        rows: (views, columns, rows), W^(1/2), positive.
        deviation: s, in the measurement's unit; None for what is found in y, of a part in the part.
        noise: the part of s that is noise and no model error; None where it is not known.
    """

    def __init__(self, rays: RayTransform, rows: torch.Tensor, deviation: float | None = None,
                 noise: float | None = None) -> None:  # fmt: skip
        if tuple(rows.shape) != rays.range_shape:
            raise ValueError(
                f"there are weights for {tuple(rows.shape)} rays, and {rays.range_shape} rays are measured"
            )
        if not bool((rows > 0).all()):
            raise ValueError("the weights of rays must be positive: give rays that tell nothing a small one")
        super().__init__(rays.geometry, rays.grid, rays.background)
        self.rays, self.rows, self.deviation, self.noise = rays, rows.float(), deviation, noise
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

    def _norm(self) -> float:
        """Of separable rays the largest of their slices', which few are asked for: those that pass most at first."""
        count = self.domain_shape[2]
        if self.separable_axes != (2,) or count == 1:
            return super()._norm()
        x = torch.rand(self.domain_shape, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            x = self.normal(x / x.norm(dim=(0, 1)))
        largest = x.norm(dim=(0, 1)).topk(min(CANDIDATES, count)).indices.tolist()
        return max(self.on((slice(None), slice(None), slice(s, s + 1)))._norm() for s in largest)

    def noise_norm(self, y: torch.Tensor) -> float:
        """As counts say, where they are known."""
        return super().noise_norm(y) if self.noise is None else self.noise * y.numel() ** 0.5

    def noise_deviation(self, y: torch.Tensor) -> float:
        """s; what is found in y where it is not known."""
        return super().noise_norm(y) / y.numel() ** 0.5 if self.deviation is None else self.deviation

    def working_bytes(self) -> float:
        """A weighted measurement beside those of A."""
        return self.rays.working_bytes() + array_bytes(self.range_shape)

    def unweighted_bytes(self) -> float:
        return self.rays.working_bytes() + 3 * array_bytes(self.range_shape)

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


def rows_of(noise: RayNoise, error: float = MODEL_ERROR) -> tuple[torch.Tensor, float, float]:
    """(W^(1/2), s, the part of s that is noise) of rays with these variances.

    Raises:
        ValueError: no ray tells anything.
    """
    precision = 1 / (noise.variance.astype(np.float64) + error**2)
    mean = float(precision.mean())
    if not 0 < mean < np.inf:
        raise ValueError("no ray has a variance that is positive and finite: check air_counts")
    rows = torch.from_numpy(np.sqrt(precision / mean)).float().clamp_min(LEAST_ROW)
    of_noise = float((1 - error**2 * precision).mean())  # v / (v + e^2), 1 where nothing was measured
    return rows, mean**-0.5, (of_noise / mean) ** 0.5


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
            rows, *deviations = rows_of(noise, MODEL_ERROR if known else 0.0)
            operator = WeightedRays(operator_of(d[key]), rows, *(s / self.scale.slope for s in deviations if known))
            weighted = operator.weigh(d[key].as_tensor())
            if not known:  # found once: every part of the volume has that of the whole
                operator.deviation = operator.noise_deviation(weighted[0])
            d[key] = MetaTensor(weighted, meta=d[key].meta, applied_operations=d[key].applied_operations)
            d[key].meta["operator"] = operator
        return d

    def _line_integrals(self, y: MetaTensor) -> np.ndarray:
        """p of projections in the prior's scale, but for noise below 0."""
        operator = operator_of(y)
        of_air = operator.forward(torch.full(operator.domain_shape, self.scale.air))
        return ((y.as_tensor()[0] - of_air) * self.scale.slope).clamp_min(0.0).double().numpy()
