"""Beam hardening of water: simulated with NIST's coefficients, undone by the polynomial; other spectra by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from interslice.physics.ct import CorrectHardeningd, Grid, HounsfieldScale, ScanGeometry, SparseRadon
from interslice.physics.ct.beam_hardening import (
    ALUMINIUM,
    ENERGIES,
    WATER,
    attenuation,
    hardened,
    spectrum,
    water_polynomial,
)
from interslice.physics.ct.counting import RayNoise
from tests.physics.ct.test_helix2fan import NU, TURN, write_stack
from tests.support.helpers import repeatable
from tests.support.scans import ROOT

SCALE = HounsfieldScale()


def test_attenuation_is_that_of_the_table_and_falls_between():
    energies = np.array(ENERGIES)
    np.testing.assert_allclose(attenuation(WATER, 1.0, energies), np.array(WATER) / 10)
    np.testing.assert_allclose(attenuation(ALUMINIUM, 2.699, energies), np.array(ALUMINIUM) * 0.2699)
    assert (np.diff(attenuation(WATER, 1.0, np.arange(10.0, 150.0))) < 0).all()
    assert attenuation(WATER, 1.0, np.array([70.0]))[0] == pytest.approx(SCALE.water, rel=0.02)


def test_a_spectrum_is_soft_behind_little_aluminium_and_ends_at_the_voltage():
    means = []
    for aluminium in (1.0, 6.0, 20.0):
        energies, shares = spectrum(120.0, aluminium)
        assert shares.sum() == pytest.approx(1.0) and energies.max() < 120
        means.append((energies * shares).sum())
    assert means == sorted(means) and 55 < means[1] < 75


@repeatable
@given(kilovolts=st.floats(60.0, 150.0), first=st.floats(1.0, 250.0), more=st.floats(1.0, 250.0))
def test_rays_harden(kilovolts, first, more):
    """Twice the water attenuates by less than twice: q is concave, and its slope stays that of a mean attenuation."""
    q = hardened(np.array([first, first + more]), kilovolts)
    assert q[0] / first > q[1] / (first + more) > attenuation(WATER, 1.0, np.array([150.0]))[0]


@repeatable
@given(kilovolts=st.floats(60.0, 150.0), length=st.floats(1.0, 500.0))
def test_the_polynomial_undoes_water_to_three_thousandths(kilovolts, length):
    correct = CorrectHardeningd("image", kilovolts, SCALE)
    p = correct.corrected(hardened(np.array([length]), kilovolts))
    assert float(p[0]) == pytest.approx(SCALE.water * length, rel=3e-3)


@repeatable
@given(q=st.floats(-0.5, 9.0), coefficients=st.lists(st.floats(-0.05, 0.05), max_size=3))
def test_the_slope_is_that_of_the_polynomial(q, coefficients):
    correct = CorrectHardeningd("image", [0.9, *coefficients], SCALE)
    step = 1e-6
    ends = correct.corrected(np.array([q - step, q + step]))
    assert float(correct.slope(np.array([q]))[0]) == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-4)


def test_cupping_of_a_disc_of_water_falls_by_nine_tenths():
    grid = Grid((64, 64, 1), (5.0,) * 3)
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    radius = torch.hypot(x, y)
    rays = SparseRadon(ScanGeometry("parallel", tuple(float(i) for i in range(180)), 68, 5.0, 1, 5.0), grid)
    lengths = rays.forward((radius < 130).float()[..., None])
    q = torch.from_numpy(hardened(lengths.double().numpy(), 120.0)).float()
    mended = CorrectHardeningd("image", 120.0, SCALE)({"image": MetaTensor(q[None])})["image"].as_tensor()[0]
    profiles = {}
    for name, p in {"none": SCALE.water * lengths, "left": q, "mended": mended}.items():
        hu = 1000 * (rays.linear_reconstruction(p)[..., 0] / SCALE.water - 1)
        profiles[name] = [float(hu[(radius >= r) & (radius < r + 20)].mean()) for r in (0, 90)]
    cupping = {name: (edge - middle) for name, (middle, edge) in profiles.items()}
    left, mended = (cupping[name] - cupping["none"] for name in ("left", "mended"))
    assert left > 20 and abs(mended) < 0.1 * left
    assert abs(profiles["mended"][0] - profiles["none"][0]) < 3  # and water is 0 HU


def test_coefficients_are_taken_as_they_are_and_noise_follows():
    q = torch.linspace(-0.1, 3.0, 24).view(1, 4, 3, 2)
    noise = RayNoise(np.full((4, 3, 2), 0.01, np.float32))
    image = MetaTensor(q.clone(), meta={"noise": noise, "case": "scan"})
    found = CorrectHardeningd("image", [0.9, 0.02], SCALE)({"image": image})["image"]
    above = q.clamp_min(0)
    torch.testing.assert_close(found.as_tensor(), 0.9 * q + 0.02 * above**2)
    expected = 0.01 * (0.9 + 0.04 * above[0].numpy()) ** 2
    np.testing.assert_allclose(found.meta["noise"].variance, expected, rtol=1e-5)
    assert found.meta["case"] == "scan"


def test_without_it_nothing_changes():
    image = MetaTensor(torch.rand(1, 2, 3, 1))
    assert CorrectHardeningd("image", None, SCALE)({"image": image})["image"] is image


@pytest.mark.parametrize("hardening", ["x", 20.0, 400.0, [0.0, 1.0], [-1.0], ["a"], [float("nan")], True])
def test_what_is_no_correction_is_refused(hardening):
    with pytest.raises(ValueError, match="beam_hardening must"):
        CorrectHardeningd("image", hardening, SCALE)


def test_a_polynomial_that_falls_within_the_scan_is_refused():
    image = MetaTensor(torch.full((1, 2, 3, 1), 6.0), meta={"filename_or_obj": "scan.npz"})
    with pytest.raises(ValueError, match="scan.npz: the polynomial of beam_hardening falls within"):
        CorrectHardeningd("image", [1.0, -0.1], SCALE)({"image": image})


def test_the_polynomial_depends_on_the_water_that_hu_refer_to():
    one, two = (water_polynomial(120.0, water) for water in (0.0192, 0.0384))
    np.testing.assert_allclose(np.array(two), 2 * np.array(one), rtol=1e-6)


@pytest.mark.parametrize("kilovolts", [None, 120.0])
def test_it_begins_from_what_was_measured_also_where_a_file_states_its_own_water(kilovolts, tmp_path, monkeypatch):
    """By the steps of the config: a spectrum's line integrals in a file that states another water than that of HU."""
    monkeypatch.chdir(ROOT)
    lengths = np.random.default_rng(0).uniform(1.0, 400.0, (TURN, NU, 5))
    q = 0.025 * lengths if kilovolts is None else hardened(lengths, kilovolts)
    path = tmp_path / "a_flat_fan_projections.tif"
    write_stack(path, lambda about: about.update(hu_factor=0.025), q.astype(np.float32))
    parser = ConfigParser()
    parser.read_config(["configs/inference.json", "configs/task_svct.json"])
    parser.update({"beam_hardening": kilovolts})
    data = {"image": str(path)}
    for step in (0, 1):
        data = parser.get_parsed_content(f"read#{step}")(data)
    found = data["image"].as_tensor()[0].numpy()
    np.testing.assert_allclose(found[..., ::-1], SCALE.water * lengths, rtol=3e-3)
