"""Sampling inside a mask alone: what lies outside is interpolated.

    x = m x_sampled + (1 - m) x_cubic,        then  x + S (y - (A m) (y - A x_sampled) - A x)

m is the mask on the volume's grid, x_cubic the cubic interpolation that agrees with the data, S the operator's linear
reconstruction. The last step, small, mends the agreement with the data where the border of the mask cuts through a
thick slice. What the sampler left of them as noise stays left out within the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from monai.data import MetaTensor
from monai.transforms import SpatialCrop

from interslice.files.findings import findings_of
from interslice.files.memory import Parts, array_bytes, with_more
from interslice.files.switch import is_on
from interslice.physics.baselines import interpolate_consistently
from interslice.physics.foreground import foreground_box
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of, reconstructed
from interslice.sampling.volume_inferer import VolumeInferer

MARGIN = 8
"""Voxels that are sampled around the mask: a network needs to see what borders on it."""


class InsideInferer(VolumeInferer):
    """Runs another inferer on the box of the mask that a measurement carries, for thick slices: interslice.files.masks.

    Args:
        inferer: reconstructs the box.
        enabled: a switch; where off, or without a mask, the other inferer alone.
    """

    def __init__(self, inferer: VolumeInferer, enabled: bool | str = False) -> None:
        super().__init__()
        self.inferer, self.enabled = inferer, is_on(enabled, "inside")

    @property
    def storage(self):
        """Where the inner inferer's volumes lie."""
        return getattr(self.inferer, "storage", None)

    def reconstruct(self, measurement: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        """Raises ValueError where a mask is to be used, and there is none."""
        if not self.enabled:
            return self.inferer.reconstruct(measurement, network)
        operator = operator_of(measurement)
        inside = mask_of(measurement, operator)
        box = self._box(inside, operator)
        part = SpatialCrop(roi_slices=operator.range_box(box))(measurement)
        part.meta["operator"] = operator.on(box)
        inner = self.inferer.reconstruct(part, network)
        y = measurement.as_tensor()[0].float()
        x = interpolate_consistently(y, operator)
        m = inside.to(x.device)
        sampled = x.clone()
        sampled[box] = inner.as_tensor()[0]
        explained = y - operator.forward(m.to(x)) * (y - operator.forward(sampled))
        x = torch.where(m, sampled, x)
        x += operator.linear_reconstruction(explained - operator.forward(x))
        misfit = float((operator.forward(x) - y).norm() / y.norm().clamp_min(1e-12))

        def placed(volume: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros_like(x)[None]
            whole[(slice(None), *box)] = volume * m[box]
            return whole

        found = replace(findings_of(inner).with_maps(placed), relative_residual=misfit)
        return reconstructed(x, measurement, found)

    def working_bytes(
        self, y: torch.Tensor, operator: LinearOperator, spacing: Sequence[float], network: Callable
    ) -> Parts:
        """See `VolumeInferer`; of the whole volume, as the mask is not known here."""
        inner = self.inferer.working_bytes(y, operator, spacing, network)
        return with_more(inner, volumes=4 * array_bytes(operator.domain_shape)) if self.enabled else inner

    @staticmethod
    def _box(inside: torch.Tensor, operator: LinearOperator) -> tuple[slice, ...]:
        box = foreground_box(inside, margin=MARGIN)
        return tuple(s if axis in operator.separable_axes else slice(None) for axis, s in enumerate(box))


def mask_of(measurement: MetaTensor, operator: LinearOperator) -> torch.Tensor:
    """The mask (X, Y, Z) on the volume's grid: what is not 0. Raises ValueError where there is none."""
    mask = measurement.meta.get("label_map")
    if mask is None:
        raise ValueError('"inside" restricts sampling to a mask, and this scan carries none: give --mask_dir')
    affine = operator.domain_affine(measurement.affine).cpu().numpy()
    return torch.from_numpy(mask.on(tuple(operator.domain_shape), affine) != 0)
