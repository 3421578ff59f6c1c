"""The laws of the cone beam: two implementations, matrix and transpose, known line integrals, and RTK as a witness."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon, cone_beam, cone_beam_torch
from tests.physics.ct.test_sparse_radon import line_integrals, phantom
from tests.support.helpers import dense, normal, repeatable
from tests.support.strategies import per_view

ANGLES = (10.0, 77.0, 143.0, 215.0, -60.0)
MOVING = {
    "source_to_isocenter": (150.0, 155.0, 160.0, 153.0, 149.0),
    "source_to_detector": (270.0, 280.0, 265.0, 275.0, 271.0),
    "column_offset": (3.0, -2.0, 0.0, 5.0, 1.0),
    "row_offset": (-4.0, 1.0, 2.0, 0.0, 3.0),
    "source_column_offset": (1.0, 2.0, -3.0, 0.5, 4.0),
    "source_row_offset": (2.0, -1.0, 0.0, 3.0, -2.0),
}
"""A different number in every view, wherever it may be."""


def scan(angles=ANGLES, columns=7, rows=5, size=3.0, **others):
    distances = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}
    return ScanGeometry("cone", angles, columns, size, rows, 0.9 * size, **distances | others)


def tiny(backend="torch"):
    """An operator small enough for its matrix, with all that is off-centre off-centre."""
    return ConeBeam(scan(size=2.2, **MOVING), Grid((4, 5, 3), (1.5, 1.2, 2.0), (0.6, -0.8, 1.0)), backend)


@pytest.fixture(params=["torch", "numba"])
def backend(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


@st.composite
def scans(draw):
    """Any geometry and any small grid, with numbers that change from view to view; flat, curved, upright or tilted."""
    angles = draw(st.lists(st.floats(-400, 400), min_size=2, max_size=4))

    def moving(low, high):
        return draw(per_view(low, high, len(angles)))

    offsets = {name: moving(-6, 6) for name in list(MOVING)[2:]}
    if draw(st.booleans()):
        offsets |= {"detector": "curved", "detector_radius": draw(st.sampled_from([None, 90.0]))}
    if draw(st.booleans()):
        offsets |= {"out_of_plane_angle": moving(-80, 80), "in_plane_angle": moving(-90, 90)}
    geometry = scan(
        angles,
        columns=draw(st.integers(1, 9)),
        rows=draw(st.integers(1, 9)),
        size=draw(st.floats(0.3, 5)),
        source_to_isocenter=moving(30, 100),
        source_to_detector=moving(130, 200),
        **offsets,
    )
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.5, 2)) for _ in range(3))
    return geometry, Grid(shape, spacing, tuple(draw(st.floats(-5, 5)) for _ in range(3)))


def test_adjoint_is_the_transposed_matrix():
    operator = tiny()
    matrix = dense(operator.forward, operator.domain_shape)
    torch.testing.assert_close(dense(operator.adjoint, operator.range_shape), matrix.T, rtol=1e-12, atol=1e-13)
    assert (matrix >= 0).all()
    assert (matrix.sum(1) == 0).any()  # some rays pass the volume by
    assert (matrix.sum(0) > 0).all()  # every voxel is seen


def test_numba_has_the_same_matrix_and_the_same_transpose():
    pytest.importorskip("numba")
    operator, other = tiny("numba"), tiny("torch")
    matrix = dense(other.forward, other.domain_shape)
    single = dense(lambda x: operator.forward(x.float()), operator.domain_shape)
    torch.testing.assert_close(single.double(), matrix, rtol=0, atol=1e-6 * float(matrix.max()))
    single = dense(lambda y: operator.adjoint(y.float()), operator.range_shape)
    torch.testing.assert_close(single.double(), matrix.T, rtol=0, atol=1e-6 * float(matrix.max()))


@repeatable
@given(case=scans())
def test_numba_and_torch_agree(case):
    pytest.importorskip("numba")
    compiled, plain = (ConeBeam(*case, backend) for backend in ("numba", "torch"))
    x, y = normal(2, *plain.domain_shape), normal(2, *plain.range_shape)
    for method, values in (("forward", x), ("adjoint", y)):
        one, two = getattr(compiled, method)(values), getattr(plain, method)(values.double())
        assert one.dtype == torch.float32
        assert (one - two).abs().max() <= 2e-6 * max(1e-6, float(getattr(plain, method)(values.double().abs()).max()))


@repeatable
@given(case=scans(), positive=st.booleans(), kind=st.sampled_from(["numba", "torch", "double"]))
def test_dot_test(case, positive, kind):
    if kind == "numba":
        pytest.importorskip("numba")
    dtype, tolerance = (torch.float64, 1e-12) if kind == "double" else (torch.float32, 1e-6)
    operator = ConeBeam(*case, "torch" if kind == "double" else kind)
    x, y = normal(*operator.domain_shape, seed=1, dtype=dtype), normal(*operator.range_shape, seed=2, dtype=dtype)
    if positive:
        x, y = x.abs(), y.abs()
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.dtype == aty.dtype == dtype
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= tolerance * float(ax.norm() * y.norm())


def test_the_norm_is_the_largest_singular_value():
    operator = tiny()
    largest = float(torch.linalg.svdvals(dense(operator.forward, operator.domain_shape))[0])
    assert 0.999 * largest < operator.norm <= largest * (1 + 1e-5)


def test_off_centre_ellipsoids_have_their_known_projections_and_errors_shrink_with_the_voxels():
    geometry = scan(columns=44, rows=36, size=4.0, **MOVING)
    expected = line_integrals(geometry)
    assert expected.max() > 30 and expected.min() < -5  # both ellipsoids are seen
    errors = []
    for n in (16, 32, 64):
        grid = Grid((n, n + n // 8, n), (80 / n, 84 / n, 64 / n), (2.0, -3.0, 1.0))
        y = ConeBeam(geometry, grid).forward(phantom(grid).float())
        errors.append(float((y - expected).square().mean().sqrt() / expected.square().mean().sqrt()))
    assert errors[2] < 5e-3
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5


def test_what_is_constant_along_the_axis_reads_as_in_a_fan_times_the_obliquity_of_the_ray():
    geometry = scan(columns=9, rows=5, **MOVING)
    column = normal(6, 7, 1, dtype=torch.float64)
    y = ConeBeam(geometry, Grid((6, 7, 40), (2.0, 2.5, 1.0))).forward(column.expand(6, 7, 40).contiguous())
    fan = replace(geometry, beam="fan").one_row()
    flat = SparseRadon(fan, Grid((6, 7, 1), (2.0, 2.5, 1.0)), "joseph").forward(column)
    across = geometry.columns - geometry.per_view("source_column_offset")[:, None]
    within = torch.hypot(across, geometry.per_view("source_to_detector")[:, None])[..., None]
    rise = geometry.rows[:, None] - geometry.per_view("source_row_offset")[:, None, None]
    torch.testing.assert_close(y, flat * torch.hypot(within, rise) / within, rtol=1e-5, atol=1e-5)
    assert flat.abs().max() > 1


def test_lifting_scanner_and_volume_together_changes_nothing():
    x, lift = normal(4, 5, 3, dtype=torch.float64), 13.0
    low = ConeBeam(scan(**MOVING), Grid((4, 5, 3), (1.5, 1.2, 2.0), (0.6, -0.8, 1.0)))
    lifted = MOVING | {k: tuple(v + lift for v in MOVING[k]) for k in ("row_offset", "source_row_offset")}
    high = ConeBeam(scan(**lifted), Grid((4, 5, 3), (1.5, 1.2, 2.0), (0.6, -0.8, 1.0 + lift)))
    torch.testing.assert_close(high.forward(x), low.forward(x))


def test_a_turned_volume_is_a_turned_scan(backend):
    grid, x = Grid((6, 6, 4), (1.5, 1.5, 1.0), (0.0, 0.0, 2.0)), normal(6, 6, 4)
    straight = ConeBeam(scan(**MOVING), grid, backend).forward(x)
    turned = ConeBeam(scan([a + 90 for a in ANGLES], **MOVING), grid, backend)
    torch.testing.assert_close(turned.forward(torch.rot90(x)), straight, rtol=1e-5, atol=1e-5)


def test_a_volume_upside_down_is_a_detector_upside_down(backend):
    grid, x = Grid((6, 5, 4), (1.5, 1.2, 1.0)), normal(6, 5, 4)
    operator = ConeBeam(scan(size=1.0), grid, backend)
    torch.testing.assert_close(operator.forward(x.flip(2)), operator.forward(x).flip(2), rtol=1e-5, atol=1e-5)


def test_line_integrals_grow_with_the_voxels_once(backend):
    def measure(scale):
        moving = {k: tuple(v * scale for v in values) for k, values in MOVING.items()}
        grid = Grid((6, 5, 4), (1.5 * scale, 1.2 * scale, scale), (0.6 * scale, 0.0, 0.0))
        return ConeBeam(scan(size=2.0 * scale, **moving), grid, backend).forward(normal(6, 5, 4))

    torch.testing.assert_close(measure(3.0), 3 * measure(1.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chosen", [[1, 2], [4, 0, 3, 1, 2]], ids=["limited", "permuted"])
def test_limited_and_permuted_angles_give_the_views_of_the_whole_scan(backend, chosen):
    grid, x = Grid((6, 5, 4), (1.5, 1.2, 1.0)), normal(6, 5, 4)
    some = scan([ANGLES[i] for i in chosen], **{k: [v[i] for i in chosen] for k, v in MOVING.items()})
    whole = ConeBeam(scan(**MOVING), grid, backend).forward(x)
    assert torch.equal(ConeBeam(some, grid, backend).forward(x), whole[chosen])


def test_a_small_detector_sees_the_middle_of_a_large_one(backend):
    grid, x = Grid((6, 5, 4), (1.5, 1.2, 1.0)), normal(6, 5, 4)
    large = ConeBeam(scan(columns=9, rows=8, **MOVING), grid, backend).forward(x)
    small = ConeBeam(scan(columns=3, rows=2, **MOVING), grid, backend).forward(x)
    torch.testing.assert_close(small, large[:, 3:6, 3:5])


def test_leading_dimensions_are_batches_in_any_memory_layout(backend):
    operator = tiny(backend)
    x, y = normal(3, 1, *operator.domain_shape), normal(3, 1, *operator.range_shape)
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.shape == (3, 1, *operator.range_shape) and aty.shape == x.shape
    for i in range(3):
        assert torch.equal(ax[i, 0], operator.forward(x[i, 0]))
        assert torch.equal(aty[i, 0], operator.adjoint(y[i, 0]))
    backwards = x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert not backwards.is_contiguous() and torch.equal(operator.forward(backwards), ax)
    backwards = y.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert torch.equal(operator.adjoint(backwards), aty)


def test_gradient_of_the_operator_is_its_adjoint(backend):
    operator = tiny(backend)
    x = normal(2, 1, *operator.domain_shape).requires_grad_()
    y = normal(2, 1, *operator.range_shape, seed=1)
    (operator(x) * y).sum().backward()
    assert torch.equal(x.grad, operator.adjoint(y))


def test_gradient_agrees_with_finite_differences():
    operator = ConeBeam(scan(ANGLES[:2], 4, 3), Grid((3, 4, 2), (1.5, 1.2, 2.0), (0.6, -0.8, 1.0)), "torch")
    x = normal(1, 1, *operator.domain_shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(operator, x.requires_grad_())


@pytest.mark.parametrize("chunk", [1, 60, 100])
def test_rays_handled_in_parts_add_up_to_the_same(monkeypatch, chunk):
    operator = tiny()
    x, y = normal(*operator.domain_shape), normal(*operator.range_shape)
    ax, aty = operator.forward(x), operator.adjoint(y)
    monkeypatch.setattr(cone_beam_torch, "CHUNK", chunk)
    torch.testing.assert_close(operator.forward(x), ax)
    torch.testing.assert_close(operator.adjoint(y), aty)


def test_double_precision_never_goes_through_single_precision(backend):
    operator = tiny(backend)
    x, y = normal(*operator.domain_shape, dtype=torch.float64), normal(*operator.range_shape, dtype=torch.float64)
    assert torch.equal(operator.forward(x), tiny("torch").forward(x))
    assert torch.equal(operator.adjoint(y), tiny("torch").adjoint(y))


def test_without_numba_torch_takes_its_place_unless_numba_was_asked_for(monkeypatch):
    x, expected = normal(4, 5, 3), tiny("torch").forward(normal(4, 5, 3))
    monkeypatch.setattr(cone_beam, "has", lambda package: False)
    assert torch.equal(tiny("auto").forward(x), expected)
    with pytest.raises(
        ImportError, match=r'needs numba \(the extra \[ct\]\): pip install numba, or use backend "torch"'
    ):
        tiny("numba")


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_other_beams_are_referred_to_their_operator(beam):
    with pytest.raises(ValueError, match=f"for a \"cone\" beam, got '{beam}': use SparseRadon"):
        ConeBeam(replace(scan(), beam=beam), Grid((4, 5, 3), (1.0, 1.0, 1.0)))


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="backend must be one of .* got 'cuda'"):
        tiny("cuda")


@pytest.mark.parametrize(
    ("distances", "room"),
    [
        ({"source_to_isocenter": 7.0, "source_to_detector": 100.0}, "7 mm"),
        ({"source_to_isocenter": 93.0, "source_to_detector": 100.0}, "7 mm"),
        ({"source_to_isocenter": (90.0, 90.0, 90.0, 95.0, 90.0), "source_to_detector": 100.0}, "5 mm"),
    ],
    ids=["source", "detector", "detector in one view"],
)
def test_a_volume_that_reaches_source_or_detector_is_refused(distances, room):
    with pytest.raises(ValueError, match=f"volume reaches 7 mm from the isocenter, .* as close as {room}"):
        ConeBeam(scan(**distances), Grid((10, 10, 3), (1.0, 1.0, 1.0)))


def test_other_shapes_are_refused():
    operator = tiny()
    with pytest.raises(ValueError, match=r"ConeBeam expects a volume of shape \(\.\.\., 4, 5, 3\), got \(3, 5, 4\)"):
        operator.forward(torch.zeros(3, 5, 4))
    with pytest.raises(ValueError, match=r"expects a set of projections of shape \(\.\.\., 5, 7, 5\), got \(5, 7\)"):
        operator.adjoint(torch.zeros(5, 7))


def rtk_projections(geometry, grid, volume):
    """The same projections by the Reconstruction Toolkit, whose axes (X, Y, Z) are our (x, z, -y)."""
    # The modules themselves, as `itk.RTK` loads all of ITK first.
    joseph = pytest.importorskip("itk.rtkJosephForwardProjectionImageFilterPython")
    itk = importlib.import_module("itk")
    circle = importlib.import_module(
        "itk.rtkThreeDCircularProjectionGeometryPython"
    ).rtkThreeDCircularProjectionGeometry

    def image(array, spacing, origin):  # arrays are indexed from the last axis to the first
        out = itk.image_from_array(np.ascontiguousarray(array, dtype=np.float32))
        out.SetSpacing(list(spacing))
        out.SetOrigin(list(origin))
        return out

    x, y, z = (grid.coordinates(a) for a in range(3))
    views, columns, rows = geometry.range_shape
    sizes = (geometry.column_size, geometry.row_size)
    corner = (-(columns - 1) / 2 * sizes[0], -(rows - 1) / 2 * sizes[1])
    gantry = circle.New()
    values = {name: geometry.per_view(name).tolist() for name in MOVING}
    for i, angle in enumerate(geometry.angles):
        iso, det, across, up, source_across, source_up = (values[name][i] for name in MOVING)
        gantry.AddProjection(iso, det, angle, across, up, 0.0, 0.0, source_across, source_up)
    projector = joseph.rtkJosephForwardProjectionImageFilterIF3IF3.New()
    projector.SetInput(0, image(np.zeros((views, rows, columns)), (*sizes, 1.0), (*corner, 0.0)))
    turned = volume.flip(1).permute(1, 2, 0).numpy()
    spacing = (grid.spacing[0], grid.spacing[2], grid.spacing[1])
    projector.SetInput(1, image(turned, spacing, (float(x[0]), float(z[0]), -float(y[-1]))))
    projector.SetGeometry(gantry)
    projector.Update()
    return torch.from_numpy(itk.array_from_image(projector.GetOutput())).permute(0, 2, 1)


@pytest.mark.slow
def test_projections_agree_with_those_of_the_reconstruction_toolkit(backend):
    geometry = scan(columns=40, rows=30, size=3.5, **MOVING)
    grid = Grid((24, 20, 22), (2.0, 2.5, 2.2), (3.0, -4.0, 5.0))
    x, y, z = torch.meshgrid(*[grid.coordinates(a) for a in range(3)], indexing="ij")
    ball = torch.exp(-(((x - 6) / 6) ** 2) - ((y + 8) / 6) ** 2 - ((z - 2) / 7) ** 2 - (x - 6) * (z - 2) / 50).float()
    expected = rtk_projections(geometry, grid, ball)
    assert (ConeBeam(geometry, grid, backend).forward(ball) - expected).abs().max() < 1e-3 * expected.max()
