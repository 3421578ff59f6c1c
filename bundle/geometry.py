"""A reconstructed volume beside its measurement: the operator knows where it lies, the measurement where it is from."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from monai.data import MetaTensor


class Placing(Protocol):
    """What is asked of an operator."""

    def domain_affine(self, range_affine: torch.Tensor) -> torch.Tensor: ...


def with_geometry(
    volume: torch.Tensor, measurement: MetaTensor, operator: Placing, notes: dict | None = None
) -> MetaTensor:
    """(1, X, Y, Z) result with the operator's affine, the history of its measurement, and notes in its metadata."""
    meta = {k: copy.deepcopy(v) for k, v in measurement.meta.items() if k != "affine"}
    meta |= {"spatial_shape": list(volume.shape), **(notes or {})}
    return MetaTensor(
        volume[None],
        affine=operator.domain_affine(measurement.affine),
        meta=meta,
        applied_operations=copy.deepcopy(measurement.applied_operations),
    )
