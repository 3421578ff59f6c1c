"""What counts say of a ray: the mean of estimates is the line integral at every dose, and that of a body its HU."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.counting import RayNoise, known, rays_of
from interslice.physics.ct.weighted_rays import rows_of
from tests.support.helpers import dense, repeatable

DOSES = (1e3, 1e4, 1e5, 1e6)
WATER = 0.0192


def counts_of(p, photons, read_out=0.0, seed=0):
    """Counts of rays (views, columns, rows) with line integrals p."""
    random = np.random.default_rng(seed)
    return random.poisson(photons * np.exp(-p)) + (random.normal(0, read_out, p.shape) if read_out else 0.0)


def mean_and_error(values):
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64) / np.sqrt(values.size))


@pytest.mark.parametrize("photons", DOSES)
@pytest.mark.parametrize("line_integral", [0.0, 2.0, 4.5, 6.0])
@pytest.mark.parametrize("read_out", [0.0, 6.0])
def test_the_mean_of_estimates_is_the_line_integral(photons, line_integral, read_out):
    """Down to 2.5 photons a ray, which a read-out of 6 drowns; within four standard errors of 60,000 rays."""
    counts = counts_of(np.full((60, 50, 20), line_integral), photons, read_out)
    mean, error = mean_and_error(rays_of(counts, photons, read_out)[0])
    assert abs(mean - line_integral) < 4 * error + 1e-6 * line_integral


@pytest.mark.parametrize(("photons", "bias"), [(1e3, 0.2), (1e4, 0.02), (1e5, 0.002)])
def test_the_plain_logarithm_is_off(photons, bias):
    """What is mended: 1 / (2 m), and more where counts of zero are raised to a half."""
    counts = counts_of(np.full((60, 50, 20), 6.0), photons)
    mean, error = mean_and_error(-np.log(np.maximum(counts, 0.5) / photons))
    assert mean - 6.0 == pytest.approx(bias, rel=0.2) and mean - 6.0 > 6 * error


@pytest.mark.parametrize("photons", DOSES)
def test_slopes_cost_no_bias(photons):
    """A disc of 300 mm of water, where neighbours differ: each column by itself, and all together."""
    a = np.linspace(-170, 170, 137)
    p = 2 * WATER * np.sqrt(np.maximum(150.0**2 - a**2, 0.0))
    truth = np.broadcast_to(p[None, :, None], (300, 137, 8))
    off = rays_of(counts_of(truth, photons), photons)[0] - truth
    z = off.mean((0, 2)) / (off.std((0, 2)) / np.sqrt(300 * 8))
    assert np.sqrt(np.square(z).mean()) < 1.25 and np.abs(z).max() < 5
    assert abs(off.mean()) < 0.003


@pytest.mark.parametrize("read_out", [0.0, 10.0])
@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_the_variance_is_that_of_the_estimates(photons, read_out):
    counts = counts_of(np.full((60, 50, 20), 3.0), photons, read_out)
    p, noise = rays_of(counts, photons, read_out)
    m = photons * np.exp(-3.0)
    theory = (m + read_out**2) / m**2
    assert float(p.var(dtype=np.float64)) == pytest.approx(theory, rel=0.05)
    assert float(noise.variance.mean()) == pytest.approx(theory, rel=0.05)


def test_a_weight_hardly_knows_its_own_ray():
    """Weights of a ray's own count favour what is high by chance: they draw the mean down by 1 / m."""
    truth = np.full((60, 50, 20), 4.0)
    counts = counts_of(truth, 1e3)
    p, noise = rays_of(counts, 1e3)
    w, own = 1 / noise.variance, counts.clip(0.5)
    assert abs((w * (p - 4.0)).sum() / w.sum()) < 0.003
    assert (own * (p - 4.0)).sum() / own.sum() == pytest.approx(-1 / (1e3 * np.exp(-4)), rel=0.2)


@repeatable
@given(
    photons=st.floats(1.0, 1e6), read_out=st.floats(0.0, 50.0), thickness=st.floats(0.0, 30.0), seed=st.integers(0, 9)
)
def test_no_count_makes_anything_infinite(photons, read_out, thickness, seed):
    p, noise = rays_of(counts_of(np.full((3, 7, 2), thickness), photons, read_out, seed), photons, read_out)
    assert np.isfinite(p).all() and np.isfinite(noise.variance).all() and (noise.variance > 0).all()


@repeatable
@given(order=st.permutations(range(5)), seed=st.integers(0, 9))
def test_views_are_read_one_by_one(order, seed):
    counts = counts_of(np.linspace(0, 6, 5 * 9 * 4).reshape(5, 9, 4), 500.0, seed=seed)
    p, noise = rays_of(counts, 500.0)
    there, noise_there = rays_of(counts[list(order)], 500.0)
    assert np.array_equal(there, p[list(order)]) and np.array_equal(noise_there.variance, noise.variance[list(order)])


@repeatable
@given(scale=st.floats(0.5, 4.0))
def test_each_element_has_its_own_air(scale):
    """Counts and air of an element twice as large: the same ray, known better."""
    counts = np.round(1e5 * np.exp(-np.linspace(0, 2, 4 * 9 * 3).reshape(4, 9, 3)))
    air = np.full((9, 3), 1e5)
    air[4] *= scale
    p, _ = rays_of(counts * (air / 1e5), air)
    np.testing.assert_allclose(p, rays_of(counts, 1e5)[0], atol=2e-4)


def test_a_dead_element_and_an_edge_stay_what_they_are():
    counts = counts_of(np.full((20, 30, 6), 1.0), 1e4).astype(float)
    counts[:, 10] = 0.0  # dead
    counts[:, 20] = np.random.default_rng(1).poisson(2.0, (20, 6))  # behind metal
    p, _ = rays_of(counts, 1e4)
    assert np.allclose(p[:, 10], np.log(2e4))
    np.testing.assert_allclose(p[:, 20], -np.log(counts[:, 20].clip(0.5) / 1e4), rtol=1e-6)
    assert abs(p[:, [8, 9, 11, 12, 18, 19, 21, 22]].mean() - 1.0) < 0.005


def test_what_a_count_is_worth():
    assert known(np.array([100.0]), 0.0) == pytest.approx(100.0)
    assert known(np.array([100.0]), 10.0) == pytest.approx(50.0)
    assert known(np.array([-5.0, 0.0]), 3.0).tolist() == [0.0, 0.0]


def test_noise_follows_what_is_done_to_rays():
    noise = RayNoise(np.ones((2, 3, 1), np.float32))
    lost = np.array([[False], [True], [False]])
    assert np.array_equal(noise.changed(np.full((2, 3, 1), 2.0)).variance, np.full((2, 3, 1), 4.0))
    assert (
        np.isinf(noise.without(lost).variance[:, 1]).all() and np.isfinite(noise.without(lost).variance[:, ::2]).all()
    )


@pytest.mark.parametrize("photons", DOSES)
def test_weighted_least_squares_of_a_disc_of_water_has_no_bias(photons):
    """220 mm of water, solved exactly: the mean HU within is 0 up to its error, over many draws."""
    count, size, draws = 24, 11.0, 40
    grid = Grid((count, count, 1), (size,) * 3)
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    disc = torch.where(torch.hypot(x, y) < 110, WATER, 0.0).double()[..., None]
    rays = SparseRadon(ScanGeometry("parallel", tuple(4.0 * i for i in range(45)), 36, size, 1, size), grid)
    matrix = dense(rays.forward, grid.shape)
    truth = np.broadcast_to((matrix @ disc.flatten()).view(45, 36, 1).numpy(), (45, 36, draws))
    p, noise = rays_of(counts_of(truth, photons), photons)
    rows = rows_of(noise)[0].double().flatten(0, 1)
    within = (torch.hypot(x, y) < 100).flatten()
    found = []
    for weights, line_integrals in zip(rows.T.square(), torch.from_numpy(p).double().flatten(0, 1).T):
        weighted = matrix.T * weights
        solution = torch.linalg.solve(weighted @ matrix, weighted @ line_integrals)
        found.append(1000 * (float(solution[within].mean()) / WATER - 1))
    mean, error = mean_and_error(np.array(found))
    assert abs(mean) < 4 * error + 0.02 and error < 1.0, (mean, error)
