"""Helical scans: simulated, projected, and reconstructed directly, by least squares and by total variation."""

import math
from dataclasses import replace

import pytest
import torch
from monai.data import MetaTensor

from interslice.files.memory import array_bytes
from interslice.physics.baselines import LeastSquares, TotalVariation
from interslice.physics.ct import CheckProjectionsd, ConeBeam, Grid, HounsfieldScale, ScanGeometry, Tomography
from interslice.physics.ct.field_of_view import heights_seen
from interslice.physics.ct.helix import Helix
from tests.physics.ct.test_sparse_radon import line_integrals, phantom
from tests.support.helpers import normal

BODY = ((3.0, -2.0, 0.0), (24.0, 28.0, 60.0), 1.0)
ELLIPSOIDS = (BODY, ((-8.0, 9.0, 14.0), (9.0, 10.0, 12.0), -0.5), ((5.0, -9.0, -20.0), (8.0, 8.0, 9.0), 0.3))
GRID = Grid((36, 36, 50), (2.0, 2.0, 2.4))
SCANNER = {"beam": "cone", "source_to_isocenter": 300.0, "source_to_detector": 520.0, "background": 0.0}


def volume_of(grid=GRID):
    return MetaTensor(phantom(grid, ELLIPSOIDS).float()[None], affine=torch.diag(torch.tensor([*grid.spacing, 1.0])))


def helix(**options):
    """The operator of a simulated helix, and its exact projections."""
    operator = Tomography(**SCANNER | {"pitch": 40.0, "num_views": 240} | options).for_volume(volume_of())
    return operator, line_integrals(operator.geometry, ELLIPSOIDS).float()


def inside(grid=GRID):
    """Well inside the large ellipsoid and outside the others."""
    points = torch.stack(torch.meshgrid(*[grid.coordinates(a) for a in range(3)], indexing="ij"), -1)
    q = [((points - torch.tensor(c)) / torch.tensor(r)).square().sum(-1) for c, r, _ in ELLIPSOIDS]
    return (q[0] < 0.4) & (q[1] > 1.5) & (q[2] > 1.6)


@pytest.mark.parametrize(
    "options",
    [{}, {"detector": "curved"}, {"pitch": -25.0}, {"pitch": 80.0, "num_views": 200}],
    ids=["flat", "curved", "backwards", "fast"],
)
def test_the_direct_reconstruction_of_a_helix_has_the_right_values(options):
    operator, y = helix(**options)
    assert operator.geometry.helical
    x = operator.linear_reconstruction(y)
    assert x[inside()].mean() == pytest.approx(1.0, abs=0.01)
    assert x[inside()].std() < 0.015 and (x[inside()] - 1).abs().max() < 0.08
    assert (x - volume_of()[0]).square().mean().sqrt() < 0.035


def in_steps(stops=4, per_turn=40, step=30.0, **others):
    """A whole turn at each of several heights, one after the other."""
    angles = [360.0 * i / per_turn for i in range(stops * per_turn)]
    heights = tuple(step * (i // per_turn) for i in range(stops * per_turn))
    return ScanGeometry("cone", angles, 64, 4.0, 20, 3.0, 300.0, 520.0, row_offset=heights,
                        source_row_offset=heights, **others)  # fmt: skip


@pytest.mark.parametrize("stops", [2, 3, 8])
def test_a_scan_in_steps_is_no_helix_and_is_refused(stops):
    geometry = in_steps(stops)
    assert geometry.stops == stops and not geometry.helical
    short = replace(geometry, angles=tuple(a % 360 * 0.6 for a in geometry.angles))  # turned back in between
    assert short.stops == stops and not short.helical
    y = MetaTensor(torch.zeros(1, *geometry.range_shape), meta={"geometry": geometry, "filename_or_obj": "a.npz"})
    with pytest.raises(ValueError, match=rf"a\.npz: the source turns at {stops} heights .* a scan in steps"):
        CheckProjectionsd("image", HounsfieldScale())({"image": y})


def test_helices_and_circles_have_no_steps():
    heights = torch.linspace(0, 90, 160, dtype=torch.float64)
    even = replace(in_steps(), source_row_offset=tuple(heights.tolist()))
    spot = replace(even, source_row_offset=tuple((heights + 2.5 * torch.arange(160).remainder(2)).tolist()))
    rounded = replace(even, source_row_offset=tuple(heights.round().tolist()))
    few = replace(even, angles=tuple(100.0 * i for i in range(160)), source_row_offset=tuple((10 * heights).tolist()))
    for geometry in (even, spot, rounded, few, helix()[0].geometry):
        assert geometry.stops < 2 and geometry.helical
    still = replace(in_steps(), source_row_offset=0.0)
    assert still.stops == 1 and not still.helical


def test_a_shifted_detector_on_a_helix_stays_near():
    operator, y = helix(column_offset=30.0, num_columns=56)
    x = operator.linear_reconstruction(y)
    assert x[inside()].mean() == pytest.approx(1.0, abs=0.01) and x[inside()].std() < 0.05


def test_a_tilted_helix_is_not_too_bright_or_dark():
    """As with a tilted gantry: each voxel counts the views that see it."""
    geometry = replace(helix(num_views=180)[0].geometry, in_plane_angle=3.0, out_of_plane_angle=2.0)
    x = ConeBeam(geometry, GRID).linear_reconstruction(line_integrals(geometry, ELLIPSOIDS).float())
    assert x[inside()].mean() == pytest.approx(1.0, abs=0.03) and x[inside()].std() < 0.1


def test_least_squares_and_total_variation_come_nearer():
    operator, y = helix(num_views=160)
    truth = volume_of()[0]
    errors = [float((x - truth).square().mean().sqrt()) for x in (
        operator.linear_reconstruction(y),
        LeastSquares(iterations=15)(y, operator),
        TotalVariation(weight=0.0003, iterations=60)(y, operator),
    )]  # fmt: skip
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.75 * errors[0]


def test_the_slices_of_a_view_are_those_that_it_sees():
    operator, y = helix()
    geometry, z = operator.geometry, GRID.coordinates(2)
    turns = Helix(geometry)
    only = torch.zeros_like(y)
    for view in (0, 70, 140):
        only.zero_()[view] = 1.0
        touched = operator.adjoint(only).amax((0, 1)) > 0
        part = turns.slices(view, z, 300.0 - GRID.radius, 300.0 + GRID.radius)
        seen = torch.zeros(len(z), dtype=torch.bool)
        seen[part] = True
        assert int((touched & ~seen).sum()) <= 2  # half a slice at either end
        assert int((seen & ~touched).sum()) <= 4


def test_shares_of_the_views_along_a_line_add_up_to_one():
    """At the isocenter the views along one line are half turns apart."""
    operator, _ = helix(num_views=400, arc=360.0 * 5)
    geometry, turns = operator.geometry, Helix(operator.geometry)
    z = torch.linspace(-30, 30, 7, dtype=torch.float64)
    at = torch.zeros(1, dtype=torch.float64), torch.full((1,), 300.0, dtype=torch.float64)
    shares = torch.cat([turns.shares(view, *at, z) for view in range(400)])  # 80 views in each turn
    torch.testing.assert_close(shares.view(10, 40, 7).sum(0), torch.ones(40, 7, dtype=torch.float64))
    assert len(geometry.angles) == 400


def test_the_simulated_helix_covers_the_volume_and_travels_the_pitch_in_each_turn():
    operator, _ = helix()
    geometry = operator.geometry
    heights, angles = geometry.per_view("source_row_offset"), torch.tensor(geometry.angles, dtype=torch.float64)
    torch.testing.assert_close(heights.diff() / angles.diff() * 360, torch.full((239,), 40.0, dtype=torch.float64))
    assert float(heights[0] + heights[-1]) == pytest.approx(0, abs=1e-9)
    assert torch.equal(geometry.per_view("row_offset"), heights)
    low, high = heights_seen(geometry)
    assert low < -60 and high > 60 and high - low < 200
    arc = Tomography(**SCANNER, pitch=40.0, arc=720.0, num_views=100).for_volume(volume_of()).geometry
    assert arc.angles[-1] == pytest.approx(720 * 99 / 100)


def test_the_default_grid_follows_the_helix():
    operator, y = helix()
    image = MetaTensor(y[None], meta={"geometry": replace(operator.geometry)})
    grid = Tomography(background=0.0).for_measurement(image).grid
    low, high = heights_seen(operator.geometry)
    assert grid.shape[2] * grid.spacing[2] == pytest.approx(high - low, abs=grid.spacing[2])
    assert grid.center[2] == pytest.approx((low + high) / 2, abs=grid.spacing[2])
    lifted = {k: tuple(v + 500 for v in getattr(operator.geometry, k)) for k in ("row_offset", "source_row_offset")}
    image = MetaTensor(y[None], meta={"geometry": replace(operator.geometry, **lifted)})
    assert Tomography(background=0.0).for_measurement(image).grid.center[2] == pytest.approx(grid.center[2] + 500)


def test_a_helix_too_short_for_the_volume_is_warned_of():
    with pytest.warns(UserWarning, match="misses 0 mm at the sides and [1-9][0-9]* mm at the ends"):
        Tomography(**SCANNER, pitch=40.0, arc=500.0, num_views=100).for_volume(volume_of())


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_adjoint_on_a_long_volume(backend):
    """Where rays read a few of many slices, both take other paths than in a circle."""
    if backend == "numba":
        pytest.importorskip("numba")
    operator = ConeBeam(helix(num_views=60, num_rows=4)[0].geometry, Grid((8, 7, 60), (6.0, 6.0, 2.0)), backend)
    x, y = normal(*operator.domain_shape, seed=1), normal(*operator.range_shape, seed=2)
    ax, aty = operator.forward(x), operator.adjoint(y)
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= 1e-6 * float(ax.norm() * y.norm())
    exact = ConeBeam(operator.geometry, operator.grid, "torch").forward(x.double())
    assert (ax - exact).abs().max() < 2e-6 * exact.abs().max() * 10


def test_memory_is_told_by_rays_and_voxels():
    operator, _ = helix()
    kept = sum(t.numel() * t.element_size() for fans in operator._fans for t in (fans.rise, fans.length))
    assert kept == operator.kept_bytes() == 4 * array_bytes(operator.range_shape)
    tilted = ConeBeam(replace(operator.geometry, in_plane_angle=3.0), GRID)
    kept = sum(v.numel() * v.element_size() for f in tilted._fans for v in vars(f).values() if torch.is_tensor(v))
    assert 0.9 * kept < tilted.kept_bytes() < 1.3 * kept


def scan(**changes):
    angles = tuple(30.0 * i for i in range(24))
    heights = tuple(3.0 * i for i in range(24))
    values = {"row_offset": heights, "source_row_offset": heights, "source_to_isocenter": 300.0}
    detector = {"num_columns": 9, "column_size": 2.0, "num_rows": 4, "row_size": 2.0, "source_to_detector": 520.0}
    return ScanGeometry("cone", **{"angles": angles} | detector | values | changes)


def test_what_a_helix_is():
    assert scan().helical and scan(angles=tuple(-30.0 * i for i in range(24))).helical
    assert scan(angles=tuple(30.0 * i % 360 for i in range(24))).helical  # angles may start anew in each turn
    assert not scan(source_row_offset=0.0).helical
    assert not scan(source_row_offset=tuple(1.5 * (i % 2) for i in range(24))).helical  # a flying focal spot
    unwrapped = scan(angles=tuple(30.0 * i % 360 for i in range(24))).unwrapped
    torch.testing.assert_close(unwrapped, torch.arange(24).double() * math.radians(30))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": "fan", "pitch": 10.0}, "pitch 10.0 makes a helix of a cone beam, the beam is 'fan'"),
        ({"pitch": 0}, "pitch is 0 mm in each turn: leave it out for a circle"),
        ({"pitch": "x"}, "pitch must be a number of mm in each turn"),
        ({"arc": 720.0}, "arc must be a number of degrees above 0, up to 360, got 720"),
        ({"detector": "round"}, "detector must be one of .* got 'round'"),
        ({"beam": "parallel", "detector": "curved"}, 'detector "curved" is for fan and cone beams'),
    ],
)
def test_options_that_make_no_scan_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tomography(**{"beam": "cone"} | options)
