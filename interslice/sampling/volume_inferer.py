"""What all inferers share: each measurement of a batch becomes a volume of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer

from interslice.files.memory import Parts
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of
from interslice.prior.slices import device_of


class VolumeInferer(Inferer):
    """An inferer that turns each measurement of a batch into a volume of its own shape and affine."""

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args, **kwargs) -> torch.Tensor:
        """Reconstruct a batch of measurements (B, 1, ...) that carry their operators; returns (B, 1, X, Y, Z).

        Raises:
            TypeError: `inputs` has no metadata (is no MetaTensor), so that its operator is unknown.
            ValueError: a measurement carries no operator.
        """
        if not isinstance(inputs, MetaTensor):
            raise TypeError(
                "the inferer needs the operator of its inputs: pass a MetaTensor batch, as MONAI's loaders give"
            )
        items = decollate_batch(inputs) if inputs.is_batch else [inputs[i] for i in range(len(inputs))]
        return list_data_collate([self.reconstruct(self._placed(item, network), network) for item in items])

    def _placed(self, item: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        """The measurement on the network's device, or in the host's memory if the volumes are to lie there."""
        device, storage = device_of(network, item), getattr(self, "storage", None)
        if storage is None or device.type == "cpu":
            return item
        y, operator = item.as_tensor()[0], operator_of(item)
        needed = self.working_bytes(y, operator, operator.voxel_sizes(item.affine), network)
        on_device = storage.of(device, sum(needed.values())).place == "device"
        return item.to(device) if on_device else item.cpu()

    @abstractmethod
    def reconstruct(self, measurement: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        """Reconstruct one measurement (1, ...), with its Findings in the metadata of the result."""

    def working_bytes(
        self, y: torch.Tensor, operator: LinearOperator, spacing: Sequence[float], network: Callable
    ) -> Parts:
        """Bytes that `reconstruct` takes at most, by what takes them, besides y; none is taken to say so.

        An inferer that does not say it is taken to hold what conjugate gradients do.

        Args:
            y: the measurement, (*range_shape).
            spacing: of the volume's voxels, in mm.
        """
        return {"volumes": operator.descent_bytes()}
