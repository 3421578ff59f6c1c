"""Rays weighted by what is known of them: a linear operator like others, whose least squares are weighted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from interslice.physics import LinearOperator, Measured, operator_of
from interslice.physics.baselines import PER_VARIANCE, UNKNOWN_NOISE, TotalVariation, weight_by_noise
from interslice.physics.ct import (
    ConeBeam,
    Grid,
    HounsfieldScale,
    ScaleProjectionsd,
    ScanGeometry,
    SimulateProjectionsd,
    SparseRadon,
    Tomography,
    WeighRaysd,
)  # fmt: skip
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.ray_transform import RayTransform
from interslice.physics.ct.weighted_rays import LEAST_ROW, MODEL_ERROR, WeightedRays, rows_of
from interslice.physics.total_variation import minimise_total_variation
from interslice.prior.activations import _Alive
from interslice.sampling.data_consistency import Proximal, TotalVariationProximal
from interslice.sampling.step import Step
from tests.support.helpers import dense, normal, repeatable

DISTANCES = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}
SCALE = HounsfieldScale()


def matrix_of(operator):
    return dense(operator.forward, operator.domain_shape)


def rays_of_beam(beam="parallel"):
    distances = {} if beam == "parallel" else DISTANCES
    geometry = ScanGeometry(beam, (0.0, 17.0, 61.0, 95.0, 130.0, 160.0), 9, 2.0, 5, 1.5, **distances)
    grid = Grid((6, 5, 5), (1.5, 1.2, 1.5))
    return ConeBeam(geometry, grid, "torch", -1.0) if beam == "cone" else SparseRadon(geometry, grid, background=-1.0)


def weighted(beam="parallel", seed=0, **others):
    rays = rays_of_beam(beam)
    rows = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 2.0, rays.range_shape)).float()
    return WeightedRays(rays, rows, **others)


@pytest.mark.parametrize("beam", ["parallel", "fan", "cone"])
def test_rows_are_those_of_the_rays_times_their_weights(beam):
    operator = weighted(beam)
    expected = operator.rows.double().flatten()[:, None] * matrix_of(operator.rays)
    torch.testing.assert_close(matrix_of(operator), expected, rtol=1e-6, atol=1e-7)
    x, y = (normal(*shape, dtype=torch.float64) for shape in (operator.domain_shape, operator.range_shape))
    left, right = (operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert abs(left - right) <= 1e-12 * float(x.norm() * y.norm()) * operator.norm
    assert operator.norm == pytest.approx(float(torch.linalg.matrix_norm(expected, 2)), rel=0.02)
    assert str(operator) == str(operator.rays) and operator.background == -1.0


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_filtered_back_projection_weighs_nothing(beam):
    operator = weighted(beam)
    y = normal(*operator.range_shape)
    expected = operator.rays.linear_reconstruction(y)
    torch.testing.assert_close(operator.linear_reconstruction(operator.weigh(y)), expected, rtol=1e-4, atol=1e-4)


@repeatable
@given(begin=st.integers(0, 3), length=st.integers(1, 2), seed=st.integers(0, 20))
def test_a_part_is_measured_as_in_the_whole(begin, length, seed):
    operator, box = weighted(seed=seed), (slice(None), slice(None), slice(begin, begin + length))
    part, there = operator.on(box), operator.range_box(box)
    x, y = normal(*operator.domain_shape, seed=seed), normal(*operator.range_shape, seed=seed + 1)
    torch.testing.assert_close(part.forward(x[box]), operator.forward(x)[there])
    torch.testing.assert_close(part.adjoint(y[there]), operator.adjoint(y)[box])
    torch.testing.assert_close(part.linear_reconstruction(y[there]), operator.linear_reconstruction(y)[box])
    assert part.norm == operator.norm and part.geometry.num_rows == length
    with pytest.raises(ValueError, match="WeightedRays cannot be restricted"):
        weighted("cone").on(box)


def test_least_squares_are_weighted():
    """(A^T W A + rho) x = A^T W y, by dense algebra."""
    operator = weighted()
    a, w = matrix_of(operator.rays), operator.rows.double().flatten().square()
    y = normal(*operator.range_shape, dtype=torch.float64)
    eye = torch.eye(a.shape[1], dtype=torch.float64)
    expected = torch.linalg.solve(a.T @ (w[:, None] * a) + 0.5 * eye, a.T @ (w * y.flatten()))
    found = operator.prox(torch.zeros(operator.domain_shape, dtype=torch.float64), operator.weigh(y), 0.5, 200, 1e-12)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-6, atol=1e-8)


@repeatable
@given(seed=st.integers(0, 50))
def test_the_misfit_is_the_same_with_weights_beside(seed):
    operator = weighted(seed=seed)
    x, y = normal(*operator.domain_shape, seed=seed), operator.weigh(normal(*operator.range_shape, seed=seed + 1))
    rays, plain, w = operator.unweighted(y)
    left = float((operator.forward(x) - y).square().sum()) / operator.norm**2
    right = float((w * (rays.forward(x) - plain).square()).sum()) / rays.norm**2
    assert left == pytest.approx(right, rel=1e-4)


def test_total_variation_reaches_the_same_volume_with_weights_beside():
    operator = weighted()
    y = operator.weigh(normal(*operator.range_shape, dtype=torch.float64))
    start = torch.zeros(operator.domain_shape, dtype=torch.float64)
    settings = {"weight": 0.02, "iterations": 3000, "tolerance": 0.0, "rho": 0.05}
    within = minimise_total_variation(operator.forward, operator.adjoint, operator.norm, y, start, **settings)
    rays, plain, w = operator.unweighted(y)
    beside = minimise_total_variation(rays.forward, rays.adjoint, rays.norm, plain, start, weights=w, **settings)
    torch.testing.assert_close(beside, within, rtol=0, atol=1e-4 * float(within.abs().max()))


@repeatable
@given(first=st.floats(0.5, 5.0), second=st.floats(0.5, 5.0), weight=st.floats(0.05, 0.3))
def test_values_that_count_less_give_way_to_total_variation_sooner(first, second, weight):
    """Of two voxels 0 and 3: weight / w from either side, in closed form."""
    y, w = torch.tensor([0.0, 3.0]).view(1, 1, 2), torch.tensor([first, second]).view(1, 1, 2)
    found = minimise_total_variation(lambda x: x, lambda x: x, 1.0, y, y, weight, 4000, 0.0, weights=w)
    assert found.flatten().tolist() == pytest.approx([weight / first, 3.0 - weight / second], abs=2e-3)


@repeatable
@given(low=st.floats(1e-6, 1e-2), seed=st.integers(0, 20))
def test_weights_are_one_in_the_mean_and_whiten(low, seed):
    """w (v + e^2) = s^2 for every ray, and the part of s^2 that is noise is the mean of w v."""
    variance = np.random.default_rng(seed).uniform(low, 50 * low, (6, 9, 5)).astype(np.float32)
    rows, s, noise = rows_of(RayNoise(variance))
    w = rows.double().numpy() ** 2
    assert w.mean() == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_allclose(w * (variance + MODEL_ERROR**2), s**2, rtol=1e-4)
    assert noise == pytest.approx(np.sqrt((w * variance).mean()), rel=1e-3) and noise < s


def test_a_ray_that_tells_nothing_has_next_to_no_weight():
    variance = np.ones((6, 9, 5), np.float32)
    variance[:, 3] = np.inf
    rows, s, noise = rows_of(RayNoise(variance))
    assert float(rows[:, 3].max()) == pytest.approx(LEAST_ROW) and np.isfinite([s, noise]).all()
    with pytest.raises(ValueError, match="no ray has a variance"):
        rows_of(RayNoise(np.full((2, 2, 2), np.inf, np.float32)))


@pytest.mark.parametrize(
    ("rows", "message"), [(torch.ones(2, 9, 5), "weights for"), (torch.zeros(6, 9, 5), "must be positive")]
)
def test_weights_that_are_none_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        WeightedRays(rays_of_beam(), rows)


# -- in the pipeline ------------------------------------------------------------------------------
def measured(weights, photons=1e4, beam="parallel"):
    x = torch.linspace(-1, 1, 24)
    inside = (x[:, None] ** 2 + 1.3 * x**2) < 0.8
    volume = torch.where(inside, 30.0, -1000.0)[..., None].repeat(1, 1, 4)
    scanner = Tomography(beam=beam, num_views=16, background=SCALE.air)
    affine = torch.diag(torch.tensor([8.0, 8.0, 8.0, 1.0]))
    steps = [
        SimulateProjectionsd("image", scanner, SCALE, photons),
        Measured("image", scanner),
        ScaleProjectionsd("image", SCALE),
        WeighRaysd("image", SCALE, weights),
    ]
    return Compose(steps)({"image": MetaTensor(volume[None], affine=affine)})["image"]


@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_counts_are_weighted_and_rays_through_much_count_less(beam):
    y, plain = measured("auto", beam=beam), measured("none", beam=beam)
    operator = operator_of(y)
    assert isinstance(operator, WeightedRays) and not isinstance(operator_of(plain), WeightedRays)
    torch.testing.assert_close(y.as_tensor()[0] / operator.rows, plain.as_tensor()[0], rtol=1e-5, atol=1e-4)
    p = (plain.as_tensor()[0] - operator.rays.forward(torch.full(operator.domain_shape, SCALE.air))) * SCALE.slope
    assert float(operator.rows[p > 2.5].mean()) < 0.7 * float(operator.rows[p.abs() < 0.2].mean())


@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_the_noise_is_known_from_the_counts(photons):
    """|y_B - B x| of the true x, which it is not told."""
    y = measured("auto", photons)
    operator, truth = operator_of(y), measured("none", None)
    noise = y.as_tensor()[0] - operator.weigh(truth.as_tensor()[0])
    assert operator.noise_norm(noise) == pytest.approx(float(noise.norm()), rel=0.1)
    assert operator.noise_deviation(noise) > operator.noise_norm(noise) / noise.numel() ** 0.5  # and the model's


def test_line_integrals_are_weighted_where_it_is_asked_for():
    assert not isinstance(operator_of(measured("auto", None)), WeightedRays)
    operator = operator_of(measured("transmission", None))
    assert isinstance(operator, WeightedRays) and operator.noise is None
    counted = operator_of(measured("auto", 1e6)).rows
    assert np.corrcoef(operator.rows.flatten(), counted.flatten())[0, 1] > 0.8


def test_parts_of_line_integrals_are_worked_on_with_the_weights_of_the_whole():
    """Slices of other attenuation and noise: what total variation and the data step weigh is that of all of them."""
    y = measured("transmission", None)
    noisy = y.as_tensor()[0] * torch.tensor([1.0, 0.6, 1.4, 0.2])
    noisy += torch.tensor([0.5, 2.0, 8.0, 30.0]) * normal(*noisy.shape)
    meta = {name: value for name, value in y.meta.items() if name != "operator"} | {"operator": operator_of(y).rays}
    y = WeighRaysd("image", SCALE, "transmission")({"image": MetaTensor(noisy[None], meta=meta)})["image"]
    operator, values = operator_of(y), y.as_tensor()[0]
    whole = weight_by_noise(values, operator), Proximal("auto").fit(values, operator).rho
    assert whole[0] == pytest.approx(PER_VARIANCE * (RayTransform.noise_norm(operator, values) / operator.norm) ** 2
                                     / values.numel())  # fmt: skip
    for begin, end in ((0, 1), (1, 3), (3, 4)):
        box = (slice(None), slice(None), slice(begin, end))
        part, there = operator.on(box), values[operator.range_box(box)]
        assert (weight_by_noise(there, part), Proximal("auto").fit(there, part).rho) == whole
        torch.testing.assert_close(part.rows, operator.rows[box], rtol=0, atol=0)
        start = operator.linear_reconstruction(values)
        solved = Proximal("auto", iterations=5)(start, values, operator, Step(0.5))[box]
        torch.testing.assert_close(Proximal("auto", iterations=5)(start[box], there, part, Step(0.5)), solved)


@repeatable
@given(seed=st.integers(0, 20), dim=st.floats(0.2, 0.9))
def test_the_norm_is_that_of_the_slice_that_passes_most(seed, dim):
    """As dense algebra says, and no less than is found in all slices at once; a part has it, too."""
    geometry = ScanGeometry("parallel", tuple(range(0, 180, 12)), 20, 2.0, 24, 1.5)
    rays = SparseRadon(geometry, Grid((12, 12, 24), (2.0, 2.0, 1.5)))
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(random.uniform(0.2, 1.0, rays.range_shape) * random.uniform(dim, 1.0, 24)).float()
    operator = WeightedRays(rays, rows)
    one = matrix_of(rays.on((slice(None), slice(None), slice(0, 1))))
    exact = max(float(torch.linalg.matrix_norm(rows[..., s].flatten()[:, None] * one, 2)) for s in range(24))
    assert exact * (1 - 2e-3) < operator.norm < exact * (1 + 1e-5)
    assert operator.norm > (1 - 1e-3) * LinearOperator._norm(operator)
    assert operator.on((slice(None), slice(None), slice(0, 2))).norm == operator.norm


def test_weighted_total_variation_takes_what_it_says():
    """Measurements far larger than the volume, so that their arrays are what is counted."""
    geometry = ScanGeometry("parallel", tuple(np.arange(0.0, 180.0, 3.0)), 64, 1.0, 32, 1.0)
    rays = SparseRadon(geometry, Grid((6, 6, 32), (10.0, 10.0, 1.0)))
    operator = WeightedRays(rays, torch.rand(rays.range_shape) + 0.1, deviation=1.0)
    y, x, step = torch.rand(rays.range_shape), torch.rand(rays.domain_shape), TotalVariationProximal(0.1, 0.1, 3)
    operator.norm, operator.variation, operator.forward(x)  # what is kept
    with torch.no_grad(), _Alive() as counted:
        step(x, y, operator, Step(0.5))
    assert counted.peak <= step.working_bytes(operator) <= 1.3 * counted.peak
    assert TotalVariation(0.1).working_bytes(operator) >= step.working_bytes(operator)


def test_total_variation_and_rho_follow_the_noise():
    few, many = measured("auto", 1e3), measured("auto", 1e6)
    weights = [weight_by_noise(y.as_tensor()[0], operator_of(y)) for y in (few, many)]
    shares = [operator_of(y).deviation / operator_of(y).norm for y in (few, many)]
    assert weights == pytest.approx([PER_VARIANCE * s**2 for s in shares]) and weights[0] > 3 * weights[1]
    y, operator = few.as_tensor()[0], operator_of(few)
    torch.testing.assert_close(
        TotalVariation("auto", 20)(y, operator), TotalVariation(weights[0], 20)(y, operator), rtol=0, atol=0
    )
    assert Proximal("auto", error=0.2).fit(y, operator).rho == pytest.approx((shares[0] / 0.2) ** 2)
    start, step = operator.linear_reconstruction(y), Step(0.5)
    auto = TotalVariationProximal("auto", "auto", 5, error=0.2)(start.clone(), y, operator, step)
    by_hand = TotalVariationProximal((shares[0] / 0.2) ** 2, weights[0], 5)(start.clone(), y, operator, step)
    torch.testing.assert_close(auto, by_hand, rtol=0, atol=0)


def test_where_the_noise_is_not_known_the_weights_are_the_usual_ones():
    y = measured("auto", None)
    assert weight_by_noise(y.as_tensor()[0], operator_of(y)) == UNKNOWN_NOISE
    assert Proximal("auto").fit(y.as_tensor()[0], operator_of(y)).rho == 0.01
    assert TotalVariationProximal("auto", "auto").fit(y.as_tensor()[0], operator_of(y)).rho == 0.03


def test_weights_lower_the_error_of_few_photons():
    """A body that few photons pass, by total variation with either weight tuned."""
    errors = {}
    for weights in ("none", "auto"):
        y, truth = measured(weights, 2e3), measured("none", None)
        truth = TotalVariation(1e-5, 200)(truth.as_tensor()[0], operator_of(truth))
        tried = [TotalVariation(w, 150)(y.as_tensor()[0], operator_of(y)) - truth for w in (3e-4, 1e-3, 3e-3, 1e-2)]
        errors[weights] = min(float(t.square().mean().sqrt()) for t in tried)
    assert errors["auto"] < 0.9 * errors["none"], errors
