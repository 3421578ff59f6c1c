"""A measurement knows its operator, and a reconstructed volume where it lies.

The operator is built once, when a measurement has been read, and carried in its metadata. What comes after asks the
measurement for it (`operator_of`).
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Protocol

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.findings import Findings
from interslice.physics.linear_operator import LinearOperator

ORIGIN = ("filename_or_obj", "case", "source")
"""What says where a volume is from: its file, the name of the case, and what else that file says (Source)."""

SIMULATED = "simulated_with"
"""Metadata of a simulated measurement: its operator, where the measurement alone does not tell it."""


class Scanner(Protocol):
    """Builds operators. `operator` of the configs is one: ThroughPlaneSampling, Tomography, CartesianSampling."""

    def for_measurement(self, measurement: MetaTensor) -> LinearOperator:
        """The operator that a measurement (1, ...) was made with, from its shape and metadata.

        Raises:
            ValueError: no operator of this kind fits the measurement.
        """

    def for_volume(self, volume: MetaTensor) -> LinearOperator:
        """The operator that measures a volume (1, X, Y, Z)."""


class Measured(MapTransform):
    """Gives each measurement its operator: of one that was simulated, that which simulated it.

    Args:
        keys: measurements.
        scanner: builds the operator.
        label_key: the truth of a simulation (1, X, Y, Z), where there is one.

    Raises:
        ValueError: the scanner's, with the name of the file; or the truth lies on another grid.
    """

    def __init__(self, keys, scanner: Scanner, label_key: str = "label") -> None:
        super().__init__(keys)
        self.scanner, self.label_key = scanner, label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            try:
                operator = d[key].meta.pop(SIMULATED, None) or self.scanner.for_measurement(d[key])
                check_grid(operator, d.get(self.label_key))
                d[key].meta["operator"] = operator
            except ValueError as error:
                raise ValueError(f"{d[key].meta.get('filename_or_obj', 'the image')}: {error}") from None
        return d


def check_grid(operator: LinearOperator, truth: torch.Tensor | None) -> None:
    """Raise ValueError where a result could not be compared with its truth (1, X, Y, Z)."""
    if truth is not None and tuple(truth.shape[1:]) != tuple(operator.domain_shape):
        grid, other = (" x ".join(map(str, shape)) for shape in (operator.domain_shape, truth.shape[1:]))
        raise ValueError(
            f"the grid to reconstruct on is {grid}, and the truth has {other} voxels: leave out the options of the "
            "grid where the scan is simulated (--operator#spacing, --operator#shape)"
        )


def operator_of(measurement: torch.Tensor) -> LinearOperator:
    """The operator that a measurement carries; raises ValueError if it carries none."""
    operator = getattr(measurement, "meta", {}).get("operator")
    if operator is None:
        raise ValueError(
            "the measurement carries no operator: let interslice.physics.Measured, the `check` of the configs, give it "
            "one before anything else needs it"
        )
    return operator


def origin_of(volume: MetaTensor) -> dict:
    """The metadata that say where a volume is from, for what is made of it."""
    return {name: volume.meta[name] for name in ORIGIN if name in volume.meta}


def reconstructed(volume: torch.Tensor, measurement: MetaTensor, findings: Findings | None = None) -> MetaTensor:
    """(1, X, Y, Z) result with its place from the operator, the history of its measurement, and what was found."""
    meta = {k: copy.deepcopy(v) for k, v in measurement.meta.items() if k not in ("affine", "operator")}
    meta |= {"spatial_shape": list(volume.shape)} | ({} if findings is None else {"findings": findings})
    return MetaTensor(
        volume[None],
        affine=operator_of(measurement).domain_affine(measurement.affine),
        meta=meta,
        applied_operations=copy.deepcopy(measurement.applied_operations),
    )
