"""The laws of parallel and fan beam: matrix and transpose, known line integrals, and what slices and views share.

The phantom and its exact line integrals serve the tests of cone beam and filtered back-projection, too.
"""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.sparse_radon import system_matrix
from tests.support.helpers import dense, normal, repeatable
from tests.support.strategies import per_view

EDGE = 0.5
"""Squared radius where the phantom's ellipsoids begin to fall to zero."""
PHANTOM = (
    # centre, radii (mm), value inside
    ((11.0, -6.0, 3.0), (19.0, 29.0, 22.0), 1.0),
    ((-17.0, 9.0, -4.0), (9.0, 14.0, 12.0), -0.6),
)


def phantom(grid, ellipsoids=PHANTOM, long=False):
    """(X, Y, Z) sum of ellipsoids, constant inside with a smooth edge; `long` makes them endless along z."""
    points = torch.stack(torch.meshgrid(*[grid.coordinates(a) for a in range(3)], indexing="ij"), -1)
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for centre, radii, level in ellipsoids:
        q = ((points - torch.tensor(centre)) / _radii(radii, long)).square().sum(-1)
        total += level * ((1 - q).clamp_min(0) - (EDGE - q).clamp_min(0)) / (1 - EDGE)
    return total


def line_integrals(geometry, ellipsoids=PHANTOM, long=False):
    """(views, columns, rows) of the phantom: q is quadratic along a ray, so its parts have closed forms."""
    point, direction = rays(geometry)
    total = torch.zeros(geometry.range_shape, dtype=torch.float64)
    for centre, radii, level in ellipsoids:
        radii = _radii(radii, long)
        p, d = (point - torch.tensor(centre)) / radii, direction / radii
        # The integral of max(0, R - q) over q(t) = A t^2 + 2 B t + C is 4/3 (B^2 - A (C - R))^(3/2) / A^2.
        a, b, c = d.square().sum(-1), (p * d).sum(-1), p.square().sum(-1)
        parts = [(b.square() - a * (c - limit)).clamp_min(0).pow(1.5) for limit in (1, EDGE)]
        total += level * 4 / 3 * (parts[0] - parts[1]) / a.square() / (1 - EDGE)
    return total


def _radii(radii, long):
    return torch.tensor([*radii[:2], math.inf if long else radii[2]], dtype=torch.float64)


def rays(geometry):
    """A point and the unit direction, (views, columns, rows, 3) both, as the head of ct_geometry.py states them."""
    theta = torch.deg2rad(torch.tensor(geometry.angles, dtype=torch.float64))[:, None, None]
    zero, one = torch.zeros_like(theta), torch.ones_like(theta)
    u = torch.stack([theta.cos(), theta.sin(), zero], -1)
    v = torch.stack([zero, zero, one], -1)
    d = torch.stack([-theta.sin(), theta.cos(), zero], -1)

    def value(name):
        return torch.as_tensor(getattr(geometry, name), dtype=torch.float64).expand(len(theta)).view(-1, 1, 1, 1)

    out, turn = (torch.deg2rad(value(name)) for name in ("out_of_plane_angle", "in_plane_angle"))
    v, d = out.cos() * v - out.sin() * d, out.cos() * d + out.sin() * v
    u, v = turn.cos() * u + turn.sin() * v, turn.cos() * v - turn.sin() * u

    def positions(count, size):
        return torch.tensor([(i - (count - 1) / 2) * size for i in range(count)], dtype=torch.float64)

    a = positions(geometry.num_columns, geometry.column_size).view(1, -1, 1, 1) + value("column_offset")
    b = positions(geometry.num_rows, geometry.row_size).view(1, 1, -1, 1) + value("row_offset")
    if geometry.beam == "parallel":
        return a * u + b * v, d.expand(*geometry.range_shape, 3)
    iso, det = value("source_to_isocenter"), value("source_to_detector")
    height = value("source_row_offset") if geometry.beam == "cone" else b  # a fan lies in the plane of its slice
    source = -iso * d + value("source_column_offset") * u + height * v
    element = (det - iso) * d + a * u
    if geometry.detector == "curved":
        radius = det if geometry.detector_radius is None else geometry.detector_radius
        element = (det - iso - radius) * d + radius * ((a / radius).sin() * u + (a / radius).cos() * d)
    way = element + b * v - source
    return source.expand_as(way), way / way.norm(dim=-1, keepdim=True)


BEAMS = {
    "parallel": {"beam": "parallel"},
    "fan": {"beam": "fan", "source_to_isocenter": 150.0, "source_to_detector": 270.0},
}
KINDS = [(beam, model) for beam in BEAMS for model in ("joseph", "strip")]
every_kind = pytest.mark.parametrize(("beam", "model"), KINDS)
UNEVEN = (0.0, 17.0, 95.0, 160.0, 212.0, -50.0)


def scan(beam, angles=UNEVEN, num_columns=9, column_size=1.7, num_rows=2, **others):
    """A scan of these columns, as wide at the isocenter in either beam."""
    size = column_size * (1.8 if beam == "fan" else 1)
    return ScanGeometry(
        angles=angles,
        num_columns=num_columns,
        column_size=size,
        num_rows=num_rows,
        row_size=1.0,
        **BEAMS[beam] | others,
    )


def tiny(beam, model):
    """An operator small enough for its matrix, with all that is off-centre off-centre."""
    geometry = scan(beam, column_offset=0.7, source_column_offset=-0.9)
    return SparseRadon(geometry, Grid((4, 5, 2), (1.5, 1.2, 2.0), (0.6, -0.8, 3.0)), model)


@st.composite
def operators(draw):
    """Any operator on a small grid, with numbers that change from view to view."""
    beam, model = draw(st.sampled_from(KINDS))
    angles = draw(st.lists(st.floats(-400, 400), min_size=2, max_size=4))

    def moving(low, high):
        return draw(per_view(low, high, len(angles)))

    others = {
        "column_offset": moving(-5, 5),
        "num_columns": draw(st.integers(1, 12)),
        "column_size": draw(st.floats(0.3, 4)),
    }
    if beam == "fan":
        others |= {"source_to_isocenter": moving(60, 100), "source_to_detector": moving(110, 200)}
    spacing = (draw(st.floats(0.5, 2)), draw(st.floats(0.5, 2)), 1.0)
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), 2)
    grid = Grid(shape, spacing, (draw(st.floats(-3, 3)), draw(st.floats(-3, 3)), 0.0))
    return SparseRadon(scan(beam, angles, **others), grid, model)


@every_kind
def test_adjoint_is_the_transposed_matrix(beam, model):
    operator = tiny(beam, model)
    matrix = dense(operator.forward, operator.domain_shape)
    assert torch.equal(dense(operator.adjoint, operator.range_shape), matrix.T)
    assert (matrix >= 0).all()
    assert (matrix.sum(1) == 0).any()  # some rays pass the volume by
    assert (matrix.sum(0) > 0).all()  # every voxel is seen


@repeatable
@given(operator=operators(), positive=st.booleans(), precise=st.booleans())
def test_dot_test(operator, positive, precise):
    dtype, tolerance = (torch.float64, 1e-12) if precise else (torch.float32, 1e-6)
    x, y = normal(*operator.domain_shape, seed=1, dtype=dtype), normal(*operator.range_shape, seed=2, dtype=dtype)
    if positive:
        x, y = x.abs(), y.abs()
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.dtype == aty.dtype == dtype
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= tolerance * float(ax.norm() * y.norm())


@every_kind
def test_single_and_double_precision_agree(beam, model):
    operator = tiny(beam, model)
    for method, shape in ((operator.forward, operator.domain_shape), (operator.adjoint, operator.range_shape)):
        values = normal(2, *shape)
        precise = method(values.double())
        assert (method(values) - precise).abs().max() < 1e-6 * precise.abs().max()


@every_kind
def test_the_norm_is_the_largest_singular_value(beam, model):
    operator = tiny(beam, model)
    largest = float(torch.linalg.svdvals(dense(operator.forward, operator.domain_shape))[0])
    assert 0.999 * largest < operator.norm <= largest * (1 + 1e-5)


def exact(geometry, model):
    """What a detector reads of the phantom: along the ray for joseph, the mean over the bin for strip."""
    if model == "joseph":
        return line_integrals(geometry, long=True)
    parts = 8
    fine = replace(geometry, num_columns=parts * geometry.num_columns, column_size=geometry.column_size / parts)
    return line_integrals(fine, long=True).unflatten(1, (-1, parts)).mean(2)


@every_kind
def test_off_centre_ellipses_have_their_known_sinogram_and_errors_shrink_with_the_pixels(beam, model):
    offsets = (2.1, -1.3, 0.0, 3.0, 2.0, -2.0)  # from view to view
    moving = {"source_column_offset": offsets[::-1]} if beam == "fan" else {}
    errors = []
    for n in (24, 48, 96):
        grid = Grid((n, n + n // 6, 1), (80 / n, 84 / n, 1.0), (2.0, -3.0, 0.0))
        bins = {"num_columns": 50, "column_size": 2.0} if model == "joseph" else {"num_columns": 28, "column_size": 3.6}
        geometry = scan(beam, num_rows=1, column_offset=offsets, **bins, **moving)
        y = SparseRadon(geometry, grid, model).forward(phantom(grid, long=True))
        expected = exact(geometry, model)
        assert expected.max() > 35 and expected.min() < -5  # both ellipses are seen
        errors.append(float((y - expected).square().mean().sqrt() / expected.square().mean().sqrt()))
    assert errors[2] < 2e-3
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5


@pytest.mark.parametrize("beam", BEAMS)
def test_a_strip_is_the_mean_of_the_chords_of_its_rays(beam):
    grid = Grid((2, 3, 1), (1.5, 1.1, 1.0), (4.0, -3.0, 0.0))
    geometry = scan(beam, num_columns=16, column_size=0.9, num_rows=1, column_offset=0.3)
    matrix = dense(SparseRadon(geometry, grid, "strip").forward, grid.shape)
    parts = 400
    point, direction = rays(replace(geometry, num_columns=16 * parts, column_size=geometry.column_size / parts))
    for i in range(6):
        middle = torch.stack([grid.coordinates(0)[i // 3], grid.coordinates(1)[i % 3]])
        half = torch.tensor(grid.spacing[:2], dtype=torch.float64) / 2
        # Where the ray is between the pixel's two edges, for both axes.
        way = torch.where(direction[..., :2].abs() < 1e-12, 1e-12, direction[..., :2])
        t = (middle + torch.stack([-half, half])[:, None, None, None] - point[..., :2]) / way
        chord = (t.amax(0).amin(-1) - t.amin(0).amax(-1)).clamp_min(0)
        mean = chord.unflatten(1, (-1, parts)).mean(2).flatten()
        # Shadows in a fan are trapezoids only nearly.
        assert (matrix[:, i] - mean).abs().max() < (2e-3 if beam == "parallel" else 1e-2) * mean.max()


def assert_wide_bins_are_means_of_narrow_ones(geometry, grid):
    narrow = replace(geometry, num_columns=2 * geometry.num_columns, column_size=geometry.column_size / 2)
    x = normal(*grid.shape, dtype=torch.float64)
    y, fine = (SparseRadon(g, grid, "strip").forward(x) for g in (geometry, narrow))
    torch.testing.assert_close(y, fine.unflatten(1, (-1, 2)).mean(2), rtol=0, atol=1e-5 * float(y.abs().max()))


@repeatable
@given(
    beam=st.sampled_from(list(BEAMS)),
    size=st.floats(2, 6),
    offset=st.floats(-4, 4),
    source=st.floats(-20, 20),
    angles=st.tuples(st.floats(0, 360), st.floats(0, 360)),
)
def test_a_wide_bin_is_the_mean_of_the_narrow_bins_in_it(beam, size, offset, source, angles):
    near = {"source_to_isocenter": 45.0, "source_to_detector": 81.0} if beam == "fan" else {}
    geometry = scan(beam, angles, 30, size, 1, column_offset=offset, source_column_offset=source, **near)
    assert_wide_bins_are_means_of_narrow_ones(geometry, Grid((3, 4, 1), (9.0, 7.0, 1.0), (1.0, 2.0, 0.0)))


def test_no_part_of_a_shadow_is_lost_where_rays_from_a_far_displaced_source_meet_the_detector_obliquely():
    geometry = scan("fan", num_columns=200, num_rows=1, source_column_offset=80.0, source_to_isocenter=80.0)
    assert_wide_bins_are_means_of_narrow_ones(geometry, Grid((8, 8, 1), (5.0, 5.0, 1.0)))


def test_every_parallel_view_of_strips_holds_all_of_the_volume():
    grid = Grid((7, 6, 3), (1.3, 0.9, 2.0), (1.0, -2.0, 5.0))
    geometry = scan("parallel", num_columns=30, column_size=0.8, num_rows=3, column_offset=0.25)
    x = normal(*grid.shape, dtype=torch.float64)
    mass = SparseRadon(geometry, grid, "strip").forward(x).sum(1) * geometry.column_size
    area = grid.spacing[0] * grid.spacing[1]
    torch.testing.assert_close(mass, (x.sum((0, 1)) * area).expand_as(mass), rtol=1e-5, atol=1e-5)


@every_kind
def test_line_integrals_grow_with_the_pixels_once(beam, model):
    def measure(scale):
        distances = {k: v * scale for k, v in BEAMS[beam].items() if k != "beam"}
        geometry = scan(beam, column_size=1.7 * scale, column_offset=0.4 * scale, **distances)
        grid = Grid((6, 5, 2), (1.5 * scale, 1.2 * scale, 1.0), (0.6 * scale, 0.0, 0.0))
        return SparseRadon(geometry, grid, model).forward(normal(6, 5, 2, dtype=torch.float64))

    torch.testing.assert_close(measure(3.0), 3 * measure(1.0), rtol=1e-5, atol=1e-5)


@every_kind
def test_limited_and_permuted_angles_give_the_views_of_the_whole_scan(beam, model):
    grid = Grid((6, 5, 2), (1.5, 1.2, 1.0))
    x = normal(6, 5, 2)
    offsets = torch.linspace(-1, 1, len(UNEVEN)).tolist()
    whole = SparseRadon(scan(beam, column_offset=offsets), grid, model).forward(x)
    for chosen in ([1, 2, 3], [5, 0, 3, 1, 4, 2]):
        some = scan(beam, [UNEVEN[i] for i in chosen], column_offset=[offsets[i] for i in chosen])
        assert torch.equal(SparseRadon(some, grid, model).forward(x), whole[chosen])


@every_kind
def test_a_narrow_detector_sees_the_middle_of_a_wide_one(beam, model):
    grid, x = Grid((6, 5, 2), (1.5, 1.2, 1.0)), normal(6, 5, 2)
    wide = SparseRadon(scan(beam, num_columns=9), grid, model).forward(x)
    narrow = SparseRadon(scan(beam, num_columns=3), grid, model).forward(x)
    torch.testing.assert_close(narrow, wide[:, 3:6])


@every_kind
def test_a_turned_volume_is_a_turned_scan(beam, model):
    grid, x = Grid((6, 6, 2), (1.5, 1.5, 1.0)), normal(6, 6, 2)
    straight = SparseRadon(scan(beam), grid, model).forward(x)
    turned = SparseRadon(scan(beam, [a + 90 for a in UNEVEN]), grid, model)
    torch.testing.assert_close(turned.forward(torch.rot90(x)), straight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["joseph", "strip"])
def test_a_parallel_view_from_behind_is_mirrored(model):
    grid, x = Grid((6, 5, 2), (1.5, 1.2, 1.0)), normal(6, 5, 2)
    front = SparseRadon(scan("parallel"), grid, model).forward(x)
    behind = SparseRadon(scan("parallel", [a + 180 for a in UNEVEN]), grid, model).forward(x)
    torch.testing.assert_close(behind.flip(1), front, rtol=1e-5, atol=1e-5)


@every_kind
def test_leading_dimensions_are_batches(beam, model):
    operator = tiny(beam, model)
    x, y = normal(3, 1, *operator.domain_shape), normal(3, 1, *operator.range_shape)
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.shape == (3, 1, *operator.range_shape) and aty.shape == x.shape
    for i in range(3):
        torch.testing.assert_close(ax[i, 0], operator.forward(x[i, 0]))
        torch.testing.assert_close(aty[i, 0], operator.adjoint(y[i, 0]))


@every_kind
def test_a_slice_is_seen_by_its_own_row_alone(beam, model):
    grid, x = Grid((4, 5, 3), (1.5, 1.2, 2.0)), normal(4, 5, 3)
    operator = SparseRadon(scan(beam, num_rows=3), grid, model)
    single = SparseRadon(scan(beam, num_rows=1), Grid((4, 5, 1), (1.5, 1.2, 2.0)), model)
    y = operator.forward(x)
    for s in range(3):
        torch.testing.assert_close(y[..., s : s + 1], single.forward(x[..., s : s + 1]))
        changed = x.clone()
        changed[..., s] += 1
        others = [i for i in range(3) if i != s]
        difference = operator.forward(changed) - y
        assert (difference[..., others] == 0).all() and (difference[..., s] != 0).any()


@every_kind
def test_gradient_of_the_operator_is_its_adjoint(beam, model):
    operator = tiny(beam, model)
    x = normal(2, 1, *operator.domain_shape, dtype=torch.float64).requires_grad_()
    y = normal(2, 1, *operator.range_shape, seed=1, dtype=torch.float64)
    (operator(x) * y).sum().backward()
    assert torch.equal(x.grad, operator.adjoint(y))
    assert torch.autograd.gradcheck(operator, x.detach()[:1].requires_grad_())


@every_kind
def test_one_matrix_serves_any_number_of_slices_and_any_position_in_the_world(beam, model):
    world = ((0.0, 1, 0, 7), (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    thin = SparseRadon(scan(beam, num_rows=1), Grid((4, 5, 1), (1.0, 1.2, 2.0)), model)
    thick = SparseRadon(
        scan(beam, num_rows=6, row_offset=3.0, world=world), Grid((4, 5, 6), (1.0, 1.2, 3.0), (0.0, 0.0, 4.0)), model
    )
    again = system_matrix(scan(beam, num_rows=1).one_row(), Grid((4, 5, 1), (1.0, 1.2, 1.0)), model)
    for one, two, three in zip((*thin._rows, *thin._transposed), (*thick._rows, *thick._transposed), sum(again, ())):
        assert one is two is three
    other = SparseRadon(scan(beam, num_rows=1, column_offset=0.1), Grid((4, 5, 1), (1.0, 1.2, 2.0)), model)
    assert other._rows[2] is not thin._rows[2]


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize(("size", "model"), [(0.5, "joseph"), (1.0, "joseph"), (1.1, "strip"), (3.0, "strip")])
def test_bins_wider_than_pixels_at_the_isocenter_are_strips(beam, size, model):
    assert SparseRadon(scan(beam, column_size=size), Grid((4, 5, 2), (1.0, 1.4, 0.5))).model == model


def test_the_volume_lies_in_the_world_where_the_scanner_stands():
    world = ((0.0, -1.0, 0.0, 10.0), (1.0, 0.0, 0.0, 20.0), (0.0, 0.0, 2.0, 30.0), (0.0, 0.0, 0.0, 1.0))
    operator = SparseRadon(scan("parallel", world=world), Grid((3, 5, 2), (1.0, 2.0, 4.0), (6.0, 7.0, 8.0)))
    middle = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    assert (operator.domain_affine() @ middle).tolist() == [10.0 - 7.0, 20.0 + 6.0, 30.0 + 16.0, 1.0]


@pytest.mark.parametrize("model", ["joseph", "strip"])
def test_parallel_beam_agrees_with_scikit_image(model):
    transform = pytest.importorskip("skimage.transform")
    n, angles = 65, (0.0, 20.0, 70.0, 100.0, 160.0, 250.0)
    grid = Grid((n, n, 1), (1.0, 1.0, 1.0))
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    image = torch.exp(-(((x - 8) / 5) ** 2) - ((y + 10) / 6) ** 2 - (x - 8) * (y + 10) / 350)
    image[torch.hypot(x, y) > n // 2] = 0
    ours = SparseRadon(scan("parallel", angles, n, 1.0, 1), grid, model).forward(image[..., None])[..., 0]
    # scikit-image sums over rows; its angles grow the other way.
    theirs = transform.radon(image.T.numpy(), [-a for a in angles], circle=True).T
    assert (ours - torch.from_numpy(theirs)).abs().max() < 0.01 * ours.max()
