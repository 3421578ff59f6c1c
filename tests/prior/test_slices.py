"""The slice prior with networks of known answers, and the network that it is made for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.nets import DiffusionModelUNet

from interslice.prior.network import SliceUNet
from interslice.prior.slices import OdePrior, SlicePrior
from interslice.sampling.data_consistency import Proximal
from tests.support.gaussian_models import AB as EXACT_AB
from tests.support.gaussian_models import AffineNetwork, Gaussian, case, exact_sampler, random_volume
from tests.support.helpers import BlurringDenoiser, GaussianDenoiser, alpha_bars, normal, repeatable, sampled

AB = alpha_bars()
SHAPE = (5, 9, 14)
every_axis = pytest.mark.parametrize("axis", [0, 1, 2])


class Spy:
    """A network that notes what it is called with."""

    def __init__(self, network):
        self.network, self.images, self.timesteps = network, [], []

    def __call__(self, x, t):
        self.images.append(tuple(x.shape))
        self.timesteps.append(t)
        return self.network(x, t)


@every_axis
@pytest.mark.parametrize("t", [0, 300, 999])
def test_x0_of_a_gaussian_is_its_posterior_mean(axis, t):
    network, x_t = GaussianDenoiser(AB), normal(*SHAPE)
    a, b = network.x0(float(AB[t]))
    assert torch.allclose(SlicePrior(AB)(network, x_t, t, axis), a * x_t + b, atol=1e-4, rtol=1e-4)


@every_axis
def test_slices_are_the_images_across_the_axis(axis):
    # A network whose noise is the ramp along the first image axis, times the slice's own first pixel.
    def network(x, t):
        return x[:, :, :1, :1] * torch.arange(x.shape[2], dtype=x.dtype)[:, None].expand(x.shape[2:])

    x_t, t, ab = normal(*SHAPE), 400, float(AB[400])
    slices = x_t.movedim(axis, 0)
    eps = slices[:, :1, :1] * torch.arange(slices.shape[1])[None, :, None]
    expected = ((slices - math.sqrt(1 - ab) * eps) / math.sqrt(ab)).movedim(0, axis)
    assert torch.allclose(SlicePrior(AB)(network, x_t, t, axis), expected, atol=1e-5)


@every_axis
@repeatable
@given(batch_size=st.one_of(st.integers(1, 20), st.just("auto")), multiple=st.sampled_from([1, 4, 8]))
def test_batch_size_does_not_change_the_result(axis, batch_size, multiple):
    network, x_t = BlurringDenoiser(AB), normal(*SHAPE)
    one = SlicePrior(AB, 1, multiple)(network, x_t, 250, axis)
    assert torch.allclose(SlicePrior(AB, batch_size, multiple)(network, x_t, 250, axis), one, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 1, 1), (4, 7, 13), (2, 8, 16), (5, 3, 21)])
@pytest.mark.parametrize("multiple", [1, 2, 8, 32])
def test_padding_does_not_change_a_pointwise_result(shape, multiple):
    spy, x_t = Spy(GaussianDenoiser(AB)), normal(*shape)
    padded = SlicePrior(AB, multiple=multiple)(spy, x_t, 300, 0)
    a, b = spy.network.x0(float(AB[300]))
    assert torch.allclose(padded, a * x_t + b, atol=1e-5)
    for _, channels, h, w in spy.images:
        assert channels == 1
        assert (h % multiple, w % multiple) == (0, 0)
        assert h - shape[1] < multiple
        assert w - shape[2] < multiple


@every_axis
@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_every_slice_is_passed_once(axis, batch_size):
    spy, prior = Spy(GaussianDenoiser(AB)), SlicePrior(AB, batch_size)
    for passes in (1, 2):
        prior(spy, normal(*SHAPE), 123, axis)
        assert prior.calls == len(spy.images) == passes * math.ceil(SHAPE[axis] / batch_size)
        assert sum(shape[0] for shape in spy.images) == passes * SHAPE[axis]
    for shape, t in zip(spy.images, spy.timesteps):
        assert t.shape == shape[:1]
        assert t.dtype == torch.long
        assert (t == 123).all()


def test_input_is_left_alone_and_no_graph_is_kept():
    x_t = normal(*SHAPE)
    before = x_t.clone()
    weight = torch.nn.Parameter(torch.ones(1))
    x0 = SlicePrior(AB)(lambda x, t: weight * x, x_t, 300, 1)
    assert torch.equal(x_t, before)
    assert not x0.requires_grad


def test_clip_bounds_the_clean_estimate():
    network, x_t = GaussianDenoiser(AB, std=5.0), 3 * normal(*SHAPE)
    free = SlicePrior(AB)(network, x_t, 100, 0)
    assert free.max() > 1.2
    assert torch.allclose(SlicePrior(AB, clip=(-1, 1.2))(network, x_t, 100, 0), free.clamp(-1, 1.2), atol=1e-5)


@pytest.mark.parametrize("clip", [None, (-1.0, 1.5)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_that_breaks_is_reported(value, clip):
    def network(x, t):
        eps = torch.zeros_like(x)
        eps[-1, 0, 1, 0] = value
        return eps

    operator, _, y = case(closed_form=True)
    sampler = exact_sampler(Proximal(0.1), {key: random_volume(key) for key in range(4)})
    sampler.prior.clip = clip
    with pytest.raises(FloatingPointError, match=f"timestep {sampler.timesteps[0]}"):
        sampled(sampler, y, operator, network)


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, "all", None])
def test_bad_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match="slice_batch_size"):
        SlicePrior(AB, batch_size)


# -- what a network predicts ---------------------------------------------------------------------------

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@every_axis
@pytest.mark.parametrize("t", [0, 300, 999])
def test_noise_v_and_clean_image_are_three_names_of_one_estimate(axis, t):
    x_t = normal(*SHAPE, dtype=torch.float64)
    estimates = [
        SlicePrior(EXACT_AB, 2, prediction=name)(AffineNetwork(Gaussian(), name), x_t, t, axis) for name in PREDICTIONS
    ]
    for estimate in estimates[1:]:
        assert torch.allclose(estimate, estimates[0], atol=1e-10)


@pytest.mark.parametrize("eps_after_data", [False, True])
def test_the_sampler_gives_one_volume_whatever_the_network_predicts(eps_after_data):
    operator, _, y = case(closed_form=True)
    noises = {key: random_volume(10 + key) for key in range(4)}
    settings = {"slice_axis": [0, 1, 2], "eta": 0.5, "eps_after_data": eps_after_data}
    volumes = [
        sampled(exact_sampler(Proximal(0.1), noises, prediction=name, **settings), y, operator, network)
        for name, network in ((name, AffineNetwork(Gaussian(), name)) for name in PREDICTIONS)
    ]
    for volume in volumes[1:]:
        assert torch.allclose(volume, volumes[0], atol=1e-9)


def test_a_prediction_taken_for_another_is_another_estimate():
    x_t, network = normal(*SHAPE, dtype=torch.float64), AffineNetwork(Gaussian(), "epsilon")
    estimates = [SlicePrior(EXACT_AB, prediction=name)(network, x_t, 300, 0) for name in PREDICTIONS]
    assert (estimates[0] - estimates[1]).norm() > 1 and (estimates[0] - estimates[2]).norm() > 1


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "score", None])
def test_unknown_predictions_are_refused(prediction):
    with pytest.raises(ValueError, match=r"prediction must be one of epsilon, v_prediction, sample, got"):
        SlicePrior(AB, prediction=prediction)


# -- the clean image at the end of the ODE --------------------------------------------------------------


def end_of_the_ode(prior, x_t, t, axis):
    """Where the probability-flow ODE of a Gaussian ends: each direction of the covariance keeps its quantile."""
    ab, slices = float(EXACT_AB[t]), x_t.movedim(axis, 0)
    image = tuple(slices.shape[1:])
    variances, directions = torch.linalg.eigh(prior.covariance(image))
    mean = prior.mean(image)
    quantiles = (slices.flatten(1) - math.sqrt(ab) * mean) @ directions / torch.sqrt(ab * variances + 1 - ab)
    ends = mean + quantiles * torch.sqrt(variances) @ directions.T
    return ends.reshape(slices.shape).movedim(0, axis)


@every_axis
def test_ode_prior_tends_to_the_solution_of_the_ode(axis):
    prior, t = Gaussian(std=0.5), 500
    network, x_t = AffineNetwork(prior), normal(2, 3, 4, dtype=torch.float64)
    exact = end_of_the_ode(prior, x_t, t, axis)
    errors = []
    for num_steps in (1, 4, 16, 64, 501):
        ode = OdePrior(SlicePrior(EXACT_AB, multiple=1), num_steps)
        errors.append(float((ode(network, x_t, t, axis) - exact).norm() / exact.norm()))
    assert all(b < 0.6 * a for a, b in zip(errors, errors[1:]))
    assert errors[0] > 0.3 and errors[-1] < 0.01


def test_ode_prior_of_one_step_is_the_slice_prior():
    network, x_t = BlurringDenoiser(AB), normal(*SHAPE)
    before, prior = x_t.clone(), SlicePrior(AB)
    for t in (0, 400):
        assert torch.equal(OdePrior(prior, 1)(network, x_t, t, 1), prior(network, x_t, t, 1))
    OdePrior(prior, 7)(network, x_t, 400, 1)
    assert torch.equal(x_t, before)


@pytest.mark.parametrize(("t", "passes"), [(0, 1), (2, 3), (400, 5)])
def test_ode_prior_takes_no_more_passes_than_there_are_timesteps(t, passes):
    prior = SlicePrior(AB, slice_batch_size=64)
    assert torch.isfinite(OdePrior(prior, 5)(GaussianDenoiser(AB), normal(*SHAPE), t, 0)).all()
    assert prior.calls == passes


def test_ode_prior_refuses_no_steps_and_gives_no_gradient():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        OdePrior(SlicePrior(AB), 0)
    with pytest.raises(NotImplementedError, match="use SlicePrior with this data step"):
        OdePrior(SlicePrior(AB)).pull_back(GaussianDenoiser(AB), normal(*SHAPE), 300, 0, normal(*SHAPE))


# -- the network -------------------------------------------------------------------------------------


def trained(channels=(8, 16, 16)):
    """A network with random weights throughout: an untrained one has an output convolution of zeros."""
    network = SliceUNet(channels=channels, num_res_blocks=1, norm_num_groups=8).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_network_gives_the_same_for_every_batch_size():
    network, x_t = trained(), normal(8, 12, 20)
    one = SlicePrior(AB, 1, network.multiple)(network, x_t, 300, 0)
    assert (one - x_t / math.sqrt(float(AB[300]))).abs().max() > 0.1  # the network has a say
    for batch_size in (3, 8):
        assert torch.allclose(SlicePrior(AB, batch_size, network.multiple)(network, x_t, 300, 0), one, atol=1e-4)


@torch.no_grad()
def test_network_is_fully_convolutional():
    network = trained()
    for h, w in [(4, 4), (16, 16), (8, 36)]:
        assert network(normal(2, 1, h, w), torch.tensor([5, 900])).shape == (2, 1, h, w)


def attention(network):
    return [name for name, module in network.named_modules() if "Attention" in type(module).__name__]


def test_network_has_no_attention():
    levels = {"channels": (8, 16), "attention_levels": (False, False), "num_res_blocks": 1, "norm_num_groups": 8}
    monai = DiffusionModelUNet(spatial_dims=2, in_channels=1, out_channels=1, num_head_channels=8, **levels)
    assert attention(monai)  # it keeps one in the middle: the search would find it
    assert not attention(SliceUNet((8, 16)))


@torch.no_grad()
def test_network_uses_the_timestep_and_every_image_on_its_own():
    network, x = trained(), normal(2, 1, 16, 16)
    early, late = (network(x, torch.tensor([t, t])) for t in (10, 900))
    assert (early - late).abs().max() > 1e-3
    mixed = network(x, torch.tensor([10, 900]))
    assert torch.allclose(mixed, torch.stack([early[0], late[1]]), atol=1e-5)


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_multiple_is_what_the_levels_halve(levels):
    network = trained((8,) * levels)
    assert network.multiple == 2 ** (levels - 1)
    x_t = normal(2, 9, 11)
    assert torch.isfinite(SlicePrior(AB, 2, network.multiple)(network, x_t, 300, 0)).all()
