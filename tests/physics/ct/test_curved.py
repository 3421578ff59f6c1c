"""Curved detectors: the rays of a flat one through the same places, known line integrals, and what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.filtered_back_projection import filtered_back_projection
from interslice.physics.ct.flattened import concentric, flattened
from interslice.physics.ct.sparse_radon import arc
from tests.physics.ct.test_sparse_radon import line_integrals, phantom
from tests.support.helpers import dense, normal, repeatable

ANGLES = (10.0, 77.0, 143.0, 215.0, -60.0)
DISTANCES = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}
OFFSETS = {"column_offset": (3.0, -2.0, 0.0, 5.0, 1.0), "source_column_offset": (1.0, 2.0, -3.0, 0.5, 4.0)}
RADII = [None, 200.0, 500.0]


def curved(beam, columns=44, size=4.0, radius=None, **others):
    rows = {"num_rows": 30, "row_size": 3.6, "row_offset": -2.0} if beam == "cone" else {"num_rows": 1, "row_size": 1.0}
    values = {"detector": "curved", "detector_radius": radius, "angles": ANGLES} | rows | DISTANCES | others
    return ScanGeometry(beam, num_columns=columns, column_size=size, **values)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_off_centre_ellipsoids_have_their_known_projections_and_errors_shrink_with_the_voxels(beam, radius):
    geometry = curved(beam, radius=radius, **OFFSETS)
    expected = line_integrals(geometry, long=beam == "fan")
    assert expected.max() > 30 and expected.min() < -5  # both ellipsoids are seen
    errors = []
    for n in (16, 32, 64):
        grid = Grid((n, n + n // 8, n if beam == "cone" else 1), (80 / n, 84 / n, 64 / n if beam == "cone" else 1.0),
                    (2.0, -3.0, 0.0))  # fmt: skip
        operator = (ConeBeam if beam == "cone" else lambda *a: SparseRadon(*a, "joseph"))(geometry, grid)
        y = operator.forward(phantom(grid, long=beam == "fan").float())
        errors.append(float((y - expected).square().mean().sqrt() / expected.square().mean().sqrt()))
    assert errors[2] < 5e-3
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5


@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_each_column_is_a_flat_detector_of_one_column_at_the_tangent_of_its_angle(beam):
    """Same rays, same numbers: about the source, a column at the fan angle gamma is the flat column D tan gamma."""
    geometry = curved(beam, 7, 9.0, num_rows=1, row_offset=0.0)
    grid = Grid((6, 5, 1), (9.0, 8.0, 3.0), (1.0, -2.0, 0.0))
    kind = ConeBeam if beam == "cone" else lambda g, grid: SparseRadon(g, grid, "joseph")
    x = normal(*grid.shape, dtype=torch.float64)
    whole = kind(geometry, grid).forward(x)
    det = DISTANCES["source_to_detector"]
    for i, a in enumerate(geometry.columns[0].tolist()):
        one = replace(geometry, detector="flat", num_columns=1, column_offset=det * math.tan(a / det))
        torch.testing.assert_close(kind(one, grid).forward(x)[:, 0], whole[:, i], rtol=1e-6, atol=1e-6)
    assert whole.abs().max() > 1


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_flattened_projections_are_those_of_a_flat_detector(beam, radius):
    geometry = curved(beam, 110, 1.6, radius, **({} if beam == "fan" else {"num_rows": 60, "row_size": 1.8}), **OFFSETS)
    y, flat = flattened(line_integrals(geometry, long=beam == "fan"), geometry)
    expected = line_integrals(flat, long=beam == "fan")
    assert flat.detector == "flat" and y.shape == flat.range_shape
    assert (y - expected)[:, 3:-3].abs().max() < 0.02 * expected.abs().max()  # of interpolation
    assert (y - expected).square().mean().sqrt() < 0.002 * expected.abs().max()


@repeatable
@given(sine=st.floats(-0.5, 0.5), offset=st.floats(-8, 8), radius=st.floats(90, 900), det=st.floats(200, 400))
def test_where_a_ray_meets_the_cylinder_lies_on_the_ray(sine, offset, radius, det):
    cosine = math.sqrt(1 - sine**2)
    values = (torch.tensor(v, dtype=torch.float64) for v in (sine, cosine, offset, det, radius))
    if (det - radius) ** 2 + offset**2 >= radius**2:
        return  # the source lies outside the cylinder
    a = float(arc(*values))
    across, depth = radius * math.sin(a / radius), det - radius * (1 - math.cos(a / radius))
    assert (across - offset) * cosine == pytest.approx(depth * sine, abs=1e-6)


def test_strips_of_a_curved_detector_add_up_to_the_area():
    """A strip is the mean over a bin; bins of equal arc about the source share out the mass in equal angles."""
    geometry = curved("fan", 60, 5.0, angles=(0.0, 120.0))
    grid = Grid((16, 16, 1), (2.0, 2.0, 1.0))
    x = normal(*grid.shape).abs()
    fine = replace(geometry, num_columns=600, column_size=0.5)
    coarse, many = (SparseRadon(g, grid, "strip").forward(x) for g in (geometry, fine))
    torch.testing.assert_close(coarse, many.unflatten(1, (60, 10)).mean(2), rtol=2e-3, atol=1e-2)
    assert coarse.max() > 10


@pytest.mark.parametrize("model", ["joseph", "strip"])
def test_adjoint_is_the_transposed_matrix(model):
    geometry = curved("fan", 9, 3.0, **OFFSETS)
    operator = SparseRadon(geometry, Grid((5, 4, 1), (2.0, 2.5, 1.0), (0.6, -0.8, 0.0)), model)
    matrix = dense(operator.forward, operator.domain_shape)
    torch.testing.assert_close(dense(operator.adjoint, operator.range_shape), matrix.T, rtol=1e-12, atol=1e-13)
    assert (matrix.sum(0) > 0).all()


@pytest.mark.parametrize("radius", RADII)
def test_filtered_back_projection_agrees_with_that_of_a_flat_detector(radius):
    angles = tuple(4.0 * i for i in range(90))
    scan = curved("fan", 110, 2.2, radius, angles=angles)
    assert concentric(scan) == (radius is None)
    grid = Grid((48, 54, 1), (80 / 48, 84 / 54, 1.0), (2.0, -3.0, 0.0))
    flat = replace(scan, detector="flat", detector_radius=None, num_columns=130)
    one, two = (filtered_back_projection(line_integrals(g, long=True), SparseRadon(g, grid)) for g in (scan, flat))
    assert (one - two).abs().max() < 0.04 and (one - two).square().mean().sqrt() < 0.008
    assert one.max() > 0.95


def test_the_field_of_view_ends_at_the_edge_ray():
    edge = math.radians(15)
    scan = curved("fan", 10, 270 * edge / 5)
    assert scan.field_radius == pytest.approx(150 * math.sin(edge))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detector": "round"}, "detector must be one of .* got 'round'"),
        ({"beam": "parallel"}, "a parallel beam has no curved detector"),
        ({"detector": "flat", "detector_radius": 270.0}, "detector_radius is 270.0, but the detector is flat"),
        ({"detector_radius": -3.0}, "detector_radius must be a positive number of mm, got -3.0"),
        ({"column_size": 20.0}, "reaches 91 degrees from its middle, 90 are too many: column_size and column_offset"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(curved("fan"), **change)


def test_json_keeps_the_detector():
    scan = curved("cone", radius=300.0, in_plane_angle=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert ScanGeometry.from_json(scan.to_json()) == scan
