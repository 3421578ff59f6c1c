"""Total variation: differences and their adjoint, and a solver that reaches solutions known in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.total_variation import minimise_total_variation
from interslice.physics.variation import Variation, differences, differences_adjoint
from tests.support.helpers import dense, normal, repeatable

shapes = st.lists(st.integers(1, 6), min_size=3, max_size=5)
axes = st.sampled_from([(-3, -2, -1), (-1,), (-2, -3), (-3, -1)])


def itself(x):
    return x.clone()


def denoise(y, weight, start=None, iterations=400, tolerance=0.0, **others):
    """argmin 1/2 |x - y|^2 + weight TV(x)."""
    start = y if start is None else start
    return minimise_total_variation(itself, itself, 1.0, y, start, weight, iterations, tolerance, **others)


def total_variation(x, gains=(1.0, 1.0, 1.0)):
    """Of (X, Y, Z); past the end, the last slice goes on."""
    steps = [g * x.diff(dim=axis, append=x.narrow(axis, -1, 1)) for axis, g in enumerate(gains)]
    return float(torch.stack(steps).norm(dim=0).sum())


def two_levels(axis, low=0.0, high=1.0, first=4, last=6):
    """(X, Y, Z) of `first` voxels at one level and then `last` at another, constant along the other axes."""
    shape = [3, 2, 3]
    shape[axis] = first + last
    x = torch.full(shape, low, dtype=torch.float64)
    x.narrow(axis, first, last).fill_(high)
    return x


@repeatable
@given(shape=shapes, axes=axes)
def test_the_adjoint_of_differences_passes_the_dot_test(shape, axes):
    x, q = normal(*shape, seed=1, dtype=torch.float64), normal(len(axes), *shape, seed=2, dtype=torch.float64)
    d = differences(x, axes)
    left, right = (d * q).sum(), (x * differences_adjoint(q, axes)).sum()
    assert abs(left - right) <= 1e-12 * float(d.norm() * q.norm() + 1)


@repeatable
@given(shape=shapes, axes=axes)
def test_differences_are_those_to_the_next_voxel_and_nothing_at_the_end(shape, axes):
    x = normal(*shape, dtype=torch.float64)
    for d, axis in zip(differences(x, axes), axes):
        n = shape[axis]
        assert torch.equal(d.narrow(axis, 0, n - 1), x.diff(dim=axis))
        assert (d.narrow(axis, n - 1, 1) == 0).all()


def test_nothing_wraps_around_in_either_direction():
    steps = dense(differences, (3, 2, 2))
    # Each difference takes one voxel from the next, and no row joins the first and the last along an axis of three.
    assert torch.equal(steps.abs().sum(1) > 0, (steps == 1).sum(1) == 1)
    assert torch.equal((steps == 1).sum(1), (steps == -1).sum(1))
    assert (steps != 0).sum() == 2 * (2 * 4 + 6 + 6)
    first, last = steps[:12, :4], steps[:12, 8:]
    assert not ((first != 0).any(1) & (last != 0).any(1)).any()
    assert torch.equal(dense(differences_adjoint, (3, 3, 2, 2)), steps.T)


@repeatable
@given(shape=shapes)
def test_differences_leave_the_mean_alone(shape):
    q = normal(3, *shape, dtype=torch.float64)
    assert differences_adjoint(q).sum().abs() < 1e-9
    assert (differences(torch.full(shape, 7.0)) == 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("weight", [0.02, 0.2, 0.5])
def test_each_plateau_of_a_step_moves_by_the_weight_over_its_length(axis, weight):
    expected = two_levels(axis, weight / 4, 1 - weight / 6)
    torch.testing.assert_close(denoise(two_levels(axis), weight), expected, rtol=0, atol=1e-3)


def test_a_plateau_between_two_steps_moves_twice_as_far():
    y = torch.tensor([0.0] * 4 + [1.0] * 5 + [-1.0] * 6, dtype=torch.float64).view(-1, 1, 1)
    weight = 0.3
    expected = torch.tensor([weight / 4] * 4 + [1 - 2 * weight / 5] * 5 + [-1 + weight / 6] * 6, dtype=torch.float64)
    torch.testing.assert_close(denoise(y, weight).flatten(), expected, rtol=0, atol=1e-3)


def test_a_small_step_is_levelled():
    y = two_levels(0)
    weight = 1.01 * 4 * 6 / 10  # the plateaus move by w / 4 and w / 6 and meet
    torch.testing.assert_close(denoise(y, weight, iterations=2000), y.mean().expand_as(y), rtol=0, atol=1e-3)


def objective(x, y, weight, forward=itself, norm=1.0, rho=0.0, x0=0.0, gains=(1.0, 1.0, 1.0)):
    data = (forward(x) - y).square().sum() / norm**2
    return float(data + rho * (x - x0).square().sum()) / 2 + weight * total_variation(x, gains)


@pytest.mark.parametrize("weight", [0.05, 0.2])
def test_agrees_with_scikit_image(weight):
    restoration = pytest.importorskip("skimage.restoration")
    y = normal(6, 7, 5, dtype=torch.float64) / 3
    theirs = torch.from_numpy(restoration.denoise_tv_chambolle(y.numpy(), weight, eps=0, max_num_iter=3000))
    ours = denoise(y, weight)
    assert objective(ours, y, weight) == pytest.approx(objective(theirs, y, weight), rel=1e-4)
    assert (ours - theirs).abs().max() < 5e-3 < 0.1 * (ours - y).abs().max()


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("gains", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_no_nearby_point_has_a_lower_objective(rho, gains):
    """The objective is convex, so the lowest point nearby is the lowest of all."""
    shape, weight = (4, 3, 3), 0.1
    matrix = normal(24, 36, dtype=torch.float64)
    norm = float(torch.linalg.svdvals(matrix)[0])
    y, x0 = normal(24, seed=1, dtype=torch.float64), normal(*shape, seed=2, dtype=torch.float64)

    def forward(x):
        return matrix @ x.flatten()

    x = minimise_total_variation(
        forward, lambda p: (matrix.T @ p).view(shape), norm, y, x0, weight, 1500, 0.0, rho, Variation(gains)
    )
    problem = {"y": y, "weight": weight, "forward": forward, "norm": norm, "rho": rho, "x0": x0, "gains": gains}
    lowest = objective(x, **problem)
    assert lowest < 0.9 * objective(x0, **problem)
    for seed in range(8):
        for size in (1e-3, 1e-2, 0.1):
            direction = normal(*shape, seed=seed, dtype=torch.float64)
            assert lowest <= objective(x + size * direction, **problem) + 1e-7
            smooth = direction.mean(seed % 3, keepdim=True).expand(shape)
            assert lowest <= objective(x + size * smooth, **problem) + 1e-7


def test_the_solution_does_not_depend_on_the_start():
    y = normal(4, 5, 3, dtype=torch.float64)
    starts = (torch.zeros_like(y), y, 5 * normal(4, 5, 3, seed=1, dtype=torch.float64))
    solutions = [denoise(y, 0.2, start) for start in starts]
    for other in solutions[1:]:
        torch.testing.assert_close(other, solutions[0], rtol=0, atol=2e-3)


def test_units_of_the_operator_cancel():
    y = normal(4, 5, 3, dtype=torch.float64)
    plain = denoise(y, 0.2, iterations=50)
    metres = minimise_total_variation(lambda x: 1e3 * x, lambda p: 1e3 * p, 1e3, 1e3 * y, y, 0.2, 50, 0.0)
    torch.testing.assert_close(metres, plain)


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_values_in_other_units_give_the_same_solution_in_those_units(scale):
    y = two_levels(0)
    weight = 0.2
    scaled = denoise(scale * y, scale * weight, tolerance=1e-4, scale=scale) / scale
    torch.testing.assert_close(scaled, two_levels(0, weight / 4, 1 - weight / 6), rtol=0, atol=0.01)


def test_a_transposed_volume_has_the_transposed_solution():
    y = normal(4, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        denoise(y.permute(2, 0, 1), 0.2, iterations=50).permute(1, 2, 0), denoise(y, 0.2, iterations=50)
    )


def test_leading_dimensions_do_not_matter():
    y = normal(4, 5, 3, dtype=torch.float64)
    assert torch.equal(denoise(y[None, None], 0.2, iterations=20)[0, 0], denoise(y, 0.2, iterations=20))


def test_the_quadratic_term_pulls_to_the_start():
    """With A = 1 the two quadratic terms are one, about their mean, and the weight counts for less."""
    y, x0, rho, weight = two_levels(0), two_levels(0, 3.0, -1.0), 0.5, 0.3
    both = (y + rho * x0) / (1 + rho)
    expected = denoise(both, weight / (1 + rho))
    torch.testing.assert_close(denoise(y, weight, x0, rho=rho), expected, rtol=0, atol=1e-3)
    levels = [(0 + rho * 3) / (1 + rho), (1 - rho) / (1 + rho)]
    assert levels[0] > levels[1]
    move = weight / (1 + rho)
    torch.testing.assert_close(expected, two_levels(0, levels[0] - move / 4, levels[1] + move / 6), rtol=0, atol=1e-3)


def test_a_very_strong_quadratic_term_leaves_the_start_as_it_is():
    y, x0 = normal(4, 5, 3, dtype=torch.float64), normal(4, 5, 3, seed=1, dtype=torch.float64)
    distances = [float((denoise(y, 0.2, x0, rho=rho) - x0).abs().max()) for rho in (1e2, 1e4, 1e6)]
    assert distances[2] < 1e-5
    assert distances[2] < distances[1] / 50 < distances[0] / 2500


def test_the_gain_of_an_axis_multiplies_its_weight():
    weight, gains = 0.2, (2.0, 1.0, 0.5)
    for axis, gain in enumerate(gains):
        expected = two_levels(axis, gain * weight / 4, 1 - gain * weight / 6)
        torch.testing.assert_close(
            denoise(two_levels(axis), weight, variation=Variation(gains)), expected, rtol=0, atol=1e-3
        )


def test_an_axis_without_gain_has_no_say():
    y = normal(5, 6, 3, dtype=torch.float64)
    together = denoise(y, 0.2, variation=Variation((1.0, 1.0, 0.0)))
    for s in range(3):
        alone = denoise(y[..., s : s + 1], 0.2)
        torch.testing.assert_close(together[..., s : s + 1], alone, rtol=0, atol=1e-3)


def count_iterations(tolerance, iterations=300):
    calls = []

    def forward(x):
        calls.append(1)
        return x.clone()

    y = normal(4, 5, 3, dtype=torch.float64)
    minimise_total_variation(forward, itself, 1.0, y, 0 * y, 0.2, iterations, tolerance)
    return len(calls)


def test_a_step_smaller_than_the_tolerance_is_the_last():
    assert count_iterations(0.0) == 300
    assert count_iterations(10.0) == 1
    fine, coarse = count_iterations(3e-3), count_iterations(3e-2)
    assert 1 < coarse < fine < 300


def test_no_iterations_give_the_start_back_and_nothing_given_is_changed():
    y, x = normal(4, 5, 3), normal(4, 5, 3, seed=1)
    kept = y.clone(), x.clone()
    unmoved = denoise(y, 0.2, x, iterations=0)
    assert torch.equal(unmoved, x) and unmoved is not x
    denoise(y, 0.2, x, iterations=3, rho=0.1)
    assert torch.equal(y, kept[0]) and torch.equal(x, kept[1])


def test_maps_may_return_their_argument_itself():
    y = two_levels(0)
    same = minimise_total_variation(lambda x: x, lambda p: p, 1.0, y, y, 0.2, 100, 0.0)
    torch.testing.assert_close(same, denoise(y, 0.2, iterations=100))


@pytest.mark.parametrize(
    ("weight", "norm"), [(0.0, 1.0), (-0.1, 1.0), (math.nan, 1.0), (0.1, 0.0), (0.1, -1.0), (0.1, math.nan)]
)
def test_weight_and_norm_must_be_positive(weight, norm):
    with pytest.raises(ValueError, match=f"weight and norm must be positive, got {weight} and {norm}"):
        minimise_total_variation(itself, itself, norm, torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), weight, 5)


def test_few_views_of_a_piecewise_constant_volume_are_enough():
    grid = Grid((24, 24, 1), (1.0, 1.0, 1.0))
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    truth = ((torch.hypot(x - 2, y + 1) < 8).float() - 0.5 * (torch.maximum((x - 3).abs(), (y + 2).abs()) < 3))[
        ..., None
    ]
    scan = ScanGeometry("parallel", [18.0 * i for i in range(10)], 36, 1.0, 1, 1.0)
    operator = SparseRadon(scan, grid, "joseph")
    data = operator.forward(truth)
    start = operator.linear_reconstruction(data)
    result = minimise_total_variation(operator.forward, operator.adjoint, operator.norm, data, start, 1e-4, 300)
    assert (result - truth).norm() < 0.2 * (start - truth).norm()
