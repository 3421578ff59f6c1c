"""Hounsfield units, attenuation and the prior's range; projections scaled between them; photon counts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose

from interslice.files.restore import Restored
from interslice.noise.field import IndependentNoise
from interslice.physics import Measured, operator_of
from interslice.physics.baselines import LeastSquares, LinearReconstruction, TotalVariation
from interslice.physics.ct import Grid, Tomography
from interslice.physics.ct.attenuation import LOWEST_COUNT, HounsfieldScale, line_integrals_of
from interslice.physics.ct.counting import rays_of
from interslice.physics.ct.scale import ScaleProjectionsd
from interslice.physics.ct.simulate import SimulateProjectionsd, count_photons, with_scan
from interslice.prior.slices import SlicePrior
from interslice.sampling.data_consistency import ConjugateGradient
from interslice.sampling.inferers import DiffusionInverseInferer
from tests.support.helpers import BlurringDenoiser, alpha_bars, repeatable

WATER = 0.0192
"""Attenuation of water in 1/mm at 70 keV (NIST: 0.193 cm2/g, times about 1 g/cm3)."""
BEAMS = {
    "parallel": {"num_views": 9},
    "fan": {"num_views": 9, "source_to_isocenter": 200.0, "source_to_detector": 350.0},
    "cone": {"num_views": 9, "source_to_isocenter": 200.0, "source_to_detector": 350.0},
}

scales = st.builds(
    lambda low, width, water: HounsfieldScale(low, low + width, water),
    st.floats(-1200, 0),
    st.floats(100, 4000),
    st.floats(0.01, 0.05),
)
hounsfield_units = st.floats(-1024, 3071)


def body(shape=(20, 18, 6), seed=0):
    """HU: tissue with texture, a lung and a bone in air, none of them centred."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    volume = np.full(shape, -1000.0)
    inside = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    volume[inside] = 40 + 20 * np.sin(5 * x + 3 * z + 1)[inside]
    volume[(x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.06] = -750
    volume[(x + 0.4) ** 2 + (y - 0.1) ** 2 + 0.05 * z < 0.04] = 700
    return volume + np.random.default_rng(seed).normal(0, 5, shape)


def ct_volume(shape=(20, 18, 6), seed=0, spacing=3.0):
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = (11.0, -7.0, 130.0)
    values = torch.from_numpy(body(shape, seed)).float()[None]
    return MetaTensor(values, affine=affine, meta={"filename_or_obj": "body.nii.gz"})


def scanner(beam="parallel", **others):
    return Tomography(beam=beam, background=HounsfieldScale().air, **BEAMS[beam] | others)


def simulated(operator, photons=None, seed=0, volume=None, **others):
    """What the configs do to a volume: simulate, then scale."""
    scale = HounsfieldScale()
    steps = [
        SimulateProjectionsd("image", operator, scale, photons=photons, seed=seed, **others),
        Measured("image", operator),
        ScaleProjectionsd("image", scale),
    ]
    return Compose(steps)({"image": ct_volume() if volume is None else volume})


# -- units ----------------------------------------------------------------------------------------
def test_water_and_air():
    scale = HounsfieldScale()
    assert scale.attenuation(0.0) == pytest.approx(WATER)
    assert scale.attenuation(-1000.0) == 0.0
    assert scale.attenuation(1000.0) == pytest.approx(2 * WATER)
    assert scale.attenuation(-1024.0) < 0  # noise in air is on both sides of nothing


def test_the_window_becomes_the_prior_s_range_and_values_outside_are_kept():
    scale = HounsfieldScale(low=-500.0, high=300.0)
    assert [scale.from_hu(v) for v in (-500.0, 300.0, -100.0)] == pytest.approx([-1, 1, 0])
    assert scale.from_hu(1100.0) == pytest.approx(3)  # not clipped
    assert scale.air == pytest.approx(-2.25)


@repeatable
@given(scale=scales, hu=hounsfield_units)
def test_hounsfield_units_come_back_from_the_prior_s_range(scale, hu):
    assert scale.to_hu(scale.from_hu(hu)) == pytest.approx(hu, abs=1e-6)
    tensor = torch.tensor([hu], dtype=torch.float64)
    assert float(scale.to_hu(scale.from_hu(tensor))) == pytest.approx(hu, abs=1e-6)


@repeatable
@given(scale=scales, hu=hounsfield_units)
def test_attenuation_is_linear_in_the_prior_s_value(scale, hu):
    """mu = slope (x - air)."""
    x = scale.from_hu(hu)
    assert scale.slope * (x - scale.air) == pytest.approx(scale.attenuation(hu), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 100.0, "high": 100.0}, "the HU window must rise, got 100 to 100"),
        ({"low": 1000.0, "high": -1000.0}, "the HU window must rise"),
        ({"low": math.nan}, "low must be a number of HU, got nan"),
        ({"water": 0.0}, "water must be an attenuation in 1/mm above 0, got 0.0"),
        ({"water": None}, "water must be an attenuation in 1/mm above 0, got None"),
        ({"water": math.nan}, "water must be an attenuation in 1/mm above 0, got nan"),
    ],
)
def test_scales_that_are_none_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        HounsfieldScale(**values)


# -- projections of the prior's values ------------------------------------------------------------
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("scale", [HounsfieldScale(), HounsfieldScale(-1200.0, 600.0, 0.021)], ids=["usual", "other"])
def test_scaled_projections_are_those_of_the_prior_s_values(beam, scale):
    """A x = p / slope + air A 1, whatever the window, inside the volume's box."""
    operator = scanner(beam)
    operator.background = scale.air
    volume = ct_volume()
    data = Measured("image", operator)(SimulateProjectionsd("image", operator, scale)({"image": volume}))
    scaled = ScaleProjectionsd("image", scale)(data)
    built = operator.for_volume(volume)
    expected = built.forward(scale.from_hu(volume.as_tensor()))
    torch.testing.assert_close(
        scaled["image"].as_tensor(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )
    assert expected.std() > 1
    torch.testing.assert_close(scaled["label"].as_tensor(), scale.from_hu(volume.as_tensor()))
    assert operator_of(scaled["image"]) is operator_of(data["image"])


def test_a_result_in_the_prior_s_range_becomes_hounsfield_units_again():
    scale, operator = HounsfieldScale(), scanner()
    step = ScaleProjectionsd("image", scale)
    measure = Compose([SimulateProjectionsd("image", operator, scale), Measured("image", operator), step])
    data = measure({"image": ct_volume()})
    assert len(data["image"].applied_operations) == 1
    truth = data["label"].as_tensor()
    pred = MetaTensor(truth.clone(), applied_operations=data["image"].applied_operations)
    back = step.inverse({"image": pred})["image"]
    torch.testing.assert_close(back.as_tensor(), ct_volume().as_tensor(), atol=1e-3, rtol=0)
    assert back.applied_operations == []


def test_only_what_was_scaled_is_scaled_back():
    """A volume without the step in its history is refused; silence would shift every HU."""
    step = ScaleProjectionsd("image", HounsfieldScale())
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        step.inverse({"image": MetaTensor(torch.zeros(1, 2, 2, 2))})


def test_restored_undoes_the_scale_through_the_preprocessing():
    """The way of the configs: the inverse of the whole preprocessing, on the key of the result."""
    scale, operator = HounsfieldScale(), scanner()
    parts = (
        SimulateProjectionsd("image", operator, scale),
        Measured("image", operator),
        ScaleProjectionsd("image", scale),
    )
    steps = Compose(parts)
    data = steps({"image": ct_volume()})
    label = MetaTensor(data["label"].as_tensor(), applied_operations=list(data["image"].applied_operations))
    restored = Restored("pred", steps)({"pred": label, "image": data["image"]})["pred"]
    torch.testing.assert_close(restored.as_tensor(), ct_volume().as_tensor(), atol=1e-3, rtol=0)


def test_without_a_truth_none_appears():
    operator = scanner()
    data = SimulateProjectionsd("image", operator, HounsfieldScale())({"image": ct_volume()})
    data = Measured("image", operator)(data)
    data.pop("label")
    assert ScaleProjectionsd("image", HounsfieldScale())(data).keys() == {"image"}


def test_the_measurement_that_was_given_is_left_as_it_is():
    operator = scanner()
    data = SimulateProjectionsd("image", operator, HounsfieldScale())({"image": ct_volume()})
    data = Measured("image", operator)(data)
    before = {k: v.as_tensor().clone() for k, v in data.items()}
    ScaleProjectionsd("image", HounsfieldScale())(data)
    assert all(torch.equal(data[k].as_tensor(), v) for k, v in before.items())
    assert not data["image"].applied_operations


@pytest.mark.parametrize("background", [0.0, -1.001])
def test_a_background_that_is_not_air_is_refused(background):
    scanner = Tomography(background=background)
    data = SimulateProjectionsd("image", scanner, HounsfieldScale())({"image": ct_volume()})
    with pytest.raises(ValueError, match=f"background is {background:g}, but air is -1 in this scale: set background"):
        ScaleProjectionsd("image", HounsfieldScale())(Measured("image", scanner)(data))


# -- photons --------------------------------------------------------------------------------------
REPEATS = 20_000


def counts_of(line_integral, photons, electronic_noise=0.0, seed=0, repeats=REPEATS):
    """The counts of one ray, measured again and again."""
    return count_photons(torch.full((repeats,), line_integral), photons, electronic_noise, seed).numpy()


@pytest.mark.parametrize(("line_integral", "photons"), [(0.0, 200.0), (2.0, 1000.0), (4.0, 1e5)])
@pytest.mark.parametrize("electronic_noise", [0.0, 8.0])
def test_counts_have_the_mean_and_variance_of_poisson_and_read_out(line_integral, photons, electronic_noise):
    """E N = I0 exp(-p), Var N = I0 exp(-p) + sigma^2; five standard errors of each."""
    counts = counts_of(line_integral, photons, electronic_noise)
    mean = photons * math.exp(-line_integral)
    variance = mean + electronic_noise**2
    assert counts.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / REPEATS))
    fourth = mean + 3 * variance**2  # of a Poisson count and, with a small excess, of its sum with a normal one
    assert counts.var() == pytest.approx(variance, abs=5 * math.sqrt((fourth - variance**2) / REPEATS))


def test_line_integrals_of_many_photons_have_the_variance_of_theory():
    """Var p is about exp(p) / I0."""
    counts = count_photons(torch.full((REPEATS, 1, 2), 3.0), 1e5, 0.0, 1)
    p = torch.from_numpy(rays_of(counts.numpy(), 1e5)[0])
    assert float(p.mean()) == pytest.approx(3.0, abs=5e-3)
    assert float(p.var()) == pytest.approx(math.exp(3) / 1e5, rel=0.06)


def test_rays_are_independent_of_their_neighbours():
    counts = counts_of(1.0, 1000.0)
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 5 / math.sqrt(REPEATS)


def test_the_same_seed_gives_the_same_noise_and_another_another():
    p = torch.linspace(0, 4, 60).view(3, 5, 4)
    first, again, other = (count_photons(p, 1e4, 2.0, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.float64 and first.shape == p.shape


def test_no_photon_is_half_a_count_and_nothing_is_infinite():
    nothing = count_photons(torch.full((4, 5, 1), 50.0), 1e5, 0.0, 0)
    p, _ = rays_of(nothing.numpy(), 1e5)
    np.testing.assert_allclose(p, math.log(1e5 / LOWEST_COUNT), rtol=1e-6)
    noisy = count_photons(torch.full((100, 50, 1), 50.0), 1e5, 10.0, 0)  # half of the read-outs are negative
    p, noise = rays_of(noisy.numpy(), 1e5, 10.0)
    assert float(noisy.min()) < -20 and np.isfinite(p).all() and np.isfinite(noise.variance).all()
    assert np.median(noise.variance) > 20 and noise.variance.min() > 0.5  # and nothing is known of such rays


def test_line_integrals_of_counts_by_hand():
    counts = torch.tensor([1000.0, 500.0, 0.5, 0.0, -3.0], dtype=torch.float64)
    expected = [0.0, math.log(2), math.log(2000), math.log(2000), math.log(2000)]
    assert line_integrals_of(counts, 1000.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("photons", "electronic_noise"), [(0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1e4, -1.0), (1e4, math.nan)]
)
def test_photons_and_read_out_noise_must_make_sense(photons, electronic_noise):
    with pytest.raises(ValueError, match="photons must be positive and electronic_noise not negative, got"):
        count_photons(torch.ones(2), photons, electronic_noise, 0)


# -- simulation -----------------------------------------------------------------------------------
@pytest.mark.parametrize("beam", BEAMS)
def test_the_simulation_measures_attenuation_and_keeps_the_truth(beam):
    operator, volume = scanner(beam), ct_volume()
    before = volume.as_tensor().clone()
    data = SimulateProjectionsd("image", operator, HounsfieldScale())({"image": volume, "other": 7})
    built = operator.for_volume(volume)
    mu = WATER * (1 + volume.as_tensor() / 1000)
    torch.testing.assert_close(data["image"].as_tensor(), built.forward(mu))
    assert torch.equal(data["label"].as_tensor(), before)
    torch.testing.assert_close(data["label"].affine, volume.affine)
    assert data["other"] == 7
    meta = data["image"].meta
    assert meta["geometry"] == built.geometry and meta["filename_or_obj"] == "body.nii.gz"
    assert operator.for_measurement(data["image"]).grid == built.grid


def test_a_slab_of_water_attenuates_as_beer_and_lambert_say():
    """20 voxels of 3 mm of water: I / I0 = exp(-0.0192 * 60)."""
    volume = MetaTensor(torch.zeros(1, 20, 20, 2), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    operator = scanner(num_views=2)  # 0 and 90 degrees
    data = SimulateProjectionsd("image", operator, HounsfieldScale())({"image": volume})
    assert float(data["image"].max()) == pytest.approx(WATER * 60, rel=1e-5)


def test_the_metadata_of_a_measurement_hold_nothing_of_the_volume():
    """Its name, the scan and the grid: neither the affine nor anything that the file's header said."""
    volume = ct_volume()
    volume.meta |= {"secret": "truth", "original_affine": np.eye(4)}
    volume.push_applied_operation({"class": "Orientationd"})
    measured = SimulateProjectionsd("image", scanner(), HounsfieldScale())({"image": volume})["image"]
    grid = Grid(tuple(volume.shape[1:]), tuple(volume.pixdim.tolist()))
    assert measured.meta["grid"] == grid
    assert "secret" not in measured.meta and "original_affine" not in measured.meta
    assert measured.applied_operations == volume.applied_operations  # or the result could not be turned back


def test_read_out_noise_without_photons_is_refused():
    with pytest.raises(ValueError, match="electronic_noise is 3.0 counts, but photons is not set: give both"):
        SimulateProjectionsd("image", scanner(), HounsfieldScale(), electronic_noise=3.0)


def test_the_noise_of_a_simulation_follows_photons_and_seed():
    operator = scanner()
    plain, few, many, again = (
        simulated(operator, photons, seed)["image"].as_tensor()
        for photons, seed in ((None, 0), (1e3, 0), (1e6, 0), (1e3, 0))
    )
    errors = [float((noisy - plain).square().mean().sqrt()) for noisy in (few, many)]
    assert errors[0] > 20 * errors[1] > 0  # sqrt(1000) is 32
    assert torch.equal(few, again)


def warm_start(y):
    """One diffusion reconstruction that begins from total variation, as the CT tasks do."""
    ab = alpha_bars()
    inferer = DiffusionInverseInferer(
        SlicePrior(ab, 8, multiple=1), ConjugateGradient(0.01, 3), IndependentNoise(), num_steps=2,
        start_fraction=0.05, num_draws=1, start=TotalVariation(3e-4, iterations=20), progress=False,
    )  # fmt: skip
    return inferer.reconstruct(y, BlurringDenoiser(ab)).as_tensor()[0]


RECONSTRUCTIONS = {
    "filtered back-projection": lambda y: LinearReconstruction()(y.as_tensor()[0], operator_of(y)),
    "least squares": lambda y: LeastSquares(5)(y.as_tensor()[0], operator_of(y)),
    "total variation": lambda y: TotalVariation(3e-4, 30)(y.as_tensor()[0], operator_of(y)),
    "warm start": warm_start,
}


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_the_simulated_measurement_is_all_that_a_reconstruction_sees(beam, name):
    """It changes when only the noise does, and not when the volume behind the measurement does."""
    reconstruct, operator = RECONSTRUCTIONS[name], scanner(beam)
    first, other_noise, again = (simulated(operator, 2e3, seed) for seed in (0, 1, 0))
    assert torch.equal(first["label"].as_tensor(), other_noise["label"].as_tensor())
    x = reconstruct(first["image"])
    again["label"].fill_(7.0)  # nothing looks at the truth
    assert torch.equal(reconstruct(again["image"]), x)
    change = float((reconstruct(other_noise["image"]) - x).square().mean().sqrt())
    assert change > 0.01  # 10 HU
    # Another body, but the projections of the first: the result is the first one's.
    swapped = simulated(operator, 2e3, 0, volume=ct_volume(seed=1) + 300)
    swapped["image"].copy_(first["image"].as_tensor())
    assert torch.equal(reconstruct(swapped["image"]), x)


def test_one_baseline_object_follows_the_measurement_that_it_is_given():
    """A comparison asks the same object again and again: for other noise it must not answer from memory."""
    operator, baseline = scanner(), TotalVariation(3e-4, 30)
    ys = [simulated(operator, 2e3, seed)["image"] for seed in (0, 1)]
    built = operator_of(ys[0])
    results = [baseline(y.as_tensor()[0], built) for y in (ys[0], ys[1], ys[0])]
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])
    results[2].zero_()  # and what it gave away is not what it keeps
    assert torch.equal(baseline(ys[0].as_tensor()[0], built), results[0])
    changed = ys[0].as_tensor()[0]
    changed += 1.0  # the same tensor, other values
    assert not torch.equal(baseline(changed, built), results[0])


def test_projections_carry_their_scan():
    operator = scanner().for_volume(ct_volume())
    y = with_scan(torch.zeros(1, *operator.range_shape), operator.geometry, operator.grid, ct_volume())
    assert (y.meta["geometry"], y.meta["grid"]) == (operator.geometry, operator.grid)
    assert y.meta["filename_or_obj"] == "body.nii.gz"
