"""What is wrong with projections is found before long work, with the right value; right ones pass without a word."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.files.doubts import doubts_of
from interslice.physics.ct import CheckProjectionsd, Grid, HounsfieldScale, ScanGeometry, Tomography
from interslice.physics.ct.attenuation import line_integrals_of
from interslice.physics.ct.plausible import check_angles, check_attenuation, missing_offset
from interslice.physics.ct.read import read_projections
from interslice.physics.ct.simulate import count_photons
from tests.support.helpers import repeatable
from tests.support.scans import ROOT

few = settings(repeatable, max_examples=10)  # each makes a system matrix
SIZE, WATER = 3.0, HounsfieldScale().water
CHECK = CheckProjectionsd("image", HounsfieldScale())


def body(x=0.0, y=0.0, size=1.0, slices=2):
    """(1, 64, 64, slices) in 1/mm: water, 150 x 120 mm, with a lung and a bone, none of them in the middle."""
    grid = Grid((64, 64, slices), (SIZE,) * 3)
    u, v = torch.meshgrid(*(grid.coordinates(a) for a in (0, 1)), indexing="ij")
    u, v = (u - x) / size, (v - y) / size
    mu = ((u / 75) ** 2 + (v / 60) ** 2 < 1).float()
    mu[((u - 30) / 18) ** 2 + ((v - 15) / 25) ** 2 < 1] = 0.2
    mu[(u + 35) ** 2 + (v + 20) ** 2 < 64] = 1.9
    affine = torch.diag(torch.tensor([SIZE, SIZE, SIZE, 1.0], dtype=torch.float64))
    return MetaTensor((WATER * mu)[None, ..., None].repeat(1, 1, 1, slices), affine=affine)


def measured(volume=None, photons=None, **scan):
    """Projections of `body` with their geometry; without another number, 48 views."""
    volume = body() if volume is None else volume
    operator = Tomography(background=0.0, **{"num_views": 48} | scan).for_volume(volume)
    p = operator.forward(volume.as_tensor()[0])
    if photons is not None:
        p = line_integrals_of(count_photons(p, photons, 0.0, seed=3), photons).float()
    return MetaTensor(p[None], meta={"geometry": operator.geometry, "filename_or_obj": "scan.npz"})


def with_geometry(projections, **changes):
    geometry = replace(projections.meta["geometry"], **changes)
    return MetaTensor(projections.as_tensor(), meta=projections.meta | {"geometry": geometry})


def said(projections):
    """What the check says; it is carried by what it returns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked = CHECK({"image": projections})["image"]
    assert [str(w.message) for w in caught] == [f"scan.npz: {s}" for s in doubts_of(checked)]
    return " ".join(doubts_of(checked))


def refusal(projections):
    with pytest.raises(ValueError) as caught:
        CHECK({"image": projections})
    assert str(caught.value).startswith("scan.npz: ")
    return str(caught.value)


# -- nothing is wrong -----------------------------------------------------------------------------
VIEWS = [{}, {"num_views": 12}, {"arc": 100.0}, {"arc": 20.0, "num_views": 21}, {"arc": 360.0}, {"start_angle": -77.0}]


@pytest.mark.parametrize("views", VIEWS, ids=str)
@pytest.mark.parametrize("beam", ["parallel", "fan"])
@pytest.mark.parametrize("photons", [None, 1e5, 1e3])
@pytest.mark.filterwarnings("ignore:the detector does not cover")
def test_right_scans_pass_without_a_word(beam, views, photons):
    for detector in ({}, {"column_offset": 6.0}, {"num_columns": 40}):  # the last cuts the body off
        right = measured(photons=photons, beam=beam, **views, **detector)
        assert said(right) == ""
        assert torch.equal(CHECK({"image": right})["image"].as_tensor(), right.as_tensor())


@pytest.mark.parametrize("views", VIEWS[:3], ids=str)
def test_right_cone_beams_pass_without_a_word(views):
    assert said(measured(body(slices=8), beam="cone", photons=1e5, **views)) == ""


def test_the_embedded_sample_passes_without_a_word():
    assert not doubts_of(
        CHECK({"image": read_projections(ROOT / "sample_data/ct/measured/lidc_idri_0001_30views.npz")})["image"]
    )


@given(x=st.floats(-15, 15), y=st.floats(-20, 20), size=st.floats(0.4, 1.0), views=st.sampled_from([8, 20, 60]))
@few
def test_a_body_anywhere_in_the_field_passes(x, y, size, views):
    assert said(measured(body(x, y, size), num_views=views, photons=1e5)) == ""


@pytest.mark.parametrize("radius", [60.0, 80.0, 200.0])
def test_a_cylinder_wider_than_the_detector_is_no_wrong_air(radius):
    """Its outermost rays are the same in all views, as those through air are."""
    geometry = ScanGeometry("parallel", tuple(np.arange(0, 180, 4.0)), 40, 2.5, 2, 2.5)
    chords = 2 * WATER * np.sqrt(radius**2 - geometry.columns[0].numpy() ** 2)
    p = np.broadcast_to(chords[None, :, None], geometry.range_shape).astype(np.float32)
    assert said(MetaTensor(torch.tensor(p)[None], meta={"geometry": geometry, "filename_or_obj": "scan.npz"})) == ""


# -- angles ---------------------------------------------------------------------------------------
@given(views=st.integers(8, 400), arc=st.sampled_from([180.0, 360.0]), start=st.floats(-180, 180), last=st.booleans())
@repeatable
def test_radians_are_refused_with_the_degrees_that_they_mean(views, arc, start, last):
    """With the last view one step before the end of the arc, or at its end."""
    degrees = start + arc * np.arange(views) / (views - last)
    assert check_angles(ScanGeometry("parallel", tuple(degrees), 4, 1.0, 1, 1.0)) == []
    arc *= views / (views - last)
    with pytest.raises(ValueError, match="look like radians") as refused:
        check_angles(ScanGeometry("parallel", tuple(np.radians(degrees)), 4, 1.0, 1, 1.0))
    assert float(re.search(r"([\d.]+) degrees are meant", str(refused.value))[1]) == pytest.approx(arc, rel=1e-3)


@pytest.mark.parametrize("beam", [("parallel",), ("fan", 500.0, 900.0)], ids=lambda b: b[0])
@pytest.mark.parametrize(
    ("views", "arc"), [(10, 5.0), (15, 4.0), (40, 6.0), (25, np.radians(100)), (25, np.radians(200))]
)
def test_short_arcs_are_doubted_and_not_refused(views, arc, beam):
    """Tomosynthesis turns by a few degrees; few scans in radians by other angles than pi or 2 pi."""
    angles = tuple(np.linspace(0, arc, views))
    (sentence,) = check_angles(ScanGeometry(beam[0], angles, 4, 1.0, 1, 1.0, *beam[1:]))
    meant = float(re.search(r"in radians \(([\d.]+) degrees", sentence)[1])
    assert meant == pytest.approx(np.degrees(arc) * views / (views - 1), rel=1e-3)
    assert check_angles(ScanGeometry(beam[0], angles[:7], 4, 1.0, 1, 1.0, *beam[1:])) == []


def test_angles_in_another_order_are_doubted():
    right = measured(body(18, -15))
    angles = np.random.default_rng(0).permutation(right.meta["geometry"].angles)
    assert "centre of mass strays" in said(with_geometry(right, angles=tuple(angles)))


# -- air ------------------------------------------------------------------------------------------
@given(factor=st.floats(0.2, 5.0), photons=st.sampled_from([None, 1e4]))
@repeatable
def test_wrong_air_counts_are_refused_with_the_right_ones(factor, photons):
    right = measured(photons=photons)
    wrong = MetaTensor(right.as_tensor() + np.log(factor), meta=right.meta | {"air_counts": 3e4 * factor})
    drift = abs(np.log(factor))
    if drift > 0.21:
        message = refusal(wrong)
        assert "the counts through air are wrong" in message
        assert float(re.search(r"the counts say ([\d.e+]+)", message)[1]) == pytest.approx(3e4, rel=0.01)
    elif drift > 0.06:
        assert "air_counts is" in said(wrong)
    elif drift < 0.04:
        assert said(wrong) == ""


def test_line_integrals_that_do_not_come_to_0_are_refused():
    right = measured()
    assert "subtract it" in refusal(MetaTensor(right.as_tensor() + 0.7, meta=right.meta))


@given(size=st.floats(0.5, 1.0), x=st.floats(-15, 15), air=st.floats(0.3, 1.5), noise=st.sampled_from([0.0, 0.002]))
@few
def test_transmission_is_refused_with_what_to_do(size, x, air, noise):
    right = measured(body(x, 5.0, size))
    shares = air * torch.exp(-right.as_tensor()) + noise * torch.randn(right.shape, generator=torch.manual_seed(0))
    message = refusal(MetaTensor(shares, meta=right.meta))
    assert "they look like transmission I / I0; take -log of it, or state air_counts" in message
    assert float(re.search(r"air_counts ([\d.]+)", message)[1]) == pytest.approx(air, rel=0.01)


def test_the_wrong_sign_is_refused_and_line_integrals_as_counts_too():
    right = measured()
    assert "is their sign wrong?" in refusal(MetaTensor(-right.as_tensor(), meta=right.meta))
    as_counts = -torch.log(right.as_tensor().clamp_min(0.5) / 1e4)
    assert "leave out air_counts" in refusal(MetaTensor(as_counts, meta=right.meta | {"air_counts": 1e4}))


# -- the detector ---------------------------------------------------------------------------------
@given(
    off=st.floats(-12, 12),
    stated=st.floats(-4, 4),
    arc=st.sampled_from([180.0, 360.0]),
    photons=st.sampled_from([None, 1e4]),
)
@few
def test_an_unstated_offset_is_found(off, stated, arc, photons):
    """By the stated one and what is missing; below a column it is said, below half a one nothing is."""
    wrong = with_geometry(measured(column_offset=stated + off, arc=arc, photons=photons), column_offset=stated)
    missing, error, _ = missing_offset(wrong.as_tensor()[0].numpy(), wrong.meta["geometry"])
    assert missing == pytest.approx(off, abs=max(0.02, 5 * error)) and error < 0.1
    if abs(off) > 1.1 * SIZE:
        message = refusal(wrong)
        assert float(re.search(r"column_offset to (-?[\d.e+-]+) mm", message)[1]) == pytest.approx(
            stated + off, abs=0.1
        )
    elif abs(off) > 0.6 * SIZE:
        assert "fit together best with column_offset" in said(wrong)
    elif abs(off) < 0.4 * SIZE:
        assert said(wrong) == ""


@pytest.mark.parametrize("scan", [{"beam": "fan"}, {"arc": 100.0}, {"num_views": 6}, {"num_columns": 40}], ids=str)
@pytest.mark.filterwarnings("ignore:the detector does not cover")
def test_no_offset_is_claimed_where_none_can_be_known(scan):
    projections = measured(**scan)
    assert missing_offset(projections.as_tensor()[0].numpy(), projections.meta["geometry"]) is None


# -- lengths and values ---------------------------------------------------------------------------
@pytest.mark.parametrize("beam", ["parallel", "fan"])
@pytest.mark.parametrize(("unit", "factor"), [("cm", 0.1), ("m", 0.001)])
def test_lengths_in_another_unit_are_refused(beam, unit, factor):
    right = measured(beam=beam)
    geometry = right.meta["geometry"]
    lengths = ["column_size", "row_size", *(["source_to_isocenter", "source_to_detector"] if beam == "fan" else [])]
    wrong = with_geometry(right, **{name: factor * getattr(geometry, name) for name in lengths})
    assert f"are lengths in {unit}?" in refusal(wrong)
    assert check_attenuation(wrong.as_tensor()[0].numpy(), wrong.meta["geometry"], WATER / factor) == []


def test_lengths_far_too_long_are_doubted():
    right = measured()
    assert "are lengths in mm" in said(with_geometry(right, column_size=100.0, row_size=100.0))


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_decadic_logarithms_are_doubted(beam):
    right = measured(beam=beam)
    assert "as if logarithms were decadic" in said(MetaTensor(right.as_tensor() / np.log(10), meta=right.meta))


@pytest.mark.parametrize(("radius", "attenuation"), [(7.0, 15.0), (10.0, 8.0)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (30.0, -20.0)])
def test_metal_is_named_as_not_modelled(radius, attenuation, place):
    volume = body()
    u, v = np.meshgrid(*[(np.arange(64) - 31.5) * SIZE] * 2, indexing="ij")
    volume[:, torch.from_numpy(np.hypot(u - place[0], v - place[1]) < radius)] = attenuation * WATER
    assert "as metal does: metal is not modelled" in said(measured(volume))


@pytest.mark.parametrize("photons", [None, 2e3])
def test_bone_and_noise_are_no_metal(photons):
    assert "metal" not in said(measured(photons=photons))
