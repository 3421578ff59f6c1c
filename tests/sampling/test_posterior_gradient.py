"""DPS: the gradient of the misfit, taken through the network, against autograd and dense matrices."""

import math
from functools import partial

import pytest
import torch

from interslice.physics.thick import ThroughPlaneSampling
from interslice.prior.slices import SlicePrior
from interslice.sampling.posterior_steps import PosteriorGradient
from tests.support.gaussian_models import (
    AB,
    AB_S,
    AB_T,
    SHAPE,
    SIZE,
    AffineNetwork,
    Crooked,
    DenseOperator,
    Gaussian,
    T,
    case,
    random_volume,
    some_matrix,
    through_network,
    volume_matrix,
)

every_axis = pytest.mark.parametrize("axis", [0, 1, 2])


class Bent:
    """A network that is neither linear nor pointwise nor symmetric; what it predicts is for the prior to say."""

    def __init__(self):
        self.kernel = torch.tensor([[0.0, 0.4, 0.1], [-0.2, 0.5, 0.3], [0.1, 0.2, -0.6]], dtype=torch.float64)

    def __call__(self, x, t):
        return torch.tanh(torch.nn.functional.conv2d(x, self.kernel[None, None], padding=1)) + 0.1 * x * t[0] / 1000


def clean_estimate(network, x, axis, prediction, multiple, clip):
    """What `SlicePrior` is documented to do, slice by slice; differentiable."""
    estimates = []
    for image in x.movedim(axis, 0):
        h, w = image.shape
        padded = torch.nn.functional.pad(image[None, None], (0, -w % multiple, 0, -h % multiple), mode="replicate")
        output = network(padded, torch.tensor([T]))[0, 0, :h, :w]
        x0 = {
            "epsilon": (image - math.sqrt(1 - AB_T) * output) / math.sqrt(AB_T),
            "v_prediction": math.sqrt(AB_T) * image - math.sqrt(1 - AB_T) * output,
            "sample": output,
        }[prediction]
        estimates.append(x0 if clip is None else x0.clamp(*clip))
    return torch.stack(estimates).movedim(0, axis)


@every_axis
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(("multiple", "batch", "clip"), [(1, 8, None), (4, 1, None), (4, 2, (-0.5, 0.3))])
def test_pull_back_is_the_transpose_of_the_jacobian(axis, prediction, multiple, batch, clip):
    network, x_t, v = Bent(), random_volume(3), random_volume(4)
    before = x_t.clone()
    estimate = partial(clean_estimate, network, axis=axis, prediction=prediction, multiple=multiple, clip=clip)
    jacobian = torch.autograd.functional.jacobian(estimate, x_t).reshape(SIZE, SIZE)
    assert not torch.allclose(jacobian, jacobian.T, atol=0.01)  # J^T is not J
    prior = SlicePrior(AB, batch, multiple, clip, prediction)
    assert torch.allclose(prior(network, x_t, T, axis), estimate(x_t), atol=1e-12)
    gradient = prior.pull_back(network, x_t, T, axis, v)
    assert torch.allclose(gradient.flatten(), jacobian.T @ v.flatten(), atol=1e-12)
    assert torch.equal(x_t, before) and not gradient.requires_grad
    if clip is not None:
        clipped = (estimate(x_t) == clip[0]) | (estimate(x_t) == clip[1])
        assert 0.1 < clipped.double().mean() < 0.9


def test_no_gradient_of_a_parameter_is_kept():
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    SlicePrior(AB).pull_back(lambda x, t: weight * torch.tanh(x), random_volume(3), T, 0, random_volume(4))
    assert weight.grad is None


@every_axis
@pytest.mark.parametrize("physics", ["dense", "thick slices"])
def test_posterior_gradient_descends_the_misfit_as_a_function_of_the_noisy_volume(axis, physics):
    operator = (
        DenseOperator(some_matrix(7))
        if physics == "dense"
        else ThroughPlaneSampling(axis=2, ratio=2.0).for_grid(SHAPE, (1.0, 1.0, 1.0))
    )
    network, x_t, scale = Bent(), random_volume(3).requires_grad_(), 0.7
    y = operator.forward(random_volume(2))
    x0 = clean_estimate(network, x_t, axis, "epsilon", 1, None)
    (gradient,) = torch.autograd.grad((operator(x0) - y).square().sum(), x_t)
    x_t = x_t.detach()
    estimate, step = through_network(network, x_t, axis)
    moved = PosteriorGradient(scale)(estimate, y, operator, step)
    # sqrt(ab_s) x0 is what x_s has of x0, so this moves x_s by -zeta times the gradient, zeta = scale / (2 |A|^2).
    expected = math.sqrt(AB_S) * x0.detach() - scale / (2 * operator.norm**2) * gradient
    assert torch.allclose(math.sqrt(AB_S) * moved, expected, atol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, "matched"])
def test_one_step_of_posterior_gradient_misses_the_posterior_mean_by_a_known_share(scale):
    """Independent pixels, A A^T = |A|^2 I, no noise: x0 + g J A^+ (y - A x0) stands for x0 + A^+ (y - A x0)."""
    prior = Gaussian(std=0.3, reach=0)
    jacobian = float(prior.x0((2, 3), AB_T)[0][0, 0])
    scale = 1 / jacobian if scale == "matched" else scale
    operator = DenseOperator(3.0 * some_matrix(7, smallest=2.0))
    x_t, y = random_volume(3), operator.forward(random_volume(2))
    x0, step = through_network(AffineNetwork(prior), x_t)
    mean = x0 + operator.pseudo_inverse(y - operator.forward(x0))
    bias = (1 - scale * jacobian) * operator.pseudo_inverse(operator.forward(x0) - y)
    step.ab_s = 1.0
    result = PosteriorGradient(scale)(x0.clone(), y, operator, step)
    assert torch.allclose(result - mean, bias, atol=1e-12)
    assert torch.allclose(result, mean, atol=1e-12) == (scale * jacobian == 1)


def test_posterior_gradient_takes_the_transpose_of_a_denoiser_that_is_not_symmetric():
    operator, _, y = case()
    prior, x_t = Crooked(), random_volume(3)
    d, constant = volume_matrix(prior, AB_T, 2)
    assert not torch.allclose(d, d.T, atol=0.01)
    x0, step = through_network(AffineNetwork(prior), x_t)
    a, start = operator.matrix, d @ x_t.flatten() + constant
    expected = start - d.T @ a.T @ (a @ start - y) / (math.sqrt(AB_S) * operator.norm**2)
    assert torch.allclose(PosteriorGradient()(x0, y, operator, step).flatten(), expected, atol=1e-12)
