"""The sampler: the loop, its data steps, and the noise fields for other libraries' loops."""

from interslice.sampling.data_consistency import (
    ConjugateGradient,
    NullSpace,
    Proximal,
    TotalVariationProximal,
    Unconditional,
)
from interslice.sampling.foreground import ForegroundInferer
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.sampling.inside import InsideInferer
from interslice.sampling.known_spacing import KnownSpacingInferer
from interslice.sampling.missing_directions import MissingDirections
from interslice.sampling.noise_aware import NoiseAware
from interslice.sampling.posterior_steps import (
    GaussianPosterior,
    NoisyNullSpace,
    PosteriorGradient,
    SliceTotalVariation,
    Variational,
)
from interslice.sampling.subject import SubjectBoxes
from interslice.sampling.trajectory import Trajectory
from interslice.sampling.volumes import Storage

__all__ = [
    "ConjugateGradient", "DiffusionInverseInferer", "ForegroundInferer", "GaussianPosterior", "InsideInferer",
    "KnownSpacingInferer", "MissingDirections", "NoiseAware", "NoisyNullSpace", "NullSpace", "PosteriorGradient",
    "Proximal", "SliceTotalVariation", "Storage", "SubjectBoxes", "TotalVariationProximal", "Trajectory",
    "Unconditional", "Variational",
]  # fmt: skip
