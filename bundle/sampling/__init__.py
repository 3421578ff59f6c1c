"""The sampler: the loop, its data steps, and the noise fields for other libraries' loops."""

from bundle.sampling.data_consistency import (
    ConjugateGradient,
    NullSpace,
    Proximal,
    TotalVariationProximal,
    Unconditional,
)
from bundle.sampling.foreground import ForegroundInferer
from bundle.sampling.inferers import DiffusionInverseInferer
from bundle.sampling.inside import InsideInferer
from bundle.sampling.known_spacing import KnownSpacingInferer
from bundle.sampling.noise_aware import NoiseAware
from bundle.sampling.posterior_steps import (
    GaussianPosterior,
    NoisyNullSpace,
    PosteriorGradient,
    SliceTotalVariation,
    Variational,
)
from bundle.sampling.subject import SubjectBoxes
from bundle.sampling.trajectory import Trajectory
from bundle.sampling.volumes import Storage

__all__ = [
    "ConjugateGradient", "DiffusionInverseInferer", "ForegroundInferer", "GaussianPosterior", "InsideInferer",
    "KnownSpacingInferer", "NoiseAware", "NoisyNullSpace", "NullSpace", "PosteriorGradient", "Proximal",
    "SliceTotalVariation", "Storage", "SubjectBoxes", "TotalVariationProximal", "Trajectory", "Unconditional",
    "Variational",
]  # fmt: skip
