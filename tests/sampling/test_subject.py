"""Boxes around the subject: all of it and little else is seen, and nothing else changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.noise.field import SlerpNoise
from interslice.prior import SlicePrior
from interslice.sampling.subject import BLOCK, Boxes, SubjectBoxes, widened
from tests.support.helpers import GaussianDenoiser, alpha_bars, measured, normal, repeatable, sampler
from tests.support.scans import random_network

SHAPE = (30, 41, 24)
SHAPES = st.tuples(*[st.integers(1, 40)] * 3)


def ellipsoid(shape=SHAPE, radius=0.35, seed=0):
    """Noise of about 0 in an ellipsoid, -1 around it: a head in air."""
    grids = torch.meshgrid(*(torch.linspace(-0.5, 0.5, n) for n in shape), indexing="ij")
    inside = sum(g.square() for g in grids) < radius**2
    return torch.where(inside, 0.1 * normal(*shape, seed=seed), torch.tensor(-1.0))


def boxes_of(volume, axes=(0, 1, 2), **arguments):
    return SubjectBoxes(**{"enabled": True, "margin": 2, "multiple": 4} | arguments).of(volume, axes, on_cpu=True)


@repeatable
@given(
    st.tuples(*[st.integers(1, 40)] * 3), st.floats(0.1, 0.5), st.integers(1, 8), st.integers(0, 5), st.integers(0, 2)
)
def test_boxes_hold_the_subject_once_and_lie_inside(shape, radius, multiple, margin, axis):
    volume = ellipsoid(shape, radius)
    parts = SubjectBoxes(True, margin=margin, multiple=multiple)._across(volume > -0.8, axis)
    seen = torch.zeros(shape, dtype=torch.int64)
    for index in parts:
        seen[index] += 1
        assert index[axis].start % BLOCK == 0 and index[axis].stop - index[axis].start <= BLOCK
        for a in {0, 1, 2} - {axis}:
            length = index[a].stop - index[a].start
            assert length == shape[a] or length % multiple == 0
            assert 0 <= index[a].start < index[a].stop <= shape[a]
    assert seen.max() <= 1
    missed = (volume > -0.8) & (seen == 0)
    assert missed.sum() <= 0.02 * (volume > -0.8).sum()  # planes that hold next to nothing may be left out
    if margin > 1:
        assert not missed.any()


@repeatable
@given(st.integers(1, 60), st.integers(1, 16), st.data())
def test_a_side_is_widened_within_the_volume(length, multiple, data):
    first = data.draw(st.integers(0, length - 1))
    last = data.draw(st.integers(first + 1, length))
    side = widened(slice(first, last), length, multiple)
    assert 0 <= side.start <= first and last <= side.stop <= length
    size = side.stop - side.start
    assert size == length or (size % multiple == 0 and size - (last - first) < multiple)


def test_slices_of_air_are_not_seen_and_keep_the_start():
    start = ellipsoid()
    start[:8] = -1.0  # the first block
    seen = []

    def prior(network, x, t, axis):
        seen.append((x.numel(), network, t, axis))
        return x + 1

    boxes = boxes_of(start)
    x_t = normal(*SHAPE, seed=3)
    x0 = boxes.denoised(prior, "network", x_t, 7, 0)
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    for index in boxes.parts[0]:
        inside[index] = True
    assert not inside[:8].any() and inside[8:16].any()
    assert torch.equal(x0[inside], x_t[inside] + 1) and torch.equal(x0[~inside], start[~inside])
    assert sum(n for n, *_ in seen) == inside.sum() and {of[1:] for of in seen} == {("network", 7, 0)}


def test_boxes_that_save_little_are_left_out():
    assert boxes_of(torch.zeros(SHAPE)) is None
    assert boxes_of(torch.full(SHAPE, -1.0)) is not None  # all of it is air
    nearly = torch.zeros(SHAPE)
    nearly[:, :, 21:] = -1.0
    assert boxes_of(nearly, axes=(0, 1)) is None


@pytest.mark.parametrize(
    ("enabled", "on_cpu", "found"),
    [("auto", True, True), ("auto", False, False), ("yes", False, True), (True, True, True), ("no", True, False)],
)
def test_boxes_are_for_a_cpu_unless_asked_for(enabled, on_cpu, found):
    assert (SubjectBoxes(enabled).of(torch.full(SHAPE, -1.0), (0,), on_cpu) is not None) == found


@pytest.mark.parametrize("axis", ["alternate", 0, (1, 0)])
@pytest.mark.parametrize("antithetic", [False, True])
def test_where_a_column_is_always_seen_the_result_is_that_of_the_whole(axis, antithetic):
    """A pointwise network, and slices that are thick along z: a column (x, y) depends on nothing but itself."""
    thick = ellipsoid((40, 44, 16), 0.3)[:, :, ::2]
    measurement = measured(thick, (1.0, 1.0, 3.0))
    y, operator = measurement.as_tensor()[0], measurement.meta["operator"]
    network = GaussianDenoiser(alpha_bars())
    arguments = {"num_steps": 3, "slice_axis": axis, "num_draws": 2, "antithetic": antithetic,
                 "start": lambda y, operator: operator.linear_reconstruction(y)}  # fmt: skip
    plain = sampler(SlerpNoise(), **arguments)
    boxed = sampler(SlerpNoise(), **arguments, subject=SubjectBoxes(True, margin=2, multiple=4))
    boxes = boxed.begin(y, operator, network).boxes
    always = torch.ones(operator.domain_shape, dtype=torch.bool)
    for parts in boxes.parts.values():
        seen = torch.zeros_like(always)
        for index in parts:
            seen[index] = True
        always &= seen
    column = always.all(2)
    assert 20 < column.sum() < 0.9 * column.numel()
    expected, found = (s.reconstruct(measurement, network).as_tensor()[0] for s in (plain, boxed))
    assert torch.allclose(found[column], expected[column], atol=1e-5)
    # In air a pair of opposite draws is the path without noise, for this network, and so the data themselves.
    assert antithetic or not torch.allclose(found[~column], expected[~column], atol=1e-3)
    assert (operator.forward(found) - y).abs().max() < 1e-4


def test_the_result_does_not_depend_on_the_batch():
    network = random_network().eval()
    x_t, boxes = normal(*SHAPE), boxes_of(ellipsoid(), axes=(1,), multiple=2)
    results = [boxes.denoised(SlicePrior(alpha_bars(), n, 2), network, x_t, 100, 1) for n in (1, 3, 8, 64)]
    for other in results[1:]:
        assert torch.allclose(results[0], other, atol=1e-4)


def test_without_a_start_or_with_the_networks_gradient_all_is_seen():
    measurement = measured(ellipsoid()[:, :, ::3], (1.0, 1.0, 3.0))
    y, operator = measurement.as_tensor()[0], measurement.meta["operator"]
    network = GaussianDenoiser(alpha_bars())
    subject = SubjectBoxes(True, margin=0, multiple=1)
    assert sampler(subject=subject).begin(y, operator, network).boxes is None

    class Gradient:
        with_gradient = True

        def __call__(self, x0, y, operator, step):
            return x0

    given = {"start": lambda y, operator: operator.linear_reconstruction(y), "subject": subject}
    assert sampler(consistency=Gradient(), **given).begin(y, operator, network).boxes is None
    run = sampler(**given).begin(y, operator, network)
    assert isinstance(run.boxes, Boxes) and run.boxes.outside is run.start


@pytest.mark.parametrize("wrong", [{"enabled": "x"}, {"margin": -1}, {"threshold": "x"}, {"multiple": 0}])
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"skip_air, unless \"auto\", is on or off|must be a"):
        SubjectBoxes(**wrong)
