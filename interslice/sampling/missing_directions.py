"""Sampling from more noise where a scan has no rays of some directions.

A start that the data determine is best left nearly alone: noise that hides what they said is lost on them. What lies
in the missing wedge of a limited arc they never said; total variation guesses it, coherently over many voxels, and it
takes more noise than the size of its error for the prior to guess it anew (docs/explanation/ct_sampling.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from monai.data import MetaTensor

from interslice.files.memory import Parts
from interslice.files.values import number
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.sampling.volume_inferer import VolumeInferer


class MissingDirections(VolumeInferer):
    """Runs a sampler with settings of its own where more than a share of the directions has no rays.

    Args:
        inferer: reconstructs the volume.
        settings: `num_steps`, `start_fraction` and `num_draws` for such scans; None: those of the sampler, always.
        share: of the directions, from 0 (`LinearOperator.missing_directions`).
    """

    def __init__(self, inferer: DiffusionInverseInferer, settings: Mapping | None = None, share: float = 0.3) -> None:
        super().__init__()
        self.inferer, self.settings, self.share = inferer, settings, number("share", share, 0, 1)

    @property
    def storage(self):
        """Where the inner inferer's volumes lie."""
        return getattr(self.inferer, "storage", None)

    def reconstruct(self, measurement: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        return self.sampler_for(operator_of(measurement)).reconstruct(measurement, network)

    def working_bytes(
        self, y: torch.Tensor, operator: LinearOperator, spacing: Sequence[float], network: Callable
    ) -> Parts:
        """See `VolumeInferer`."""
        return self.sampler_for(operator).working_bytes(y, operator, spacing, network)

    def sampler_for(self, operator: LinearOperator) -> DiffusionInverseInferer:
        """The sampler with the settings that a scan of this operator gets."""
        if self.settings is None or operator.missing_directions <= self.share:
            return self.inferer
        return self.inferer.with_steps(**self.settings)
