"""The differences of total variation: those without a guide as they were, and a guide's edges free."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.memory import array_bytes
from interslice.physics.baselines import ConsistentTotalVariation
from interslice.physics.blocks import block_means
from interslice.physics.linear_solvers import conjugate_gradient
from interslice.physics.thick import ThroughPlane, ThroughPlaneSampling
from interslice.physics.thick.through_plane import slice_weights
from interslice.physics.total_variation import (
    minimise_total_variation,
    minimise_with_proximal_step,
    proximal_step_bytes,
    total_variation_bytes,
)
from interslice.physics.variation import EDGE, Variation, differences, differences_adjoint
from interslice.sampling import TotalVariationProximal
from interslice.sampling.step import Step
from tests.report.test_memory import _Alive
from tests.support.helpers import normal, repeatable

shapes = st.lists(st.integers(2, 6), min_size=3, max_size=3)
gains = st.sampled_from([(1.0, 1.0, 1.0), (1.0, 0.5, 0.2)])
seeds = st.integers(0, 20)


def guide_of(shape, seed=0, scale=0.3):
    return scale * normal(*shape, seed=100 + seed, dtype=torch.float64)


@repeatable
@given(shape=shapes, gains=gains, leading=st.sampled_from([(), (2,), (2, 1)]))
def test_without_a_guide_it_is_bit_for_bit_what_gains_made_of_differences(shape, gains, leading):
    x, q = normal(*leading, *shape), normal(3, *leading, *shape, seed=1)
    gain = torch.tensor(gains).view(3, *[1] * x.ndim)
    kept, at_work = q.clone(), Variation(gains).on(x)
    assert torch.equal(at_work.of(x), differences(x).mul_(gain))
    assert torch.equal(at_work.adjoint(q), differences_adjoint(q * gain))
    assert torch.equal(q, kept)
    assert at_work.bound == 4 * float(gain.square().sum())


@pytest.mark.parametrize("guide", [torch.full((6, 5, 8), 0.7), torch.full((6, 5, 8), torch.nan)], ids=["flat", "none"])
def test_a_guide_without_edges_changes_nothing(guide):
    y = normal(6, 5, 8)
    plain, guided = (
        minimise_total_variation(lambda z: z, lambda z: z, 1.0, y, y, 0.2, 30, 0.0, variation=v)
        for v in (Variation(), Variation(guide=guide))
    )
    assert torch.equal(plain, guided)
    project = ThroughPlaneSampling(ratio=4).for_grid((6, 5, 8), (1.0, 1.0, 1.0))
    measured = project.forward(y)
    consistent = ConsistentTotalVariation(iterations=20)
    assert torch.equal(consistent(measured, project), consistent(measured, project.with_guide(guide)))


@repeatable
@given(shape=shapes, gains=gains, seed=seeds, leading=st.sampled_from([(), (2,)]))
def test_the_adjoint_of_guided_differences_passes_the_dot_test(shape, gains, seed, leading):
    x = normal(*leading, *shape, seed=seed, dtype=torch.float64)
    q = normal(3, *leading, *shape, seed=seed + 1, dtype=torch.float64)
    kept, d = q.clone(), Variation(gains, guide_of(shape, seed)).on(x)
    left, right = (d.of(x) * q).sum(), (x * d.adjoint(q)).sum()
    assert abs(left - right) <= 1e-12 * float(d.of(x).norm() * q.norm() + 1)
    assert torch.equal(q, kept)


@repeatable
@given(shape=shapes, gains=gains, seed=seeds, scale=st.sampled_from([0.01, 0.3, 30.0]))
def test_in_each_voxel_no_more_is_left_than_without_and_no_less_than_across_an_edge(shape, gains, seed, scale):
    x, variation = normal(*shape, seed=seed, dtype=torch.float64), Variation(gains, guide_of(shape, seed, scale))
    plain, guided = (v.on(x).of(x).norm(dim=0) for v in (Variation(gains), variation))
    xi = variation.field(x).norm(dim=0)
    assert (xi < 1).all()
    assert (guided <= plain + 1e-12).all()
    assert (guided >= (1 - xi.square()) * plain - 1e-12).all()
    assert variation.total(x) == pytest.approx(float(guided.sum()))


@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (1.0, 0.5, 0.2)])
def test_the_bound_is_one_of_the_norm(gains):
    """|D|^2 by power iteration comes from below, and is near the bound of the flat guide for large volumes."""
    shape = (14, 12, 13)
    for guide in (None, guide_of(shape)):
        x = normal(*shape, seed=3, dtype=torch.float64)
        d = Variation(gains, guide).on(x)
        for _ in range(200):
            x = d.adjoint(d.of(x / x.norm()))
        assert float(x.norm()) <= d.bound
        assert guide is not None or float(x.norm()) > 0.95 * d.bound


@repeatable
@given(seed=seeds, slope=st.floats(-3, 3), offset=st.floats(-2, 2))
def test_another_contrast_of_the_guide_itself_has_hardly_any_variation(seed, slope, offset):
    """Parallel gradients: |D x| = |a| t e^2 / (t^2 + e^2) for x = a v + b and t = |G v|, which is at most |a| e / 2."""
    shape = (6, 5, 7)
    v = guide_of(shape, seed)
    x = slope * v + offset
    t = Variation().on(v).of(v).norm(dim=0)
    left = Variation(guide=v).on(x).of(x).norm(dim=0)
    torch.testing.assert_close(left, abs(slope) * t * EDGE**2 / (t.square() + EDGE**2), rtol=1e-9, atol=1e-12)
    assert (left <= abs(slope) * EDGE / 2 + 1e-12).all()


def test_where_the_guide_shows_nothing_all_is_as_without():
    x, guide = normal(6, 5, 7, dtype=torch.float64), guide_of((6, 5, 7))
    guide[:, :, 4:] = torch.nan
    d, plain = Variation(guide=guide).on(x).of(x), Variation().on(x).of(x)
    assert torch.isfinite(d).all()
    assert torch.equal(d[..., 4:], plain[..., 4:])
    assert not torch.equal(d[..., :3], plain[..., :3])


def test_a_guide_of_another_grid_is_refused():
    operator = ThroughPlaneSampling(ratio=4).for_grid((6, 5, 8), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"expects a guide of shape \(..., 6, 5, 8\), got \(6, 5, 7\)"):
        operator.with_guide(torch.zeros(6, 5, 7))
    with pytest.raises(ValueError, match=r"the guide has \(6, 5, 7\) voxels, and the volume \(6, 5, 8\)"):
        Variation(guide=torch.zeros(6, 5, 7)).on(torch.zeros(6, 5, 8))


# -- the operator carries it -----------------------------------------------------------------------
def test_parts_and_blocks_of_an_operator_have_theirs_of_the_guide():
    operator = ThroughPlaneSampling(ratio=4).for_grid((6, 8, 12), (1.0, 1.0, 1.0))
    guide = guide_of((6, 8, 12)).float()
    guided = operator.with_guide(guide)
    assert guided is not operator and not operator.guided and guided.guided
    assert torch.equal(guided.forward(guide), operator.forward(guide)) and guided.norm == operator.norm
    box = (slice(1, 5), slice(2, 8), slice(0, 12))
    assert torch.equal(guided.on(box).guide, guide[box]) and not operator.on(box).guided
    assert torch.equal(guided.coarser([2, 3, 1]).guide, block_means(guide, [2, 3, 1]))
    assert not operator.coarser([2, 3, 1]).guided
    assert not guided.with_guide(None).guided


# -- what it is for --------------------------------------------------------------------------------
RATIO, SHARE = 5, 2


def block(low, high, shape=(4, 3, 15)):
    """One value, and another one in 2 of the 5 voxels of the middle slice."""
    x = torch.full(shape, low, dtype=torch.float64)
    x[..., 6 : 6 + SHARE] = high
    return x


@pytest.mark.parametrize("height", [-0.8, 1.0, 2.0])
def test_a_block_within_a_thick_slice_is_found_at_the_edges_of_its_guide(height):
    """Of all volumes with the data of a block of height 1 in 2 of the 5 voxels of a slice, the flat slice f = 2 / 5 has
    the least total variation, 2 f, and so an error of f (1 - f) of that slice in the mean of squares. With the guide
    the truth has 2 e^2 / (h^2 + e^2) for the guide's step h, less than 2 f, and every other one has more."""
    truth, share = block(0.0, 1.0), SHARE / RATIO
    guide = block(0.3, 0.3 + height)
    operator = ThroughPlane((4, 3, 15), 2, slice_weights(15, 1.0, 3, 5.0, 5.0), 1.0, 5.0, 5.0)
    y = operator.forward(truth)
    variation = Variation(guide=guide)
    assert variation.total(truth) == pytest.approx(12 * 2 * EDGE**2 / (height**2 + EDGE**2))
    assert variation.total(truth) < 12 * 2 * share
    solve = ConsistentTotalVariation(iterations=1500, tolerance=0.0)
    plain, guided = (solve(y, o)[..., 5:10] - truth[..., 5:10] for o in (operator, operator.with_guide(guide)))
    assert float(plain.square().mean()) == pytest.approx(share * (1 - share), rel=0.02)
    assert float(guided.square().mean()) < 1e-3 * share * (1 - share)


def test_an_edge_that_the_guide_lacks_costs_what_it_did():
    truth, guide = block(0.0, 1.0), torch.zeros(4, 3, 15, dtype=torch.float64)
    guide[:, 2:] = 1.0  # an edge elsewhere, at right angles
    assert Variation(guide=guide).total(truth) == pytest.approx(Variation().total(truth))


def test_the_data_step_takes_the_guide_too():
    truth = block(0.0, 1.0)
    operator = ThroughPlane((4, 3, 15), 2, slice_weights(15, 1.0, 3, 5.0, 5.0), 1.0, 5.0, 5.0)
    y, x0 = operator.forward(truth), operator.linear_reconstruction(operator.forward(truth))
    step = TotalVariationProximal(1e-3, 0.01, iterations=1000, tolerance=0.0)
    plain, guided = (
        float((step(x0, y, o, Step(ab_t=0.5)) - truth).square().mean())
        for o in (operator, operator.with_guide(block(0.0, -1.0)))
    )
    assert guided < plain / 10


# -- memory ----------------------------------------------------------------------------------------
def held(call):
    with torch.no_grad(), _Alive() as counted:
        call()
    return counted.peak


def test_guided_minimisers_take_what_they_say():
    shape = (24, 20, 22)
    y, x, variation = torch.rand(shape), torch.rand(shape), Variation(guide=torch.rand(shape))
    volume = array_bytes(shape)
    least_squares = held(
        lambda: minimise_total_variation(lambda z: z + 0, lambda z: z + 0, 1.0, y, x, 0.1, 3, variation=variation)
    )
    assert least_squares <= total_variation_bytes(volume, volume, guided=True) <= 1.6 * least_squares
    constrained = held(lambda: minimise_with_proximal_step(lambda z, t: z + 0, y, 3, variation=variation))
    assert constrained <= proximal_step_bytes(volume, guided=True) <= 1.6 * constrained
    assert held(lambda: conjugate_gradient(lambda z: 2 * z, y, x, 3)) < constrained  # the count is one of arrays
