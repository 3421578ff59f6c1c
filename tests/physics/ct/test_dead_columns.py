"""Dead elements are found where they are, and nowhere else; what is filled in is what lies between."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.doubts import doubts_of
from interslice.physics.ct.dead_columns import dead_elements, longest_run, may_stay, with_dead_filled
from interslice.physics.ct.geometry import ScanGeometry
from tests.physics.ct.test_plausible import CHECK, SIZE, WATER, body, measured, said
from tests.support.helpers import repeatable


def lines(views=10, columns=30, rows=3):
    """Projections that are linear along the columns, another way in each view and row, and 0 at both ends."""
    v, c, r = np.meshgrid(np.arange(views), np.arange(columns), np.arange(rows), indexing="ij")
    p = (1.0 + np.sin(v) + r) * (c + 0.1 * v)
    p[:, [0, 1, -2, -1]] = 0
    return p.astype(np.float32)


@given(
    dead=st.sets(st.integers(4, 25), max_size=10), rows=st.sets(st.integers(0, 2), min_size=1), value=st.floats(0, 12)
)
@repeatable
def test_dead_elements_are_interpolated_and_the_others_untouched(dead, rows, value):
    right = lines()
    broken, place = right.copy(), np.zeros(right.shape[1:], bool)
    place[np.ix_(sorted(dead), sorted(rows))] = True
    broken[:, place] = value
    assert np.array_equal(dead_elements(broken), place)
    if longest_run(place.any(1)) > 8:
        with pytest.raises(ValueError, match=r"up to \d+ beside each other: .* at most 8 are filled in"):
            with_dead_filled(broken)
        return
    filled, _, sentences = with_dead_filled(broken)
    np.testing.assert_allclose(filled, right, atol=1e-4)
    assert bool(sentences) == bool(dead) and np.array_equal(
        broken[:, place], np.full((10, place.sum()), np.float32(value))
    )


def test_columns_beside_an_object_and_round_objects_are_not_dead():
    right = measured()
    assert not dead_elements(right.as_tensor()[0].numpy()).any()
    assert not dead_elements(np.broadcast_to(lines()[:1], (10, 30, 3))).any()


def test_dead_columns_of_counts_cost_little():
    """Four columns of 96 that count nothing: filled in, they err by less than a tenth of what is measured there."""
    right = measured(photons=3e4)
    broken = right.clone()
    broken[:, :, 30:34] = np.log(6e4)
    filled, dead, sentences = with_dead_filled(broken.as_tensor()[0].numpy())
    assert sentences[0].startswith("4 columns (30, 31, 32, 33) have one value in all views") and sentences[0] in said(
        broken
    )
    assert np.flatnonzero(dead.all(1)).tolist() == [30, 31, 32, 33] and dead.sum() == 4 * dead.shape[1]
    error = filled - right.as_tensor()[0].numpy()
    assert np.sqrt(np.square(error[:, 30:34]).mean()) < 0.1 * right.as_tensor()[0, :, 30:34].square().mean().sqrt()


def counted(line_integrals, air, seed=0):
    """-log(counts / air) with photon noise; no photon is half a count."""
    counts = np.random.default_rng(seed).poisson(air * np.exp(-line_integrals.double().numpy()))
    return -torch.from_numpy(np.log(counts.clip(0.5) / air)).float()


def with_rod(x, y, radius, attenuation=40.0):
    """(1, 64, 64, 2): the body, with a rod of so many times the attenuation of water, in mm."""
    volume = body()
    u, v = np.meshgrid(*[(np.arange(64) - 31.5) * SIZE] * 2, indexing="ij")
    volume[:, torch.from_numpy(np.hypot(u - x, v - y) < radius)] = attenuation * WATER
    return volume


@pytest.mark.parametrize(("photons", "offset"), [(1e5, 0.0), (1e4, 7.5)])
@pytest.mark.parametrize("broken", [(20,), (40, 41), (9,)])
def test_dead_columns_with_dark_noise_are_filled_and_shift_no_centre(photons, offset, broken):
    right = measured(photons=photons, column_offset=offset)
    wrong = right.clone()
    dark = np.random.default_rng(1).normal(0, 3, wrong[:, :, list(broken)].shape).clip(0.5)
    wrong[:, :, list(broken)] = torch.from_numpy(np.log(photons / dark)).float()
    sentence = said(wrong)
    assert f"{len(broken)} columns ({', '.join(map(str, broken))}) are far above their neighbours" in sentence
    assert "column_offset" not in sentence
    filled = torch.from_numpy(with_dead_filled(wrong.as_tensor()[0].numpy(), may_stay(wrong.meta["geometry"]))[0])[None]
    others = [i for i in range(right.shape[2]) if i not in broken]
    assert torch.equal(filled[:, :, others], right.as_tensor()[:, :, others])


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.0, 6.0), (9.0, -3.0), (45.0, 20.0)], ids=str)
@pytest.mark.parametrize("arc", [180.0, 40.0, 5.0])
@pytest.mark.parametrize("photons", [None, 1e4])
def test_rods_of_metal_are_no_dead_columns(place, arc, photons):
    """On the axis of rotation their shadow does not move, and over a short arc nowhere far."""
    right = measured(with_rod(*place, radius=7.0), arc=arc)
    p = right.as_tensor() if photons is None else counted(right.as_tensor(), photons)
    assert not dead_elements(p[0].numpy(), may_stay(right.meta["geometry"])).any()


@pytest.mark.filterwarnings("ignore:scan.npz")
def test_starvation_on_the_axis_is_said_and_left_as_it_is():
    right = measured(with_rod(0.0, 0.0, radius=9.0))
    starved = right.new_tensor(counted(right.as_tensor(), 1e4).numpy())
    sentences = doubts_of(checked := CHECK({"image": type(right)(starved, meta=right.meta)})["image"])
    assert torch.equal(checked.as_tensor(), starved.as_tensor())
    (sentence,) = [s for s in sentences if "lets no photons through" in s]
    assert f"{float((starved == starved.max()).float().mean()):.1%} of the rays are starved" in sentence


@given(r=st.floats(0, 100), at=st.floats(-180, 180), start=st.floats(-180, 180), arc=st.floats(1, 180))
@repeatable
def test_only_points_near_the_axis_stay_within_a_column(r, at, start, arc):
    """By the geometry's law: beyond, the shadow of a point leaves its column in some view."""
    angles = start + np.linspace(0, arc, 721)
    geometry = ScanGeometry("parallel", tuple(angles), 101, 2.0, 1, 1.0)
    shadow = r * np.cos(np.radians(angles - at))
    if np.ptp(shadow) < 2.0:
        assert may_stay(geometry)[np.abs(geometry.columns[0].numpy() - shadow[0]).argmin()]
