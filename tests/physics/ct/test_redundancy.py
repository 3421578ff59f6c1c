"""What rays count that see a line from both ends: Parker's and Wang's weights, and reconstructions without shading."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.field_of_view import radius_seen
from interslice.physics.ct.filtered_back_projection import filtered_back_projection
from interslice.physics.ct.redundancy import angular_steps, fan_angles, ray_shares
from tests.physics.ct.test_sparse_radon import line_integrals
from tests.support.helpers import repeatable

ELLIPSES = (((3.0, -2.0, 0.0), (38.0, 42.0, 30.0), 1.0), ((-12.0, 9.0, 0.0), (9.0, 14.0, 12.0), -0.5))
GRID = {"fan": Grid((64, 64, 1), (1.5, 1.5, 1.0)), "cone": Grid((40, 40, 5), (2.4, 2.4, 2.4))}
STEP = {"fan": 3.0, "cone": 4.0}


def full_scan(beam, **others):
    """A whole turn that sees the ellipses; fan angles up to 18 degrees."""
    size = {"fan": {"num_columns": 96, "column_size": 2.4, "num_rows": 1, "row_size": 1.0},
            "cone": {"num_columns": 66, "column_size": 3.5, "num_rows": 44, "row_size": 4.0}}[beam]  # fmt: skip
    angles = tuple(STEP[beam] * i for i in range(round(360 / STEP[beam])))
    return ScanGeometry(beam, angles, source_to_isocenter=200.0, source_to_detector=360.0, **size | others)


def reconstruction(geometry):
    grid = GRID[geometry.beam]
    kind = ConeBeam if geometry.beam == "cone" else lambda g, grid: SparseRadon(g, grid, "joseph")
    return filtered_back_projection(
        line_integrals(geometry, ELLIPSES, long=geometry.beam == "fan"), kind(geometry, grid)
    )


def middle(grid):
    """Voxels well inside the large ellipse and outside the small one, near the plane of the source."""
    x, y, z = torch.meshgrid(*[grid.coordinates(a) for a in range(3)], indexing="ij")
    inside = ((x - 3) / 38) ** 2 + ((y + 2) / 42) ** 2 < 0.4
    return inside & (((x + 12) / 9) ** 2 + ((y - 9) / 14) ** 2 > 1.6) & (z.abs() < 4)


@pytest.fixture(scope="module")
def whole():
    return {(beam, detector): reconstruction(full_scan(beam, detector=detector))
            for beam in ("fan", "cone") for detector in ("flat", "curved")}  # fmt: skip


def short(scan, arc):
    step = STEP[scan.beam]
    return replace(scan, angles=tuple(10 + step * i for i in range(round(arc / step) + 1)))


def shifted(scan, share):
    """The detector without the `share` of one half."""
    gone = round(share * scan.num_columns / 2)
    return replace(scan, num_columns=scan.num_columns - gone, column_offset=gone * scan.column_size / 2)


SCANS = {
    "short": lambda scan: short(scan, 220),
    "longer": lambda scan: short(scan, 262),
    "long": lambda scan: short(scan, 320),
    "backwards": lambda scan: replace(short(scan, 220), angles=short(scan, 220).angles[::-1]),
    "shifted": lambda scan: shifted(scan, 0.7),
    "shifted the other way": lambda scan: replace(shifted(scan, 0.7), column_offset=-shifted(scan, 0.7).column_offset),
    "shifted by little": lambda scan: shifted(scan, 0.2),
    "by a quarter of a column": lambda scan: replace(scan, column_offset=scan.column_size / 4),
}


@pytest.mark.parametrize("detector", ["flat", "curved"])
@pytest.mark.parametrize("beam", ["fan", "cone"])
@pytest.mark.parametrize("change", SCANS.values(), ids=SCANS)
def test_there_is_no_shading(whole, beam, detector, change):
    scan, inside = change(full_scan(beam, detector=detector)), middle(GRID[beam])
    found, expected = reconstruction(scan)[inside], whole[beam, detector][inside]
    assert expected.mean() == pytest.approx(1.0, abs=3e-3)
    assert found.mean() == pytest.approx(float(expected.mean()), abs=2e-3)
    assert (found - expected).abs().max() < 0.02
    assert (found - expected).square().mean().sqrt() < 0.005


def test_a_parallel_turn_with_a_shifted_detector_has_no_shading():
    angles = tuple(3.0 * i for i in range(120))
    scan = ScanGeometry("parallel", angles, 70, 1.0, 1, 1.0, column_offset=20.0)
    found = filtered_back_projection(
        line_integrals(scan, ELLIPSES, long=True), SparseRadon(scan, GRID["fan"], "joseph")
    )
    assert (found[middle(GRID["fan"])] - 1).abs().max() < 0.02


def test_shares_of_a_short_scan_are_those_of_parker():
    scan = full_scan("fan", num_columns=41, column_size=4.0, detector="curved")  # an element in the middle
    gamma = fan_angles(scan, scan.columns)[0]
    step = STEP["fan"]
    views = round((180 + 2 * math.degrees(float(gamma[-1])) + 6) / step)
    scan = replace(scan, angles=tuple(step * i for i in range(views)))
    # The arc as it is counted, half a step more at either end; delta as Parker's gamma_m.
    arc, beta = math.radians(step * views), (scan.radians + math.radians(step / 2))[:, None]
    delta = (arc - math.pi) / 2
    rising = torch.sin(math.pi / 4 * beta / (delta + gamma)).square()
    falling = torch.sin(math.pi / 4 * (math.pi + 2 * delta - beta) / (delta - gamma)).square()
    expected = torch.ones_like(rising)
    expected = torch.where(beta < 2 * (delta + gamma), rising, expected)
    expected = torch.where(beta > math.pi + 2 * gamma, falling, expected)
    torch.testing.assert_close(ray_shares(scan), expected, rtol=0, atol=1e-9)


def test_shares_of_a_shifted_detector_are_those_of_wang():
    scan = full_scan("fan", num_columns=60, column_offset=52.8)
    low, gamma = fan_angles(scan, scan.columns[:, :1] - 1.2)[0], fan_angles(scan, scan.columns)[0]
    assert low < 0
    expected = torch.where(gamma < -low, (1 + torch.sin(math.pi / 2 * gamma / -low)) / 2, torch.ones_like(gamma))
    torch.testing.assert_close(ray_shares(scan), expected.expand(120, 60), rtol=0, atol=1e-9)


@repeatable
@given(start=st.floats(0, 360), arc=st.integers(30, 119), offset=st.floats(-80, 80), sign=st.sampled_from([-1, 1]))
def test_both_ends_of_a_line_share_it(start, arc, offset, sign):
    """On a curved detector with an offset of whole steps the other end of a ray is a ray: their shares add up to 1."""
    scan = full_scan("fan", detector="curved", column_size=360 * math.radians(1.5), num_columns=25)
    scan = replace(scan, column_offset=0.0, angles=tuple(start + sign * 3.0 * i for i in range(arc)))
    shares = ray_shares(scan)
    assert (shares > 0).all() and (shares <= 1).all()
    middle_column = 12
    for view in range(0, arc, 7):
        for column in (0, 5, 12, 20, 24):
            turned = 180 - 2 * 1.5 * (column - middle_column)
            other = (sign * turned / 3.0 + view) % 120
            share = float(shares[view, column])
            if abs(other - round(other)) < 1e-6:
                other = round(other) % 120
                rest = float(shares[other, 24 - column]) if other < arc else 0.0
                assert share + rest == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("arc", [60, 120, 180])
def test_a_limited_arc_sees_no_line_twice_but_those_at_its_ends(arc):
    scan = short(full_scan("fan"), arc - STEP["fan"])
    gamma = math.degrees(float(fan_angles(scan, scan.columns).max()))
    shares = ray_shares(scan)
    assert torch.equal(shares, torch.ones_like(shares)) == (arc < 180 - 2 * gamma)


def test_a_whole_turn_counts_half():
    scan = full_scan("fan")
    assert torch.allclose(ray_shares(scan), torch.tensor(0.5, dtype=torch.float64))
    assert float(angular_steps(scan).sum()) == pytest.approx(2 * math.pi)


def test_a_shifted_detector_sees_the_wider_circle_in_a_whole_turn_alone():
    scan = shifted(full_scan("fan"), 0.7)
    wide, narrow = radius_seen(scan), scan.field_radius
    assert wide == pytest.approx(full_scan("fan").field_radius) and narrow < 0.4 * wide
    assert radius_seen(short(scan, 220)) == narrow
    assert radius_seen(full_scan("fan")) == pytest.approx(full_scan("fan").field_radius)
