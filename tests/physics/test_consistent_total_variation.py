"""The least total variation with given thick slices: its data are exact, and it is the least there is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from interslice.files.memory import array_bytes
from interslice.physics.baselines import (
    PER_NOISE,
    ConsistentTotalVariation,
    interpolate_consistently,
)
from interslice.physics.thick import ThroughPlaneSampling
from interslice.physics.total_variation import (
    minimise_total_variation,
    minimise_with_proximal_step,
    proximal_step_bytes,
)
from interslice.physics.variation import Variation, differences
from interslice.usage import UsageError
from tests.report.test_memory import alive
from tests.support.helpers import dense, normal, repeatable


def variation(x, gains=(1.0, 1.0, 1.0)):
    return float((differences(x) * torch.tensor(gains, dtype=x.dtype).view(3, 1, 1, 1)).norm(dim=0).sum())


def thick(shape=(12, 10, 20), spacing=(1.0, 1.0, 1.0), **settings):
    return ThroughPlaneSampling(**settings).for_grid(shape, spacing)


def phantom(shape=(24, 22, 30)):
    """A box that lies askew in a ball: constant pieces."""
    x, y, z = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    ball = (x / 10) ** 2 + (y / 9) ** 2 + (z / 13) ** 2 < 1
    box = ((x + 0.4 * z).abs() < 4) & ((y - 0.3 * z).abs() < 4) & (z.abs() < 8)
    return -1.0 + 1.2 * ball.double() + 0.6 * (box & ball).double()


@repeatable
@given(
    axis=st.integers(0, 2), ratio=st.floats(1.5, 6), gap=st.floats(-0.3, 0.5), seed=st.integers(0, 5),
    iterations=st.integers(1, 8),
)  # fmt: skip
def test_every_iterate_has_the_measurement(axis, ratio, gap, seed, iterations):
    shape = [5, 6, 7]
    shape[axis] = 24
    operator = thick(tuple(shape), axis=axis, ratio=ratio, gap=gap)
    y = normal(*operator.range_shape, seed=seed, dtype=torch.float64)
    x = ConsistentTotalVariation(iterations=iterations)(y, operator)
    torch.testing.assert_close(operator.forward(x), y, rtol=0, atol=1e-9)
    single = ConsistentTotalVariation(iterations=iterations)(y.float(), operator)
    torch.testing.assert_close(operator.forward(single), y.float(), rtol=0, atol=2e-5)


def test_no_consistent_volume_nearby_has_less_total_variation():
    """The problem is convex: what no step within the null space improves is the least there is."""
    operator = thick((6, 5, 15))
    y = normal(*operator.range_shape, dtype=torch.float64)
    x = ConsistentTotalVariation(iterations=4000, tolerance=0.0)(y, operator)
    least = variation(x)
    for seed in range(10):
        direction = normal(*operator.domain_shape, seed=seed, dtype=torch.float64)
        if seed % 2:
            direction = direction.mean((0, 1), keepdim=True).expand(operator.domain_shape)
        free = direction - operator.pseudo_inverse(operator.forward(direction))
        for size in (1e-3, 1e-2, 0.1):
            assert least <= variation(x + size * free) + 1e-5 * least


def test_the_default_is_within_a_hundredth_of_the_least(head):
    operator = thick((24, 24, 30))
    y = operator.forward(torch.from_numpy(head[8:32, 6:30, 4:34]).double() / 500 - 1)
    reached = variation(ConsistentTotalVariation()(y, operator))
    least = variation(ConsistentTotalVariation(iterations=1000, tolerance=0.0)(y, operator))
    starts = [variation(f(y, operator)) for f in (lambda y, o: o.linear_reconstruction(y), interpolate_consistently)]
    assert reached - least < 0.01 * (min(starts) - least) + 1e-3 * least
    assert reached < min(starts)


@pytest.mark.slow
def test_an_independent_minimiser_finds_no_less():
    """Quasi-Newton over the null space, of the total variation with its corners rounded."""
    operator = thick((2, 3, 10))
    y = normal(*operator.range_shape, dtype=torch.float64)
    particular = operator.pseudo_inverse(y)
    seen = dense(lambda x: operator.pseudo_inverse(operator.forward(x)), operator.domain_shape)
    free = torch.linalg.svd(seen)[0][:, int(seen.diagonal().sum().round()) :]

    def rounded(z, corner=1e-3):
        z = torch.tensor(z, requires_grad=True)
        x = particular + (free @ z).view(operator.domain_shape)
        steps = torch.stack([x.diff(dim=a, append=x.narrow(a, -1, 1)) for a in range(3)])
        value = (steps.square().sum(0) + corner**2).sqrt().sum()
        return float(value.detach()), torch.autograd.grad(value, z)[0].numpy()

    found = minimize(rounded, np.zeros(free.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    theirs = variation(particular + (free @ torch.from_numpy(found.x)).view(operator.domain_shape))
    ours = variation(ConsistentTotalVariation(iterations=1500, tolerance=0.0)(y, operator))
    assert 0.995 * theirs < ours <= theirs * (1 + 1e-4) < 0.99 * variation(particular)


def test_constant_pieces_are_recovered_better_than_by_splines():
    truth = phantom()
    operator = thick(tuple(truth.shape))
    y = operator.forward(truth)
    ours, cubic = ConsistentTotalVariation(iterations=300)(y, operator), interpolate_consistently(y, operator)
    assert (ours - truth).norm() < 0.9 * (cubic - truth).norm()
    assert variation(ours) <= variation(truth) < variation(cubic) * 1.2


def test_a_step_between_slices_stays_and_flat_slices_stay_flat():
    """Slices that are constant, in rising order, determine themselves: any way up has the same variation, none less."""
    operator = thick((4, 5, 20))
    levels = torch.tensor([-1.0, -0.2, 0.4, 1.0], dtype=torch.float64)
    y = levels.expand(operator.range_shape)
    x = ConsistentTotalVariation(iterations=1000, tolerance=0.0)(y, operator)
    torch.testing.assert_close(x, x[:1, :1].expand_as(x), rtol=0, atol=1e-6)
    assert variation(x) == pytest.approx(4 * 5 * 2.0, rel=1e-4)
    assert (x[0, 0].diff() >= -1e-4).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (2.0, 0.8, 1.0)])
def test_differences_count_by_millimetres(spacing):
    operator = thick(spacing=spacing)
    assert operator.gains == pytest.approx(tuple(min(spacing) / s for s in spacing))
    scan = ThroughPlaneSampling(axis=2).for_scan((6, 6, 5), (spacing[0], spacing[1], 5.0))
    assert scan.voxel_size == (spacing[0], spacing[1], min(spacing[:2]))
    part = operator.on((slice(0, 5), slice(2, 6), slice(None)))
    assert part.voxel_size == operator.voxel_size
    assert operator.coarser((2, 1, 2)).voxel_size == (2 * spacing[0], spacing[1], 2 * spacing[2])


def test_the_longer_voxel_has_the_weaker_say():
    """With weight w, a step of height 1 across an axis of gain g moves its plateaus of n voxels by g w / n."""
    gains, weight = (1.0, 0.5, 0.25), 0.2
    for axis, gain in enumerate(gains):
        shape = [3, 3, 3]
        shape[axis] = 10
        y = torch.zeros(shape, dtype=torch.float64)
        y.narrow(axis, 4, 6).fill_(1.0)

        def step(z, t, y=y):  # of 1/2 |x - y|^2 / w
            return (z + t / weight * y) / (1 + t / weight)

        x = minimise_with_proximal_step(step, y, 3000, 0.0, Variation(gains))
        expected = gain * weight / 4 + y * (1 - gain * weight / 6 - gain * weight / 4)
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-3)


def test_with_a_weight_it_agrees_with_the_other_solver():
    """Two splittings of one problem: the data term in the primal, and in the dual."""
    operator, weight = thick((5, 6, 10)), 0.05
    y = normal(*operator.range_shape, dtype=torch.float64)
    ours = ConsistentTotalVariation(weight, iterations=3000, tolerance=0.0)(y, operator)
    norm = operator.norm
    theirs = minimise_total_variation(
        operator.forward, operator.adjoint, norm, y, operator.linear_reconstruction(y), weight / norm**2, 3000, 0.0
    )

    def objective(x):
        return float((operator.forward(x) - y).square().sum()) / 2 + weight * variation(x)

    assert objective(ours) == pytest.approx(objective(theirs), rel=1e-4)


def test_noise_brings_a_weight_and_the_result_nearer():
    truth = phantom()
    operator, noise = thick(tuple(truth.shape)), 0.05
    y = operator.forward(truth) + 2 * noise * normal(*operator.range_shape, dtype=torch.float64)
    weighted, exact = ConsistentTotalVariation(noise=noise), ConsistentTotalVariation()
    assert weighted.weight == pytest.approx(PER_NOISE * noise) and exact.weight == 0
    assert ConsistentTotalVariation(0.0, noise=noise).weight == 0
    assert (weighted(y, operator) - truth).norm() < 0.9 * (exact(y, operator) - truth).norm()


def test_a_smaller_weight_follows_the_data_closer_down_to_exactly():
    operator = thick()
    y = normal(*operator.range_shape, dtype=torch.float64)
    misfits = [float((operator.forward(ConsistentTotalVariation(w, iterations=300)(y, operator)) - y).norm())
               for w in (0.3, 0.03, 0.003, 0.0)]  # fmt: skip
    assert misfits == sorted(misfits, reverse=True) and misfits[-1] < 1e-10 < misfits[-2]


def test_it_takes_what_it_says():
    shape = (24, 20, 22)
    y = torch.rand(shape)
    peak = alive(lambda: minimise_with_proximal_step(lambda z, t: z + 0, y, 3))
    assert peak <= proximal_step_bytes(array_bytes(shape)) / array_bytes(shape) <= 1.6 * peak
    operator = thick((24, 20, 25))
    volume, baseline = array_bytes(operator.domain_shape), ConsistentTotalVariation(iterations=3)
    y = normal(*operator.range_shape)
    assert alive(lambda: baseline(y, operator)) * array_bytes(shape) <= baseline.working_bytes(operator) < 20 * volume


def test_values_without_sense_are_refused():
    with pytest.raises(UsageError, match="weight must be a number from 0.*--total_variation_weight sets it"):
        ConsistentTotalVariation(-0.1)
    with pytest.raises(UsageError, match="measurement_noise must be a share of the volume's maximum from 0, below 1"):
        ConsistentTotalVariation(noise=1.0)


def test_auto_takes_the_weight_from_the_noise_of_the_measurement():
    truth = phantom((40, 36, 30))  # slices of which noise can be told
    operator = thick(tuple(truth.shape))
    clean, auto = operator.forward(truth), ConsistentTotalVariation(noise="auto")
    assert torch.equal(auto(clean, operator), ConsistentTotalVariation()(clean, operator))
    noisy = clean + 2 * 0.06 * normal(*operator.range_shape, dtype=torch.float64)
    known = ConsistentTotalVariation(PER_NOISE * operator.noise_deviation(noisy) / 2)
    assert torch.equal(auto(noisy, operator), known(noisy, operator))
    assert (auto(noisy, operator) - truth).norm() < 0.9 * (ConsistentTotalVariation()(noisy, operator) - truth).norm()
    with pytest.raises(UsageError, match="measurement_noise must be a share"):
        ConsistentTotalVariation(noise="x")
