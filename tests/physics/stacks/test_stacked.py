"""The operator of several stacks: exact transposes, both back ends, one stack as thick slices, and its weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.stacks import Stack, StackedSlices
from interslice.physics.stacks.stacked import profile_points
from interslice.physics.thick import ThroughPlaneSampling
from interslice.usage import UsageError
from tests.physics.stacks.made import on_grid, operator, rigid, several, smooth, stack
from tests.support.helpers import dense, normal, repeatable

angles, shifts = st.floats(-40, 40), st.floats(-3, 3)


def test_the_adjoint_is_the_transpose_entry_by_entry():
    a = operator([stack(2, (4, 3, 9)), stack(0, (9, 4, 5), place=(0.3, -0.2, 0.6), turn=(3, 20, -7), seed=1)])
    forward, adjoint = dense(a.forward, a.domain_shape), dense(a.adjoint, a.range_shape)
    torch.testing.assert_close(forward, adjoint.T, rtol=1e-12, atol=1e-14)
    assert float(forward.abs().sum(1).max()) == pytest.approx(1, abs=1e-12)


@repeatable
@given(turn=st.tuples(angles, angles, angles), shift=st.tuples(shifts, shifts, shifts), backend=st.sampled_from(
    ["torch", "numba"]), axis=st.integers(0, 2), profile=st.sampled_from(["box", "gaussian"]))  # fmt: skip
def test_the_adjoint_is_exact_however_a_stack_lies(turn, shift, backend, axis, profile):
    moved = stack(axis, seed=3, turn=turn, place=shift, profile=profile)
    a = operator([stack(2), moved.moved(poses=rigid(turn[::-1], shift).expand(moved.count, 4, 4))], backend)
    for x, y in ((normal(2, *a.domain_shape), normal(2, *a.range_shape, seed=1)),
                 (torch.ones(1, *a.domain_shape), torch.ones(1, *a.range_shape))):  # fmt: skip
        ax, aty = a.forward(x), a.adjoint(y)
        scale = float(ax.norm() * y.norm()) + 1e-12
        assert abs(float((ax.double() * y).sum() - (aty.double() * x).sum())) < 1e-6 * scale


def test_both_back_ends_compute_the_same():
    slow, fast = operator(backend="torch"), operator(backend="numba")
    x, y = normal(2, *slow.domain_shape), normal(2, *slow.range_shape, seed=1)
    torch.testing.assert_close(slow.forward(x), fast.forward(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slow.adjoint(y), fast.adjoint(y), rtol=1e-5, atol=1e-5)
    exact = slow.forward(x.double())
    assert float((fast.forward(x) - exact).abs().max()) < 1e-5


def test_results_do_not_depend_on_the_number_of_threads():
    a = operator(backend="numba")
    y, threads = normal(*a.range_shape), torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(a.adjoint(y))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_batch_is_measured_volume_by_volume_and_the_gradient_is_the_adjoint():
    a = operator()
    x = normal(2, 1, *a.domain_shape)
    torch.testing.assert_close(a.forward(x)[1, 0], a.forward(x[1, 0]))
    y = normal(*a.range_shape, seed=1)
    z = x[0, 0].clone().requires_grad_()
    (a(z) * y).sum().backward()
    torch.testing.assert_close(z.grad, a.adjoint(y))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_one_stack_on_its_own_grid_is_that_of_thick_slices(axis, gap):
    shape, spacing = [9, 8, 7], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 4, 4.0
    thick = ThroughPlaneSampling(gap=gap).for_scan(tuple(shape), tuple(spacing))
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    one = Stack(normal(*shape), affine, axis, thick.thickness)
    a = operator([one])
    assert a.domain_shape == thick.domain_shape
    torch.testing.assert_close(a.domain_affine(torch.eye(4)), thick.domain_affine(affine))
    x = normal(*a.domain_shape, seed=1)
    torch.testing.assert_close(a.forward(x), thick.forward(x).movedim(axis, 0).flatten(), rtol=1e-5, atol=1e-6)
    assert a.slice_axes == thick.slice_axes
    torch.testing.assert_close(a.measurement(), one.voxels.movedim(axis, 0).flatten())


def test_a_moved_scan_of_a_smooth_function_is_predicted():
    """y = f where the slices lie: the pose takes the header's place to the place in the patient."""
    pose = rigid((6, -4, 8), (1.5, -2.0, 1.0))
    still, moved = stack(2, (24, 24, 24)), stack(1, (24, 24, 24), pitch=2.0)
    a = operator([still, moved.moved(poses=pose.expand(moved.count, 4, 4))])
    predicted = a.split(a.forward(on_grid(a.domain_shape, a.affine)))[1]
    # A border voxel stands for its outer half, too: that is compared with nothing.
    within = torch.nn.functional.pad(torch.ones([n - 2 for n in a.domain_shape]), [1] * 6)
    known = a.split(a.forward(within))[1] > 0.999
    offsets, shares = profile_points(moved, 0.1)
    index = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in moved.voxels.shape], indexing="ij"), -1)
    truth = torch.zeros(moved.voxels.shape, dtype=torch.float64)
    for offset, share in zip(offsets, shares):
        places = index @ moved.affine[:3, :3].T + moved.affine[:3, 3] + offset * moved.normal
        truth += share * torch.from_numpy(smooth(places @ pose[:3, :3].T + pose[:3, 3]))
    assert float(known.float().mean()) > 0.4
    assert float((predicted - truth.movedim(1, 0))[known].abs().max()) < 0.02


def test_what_reaches_beyond_the_volume_does_not_count():
    inside, beyond = stack(2, (8, 8, 9)), stack(2, (8, 8, 9), place=(0, 0, 4.5), seed=1)
    a = operator([inside, beyond])
    counts = a.split(a.rows)[1].flatten(1)
    assert [bool((row > 0).all()) for row in counts] == [True, False, False]  # slice 1 ends at 10.5, the volume at 7.5
    assert not counts[1:].any() and not a.measurement().reshape(2, 3, -1)[1, 1:].any()
    y = a.forward(normal(*a.domain_shape))
    assert not y.reshape(2, 3, -1)[1, 1:].any()


def test_weights_and_noise_enter_as_in_weighted_least_squares():
    one = stack(2, noise=0.02)
    other = stack(2, seed=1, noise=0.04, weights=torch.tensor([1.0, 0.25, 0.0, 1.0]))
    a = operator([one, other])
    x = normal(*a.domain_shape)
    first, second = a.split(a.forward(x))
    share = 0.5 * torch.tensor([1.0, 0.5, 0.0, 1.0])
    torch.testing.assert_close(second, first * share[:, None, None])
    torch.testing.assert_close(a.split(a.measurement())[1], other.slices * share[:, None, None])


def test_planes_are_those_that_show_what_is_thick():
    assert operator([stack(2), stack(1, seed=1)]).slice_axes == (0, 1, 2)
    assert operator([stack(2), stack(2, seed=1, turn=(4, 0, 0))]).slice_axes == (0, 1)
    assert operator([stack(0), stack(0, seed=1)]).slice_axes == (1, 2)
    assert operator([stack(2), stack(2, seed=1, turn=(45, 0, 0))]).slice_axes == (0, 1, 2)


def test_a_consistent_volume_is_found():
    """Least squares of what slices in three directions say comes back to it where they lie a voxel or two apart."""
    stacks = [stack(axis, (12, 12, 12), pitch=2.0, seed=axis) for axis in range(3)]
    a = operator(stacks)
    x = on_grid(a.domain_shape, a.affine)
    found = a.pseudo_inverse(a.forward(x), iterations=200, tolerance=1e-7)
    inner = (slice(2, -2),) * 3
    assert float((found - x)[inner].abs().max()) < 0.02


def test_the_quick_reconstruction_of_a_constant_is_that_constant():
    a = operator()
    x = a.linear_reconstruction(a.forward(torch.full(a.domain_shape, 0.7)))
    measured = a.adjoint(torch.ones(a.range_shape)) > 1e-2
    torch.testing.assert_close(x[measured], torch.full_like(x[measured], 0.7), atol=1e-3, rtol=0)
    assert (x[a.adjoint(a.rows) == 0] == a.background).all()


def test_noise_is_estimated_within_slices_and_what_is_smooth_is_not_noise():
    affine = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    voxels, noise = on_grid((64, 60, 8), affine), 0.06 * normal(64, 60, 8, seed=4)
    a = operator([Stack(voxels + noise, affine, 2, 4.0)])
    assert a.noise_deviation(a.measurement()) == pytest.approx(0.06, rel=0.05)
    assert a.noise_norm(a.measurement()) == pytest.approx(float(noise.norm()), rel=0.05)
    still = operator([Stack(voxels, affine, 2, 4.0)])
    assert still.noise_deviation(still.measurement()) < 0.002


@pytest.mark.parametrize("thickness, voxel, count", [(5.0, 1.0, 5), (4.4, 1.0, 5), (0.5, 1.0, 1)])
def test_points_of_a_box_are_a_voxel_apart_or_less(thickness, voxel, count):
    offsets, shares = profile_points(stack(2, thickness=thickness), voxel)
    assert len(offsets) == count and float(shares.sum()) == pytest.approx(1)
    assert float(offsets.mean()) == pytest.approx(0, abs=1e-12)
    assert float(offsets.max() - offsets.min()) == pytest.approx(thickness * (1 - 1 / count))


def test_a_gaussian_has_its_width():
    offsets, shares = profile_points(stack(2, thickness=4.0, profile="gaussian"), 0.05)
    deviation = math.sqrt(float((shares * offsets**2).sum()))
    assert deviation == pytest.approx(4.0 / (2 * math.sqrt(2 * math.log(2))), rel=0.03)


@pytest.mark.parametrize("stacks, backend, error, words", [
    ([], "torch", ValueError, "at least one"), (None, "cuda", UsageError, "backend must be one of"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(stacks, backend, error, words):
    with pytest.raises(error, match=words):
        StackedSlices(several() if stacks is None else stacks, (4, 4, 4), torch.eye(4), backend)


@pytest.mark.parametrize("changed, words", [
    ({"voxels": torch.zeros(8, 8)}, "three axes"), ({"thickness": 0.0}, "thicker than 0 mm"),
    ({"profile": "round"}, "profile must be one of"), ({"weights": torch.ones(3)}, "4 slices, and 3 weights"),
    ({"poses": torch.eye(4).expand(2, 4, 4)}, "4 slices, and 2 poses"),
])  # fmt: skip
def test_a_stack_that_is_none_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        stack(2).moved(**changed)
