"""What several tests share: schedules, networks with known answers, dense matrices, and scans with a header."""

import math
import sys
from contextlib import ExitStack
from unittest.mock import patch

import torch
from hypothesis import settings
from monai.data import MetaTensor
from monai.networks.schedulers import DDIMScheduler

from interslice.noise.field import IndependentNoise
from interslice.physics import Measured
from interslice.physics.thick import ThroughPlaneSampling
from interslice.prior.slices import SlicePrior
from interslice.sampling.data_consistency import NullSpace
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.sampling.step import Step

repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=25)
"""Hypothesis draws the same examples in every run."""


def alpha_bars(num_train=1000):
    """Alpha-bar of the schedule that the shipped prior is trained with."""
    return DDIMScheduler(num_train, "scaled_linear_beta", beta_start=0.00085, beta_end=0.012).alphas_cumprod


class GaussianDenoiser:
    """The exact noise prediction for images whose pixels are independent N(mean, std^2); `mean` may be an image."""

    def __init__(self, ab, mean=0.4, std=0.3):
        self.ab, self.mean, self.std = ab, mean, std

    def __call__(self, x, t):
        ab = self.ab[t].reshape(-1, 1, 1, 1)
        return torch.sqrt(1 - ab) * (x - torch.sqrt(ab) * self.mean) / (ab * self.std**2 + 1 - ab)

    def x0(self, ab_t):
        """(a, b) of the clean estimate a x_t + b."""
        variance = ab_t * self.std**2 + 1 - ab_t
        return math.sqrt(ab_t) * self.std**2 / variance, (1 - ab_t) * self.mean / variance


class BlurringDenoiser:
    """A noise prediction that is neither linear nor pointwise: the neighbours of a pixel in its slice have a say."""

    def __init__(self, ab):
        self.ab = ab
        self.kernel = torch.tensor([[0.0, 0.1, 0.0], [0.2, 0.4, 0.1], [0.0, 0.2, 0.0]])[None, None]

    def __call__(self, x, t):
        ab = self.ab[t].reshape(-1, 1, 1, 1)
        clean = torch.tanh(torch.nn.functional.conv2d(x, self.kernel, padding=1))
        return (x - torch.sqrt(ab) * clean) / torch.sqrt(1 - ab)


def at(noise_ratio):
    """A step whose x0 was estimated from noise of this variance."""
    return Step(ab_t=1 / (1 + noise_ratio))


def dense(linear_map, shape):
    """The matrix of a linear map on float64 tensors of `shape`, from unit vectors."""
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return torch.stack([linear_map(unit).flatten() for unit in units], 1)


def normal(*shape, seed=0, dtype=torch.float32):
    """Standard normal tensor of a seed of its own."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def contributions(field, positions, level=1.0):
    """What each independent normal number adds to each slice of a noise field: (S, N) float64, exact but for float32.

    The field is drawn from unit vectors in place of random numbers; the result times its transpose is its covariance.
    """
    places = {}

    def with_draws(draw, count):
        modules = {sys.modules[kind.__module__] for kind in type(field).__mro__}

        def draws(shape, key, indices, device):
            return torch.stack([draw(tuple(shape), key, i) for i in indices])

        with ExitStack() as patches:
            for module in modules:
                if hasattr(module, "keyed_normals"):
                    patches.enter_context(patch.object(module, "keyed_normals", draws))
            return field.draw(positions, (count,), seed=0, step=0, level=level).double()

    def reserve(shape, key, index):
        first = sum(len(rows) for rows in places.values())
        places.setdefault(index, torch.arange(first, first + math.prod(shape[:-1])))
        return torch.ones(shape, dtype=torch.float64)

    def unit_vectors(shape, key, index):
        units = torch.zeros(len(places[index]), shape[-1], dtype=torch.float64)
        return units.scatter_(1, places[index][:, None], 1.0).reshape(shape)

    with_draws(reserve, 1)
    return with_draws(unit_vectors, sum(len(rows) for rows in places.values()))


def scan(values, spacing=(1.0, 1.0, 5.0), origin=(0.0, 0.0, 0.0)):
    """(1, X, Y, Z) measurement with a header."""
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(origin, dtype=torch.float64)
    return MetaTensor(values[None], affine=affine)


def measured(values, spacing=(1.0, 1.0, 5.0), origin=(0.0, 0.0, 0.0), axis=2):
    """`scan`, of slices that are thick along `axis`, with its operator."""
    return Measured("image", ThroughPlaneSampling(axis=axis))({"image": scan(values, spacing, origin)})["image"]


def sampled(inferer, y, operator, network, draw=0, start=None):
    """One sample (X, Y, Z) of the volume behind y, from a start of the test's choice."""
    run = inferer.begin(y, operator, network)
    run.start = start
    return inferer.sample(run, draw)


def sampler(field=None, consistency=None, *, ab=None, slice_batch_size=64, **arguments):
    """A diffusion inverse inferer, by default with one draw of four steps."""
    plain = {"num_steps": 4, "start_fraction": 0.3, "slice_axis": "auto", "num_draws": 1, "progress": False}
    return DiffusionInverseInferer(
        SlicePrior(alpha_bars() if ab is None else ab, slice_batch_size, multiple=1, precision="float32"),
        consistency or NullSpace(),
        field or IndependentNoise(),
        **(plain | arguments),
    )
