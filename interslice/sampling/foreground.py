"""Sampling where the subject is: the air around it is no work for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop

from interslice.files.findings import findings_of
from interslice.files.memory import Parts, array_bytes, largest, with_more
from interslice.files.source import series_of
from interslice.files.values import number, whole_number
from interslice.physics.foreground import PLANE, foreground_box
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of, reconstructed
from interslice.sampling.volume_inferer import VolumeInferer


class ForegroundInferer(VolumeInferer):
    """Runs another inferer on the bounding box of the subject and fills the rest with the linear reconstruction.

    Only for operators that treat every in-plane position alike, as thick slices do: the box is cut in-plane. Volumes of
    a series are taken whole.

    Args:
        inferer: reconstructs the box.
        threshold: voxels of the measurement above it are the subject (air is near -1).
        margin: voxels kept around the box.
    """

    def __init__(self, inferer: VolumeInferer, threshold: float = -0.8, margin: int = 8) -> None:
        super().__init__()
        self.inferer, self.threshold = inferer, number("threshold", threshold)
        self.margin = whole_number("margin", margin)

    @property
    def storage(self):
        """Where the inner inferer's volumes lie."""
        return getattr(self.inferer, "storage", None)

    def reconstruct(self, measurement: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        y, operator = measurement.as_tensor(), operator_of(measurement)
        # Noise lies on the grid of the box: volumes of a series share it where the box is the whole.
        box = self._box(y, operator) if series_of(measurement) is None else (slice(None),) * 3
        inside = SpatialCrop(roi_slices=box)(measurement)
        inside.meta["operator"] = operator.on(box)
        inner = self.inferer.reconstruct(inside, network)
        volume = operator.linear_reconstruction(y[0].float())
        volume[box] = inner.as_tensor()[0]

        def placed(part: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros_like(volume)[None]
            whole[(slice(None), *box)] = part
            return whole

        return reconstructed(volume, measurement, findings_of(inner).with_maps(placed))

    def working_bytes(
        self, y: torch.Tensor, operator: LinearOperator, spacing: Sequence[float], network: Callable
    ) -> Parts:
        """See `VolumeInferer`."""
        box = self._box(y[None], operator)
        inside, volume = operator.on(box), array_bytes(operator.domain_shape)
        part = array_bytes(inside.domain_shape)
        return largest(
            with_more(self.inferer.working_bytes(y[box], inside, spacing, network), volumes=array_bytes(y[box].shape)),
            {"volumes": 2 * part + 3 * volume, "start": operator.starting_bytes() - volume},
        )

    def _box(self, y: torch.Tensor, operator: LinearOperator) -> tuple[slice, ...]:
        """Slices of the subject's bounding box; the whole extent along axes that the operator couples."""
        box = foreground_box(y[0] > self.threshold, PLANE, self.margin)
        return tuple(s if axis in operator.slice_axes else slice(None) for axis, s in enumerate(box))
