"""Parts of a volume along the axes on which an operator acts alone: measured and solved as in the whole, cut out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics import LinearOperator
from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.physics.kspace import CartesianMRI
from interslice.physics.linear_solvers import conjugate_gradient
from interslice.physics.thick import ThroughPlaneSampling
from tests.support.helpers import normal, repeatable

SHAPE = (6, 5, 7)
DISTANCES = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}


def radon(beam, model):
    distances = DISTANCES if beam == "fan" else {}
    geometry = ScanGeometry(
        beam, (0.0, 17.0, 95.0, 160.0), 9, 2.0, SHAPE[2], 1.5, column_offset=0.7, row_offset=3.0, **distances
    )
    return SparseRadon(geometry, Grid(SHAPE, (1.5, 1.2, 1.5), (0.6, -0.8, 3.0)), model, background=-1.0)


def kspace(mask):
    return CartesianMRI(torch.view_as_complex(normal(2, *SHAPE[::-1], 2)), mask)


def thick(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 2.5
    return ThroughPlaneSampling(axis=axis, gap=0.5).for_scan(SHAPE, tuple(spacing))


POINTS = normal(SHAPE[2], 8, 6) > 0.3
POINTS[2] = False  # nothing is measured of one slice
OPERATORS = {
    "parallel": radon("parallel", "joseph"), "fan": radon("fan", "strip"),
    "lines": kspace((normal(8, seed=1) > 0)[:, None].expand(8, 7)), "points of each slice": kspace(POINTS),
    "lines of each slice": kspace((normal(SHAPE[2], 1, 6, seed=2) > 0).expand(SHAPE[2], 6, 6)),
    "thick 0": thick(0), "thick 1": thick(1), "thick 2": thick(2),
}  # fmt: skip
every_operator = pytest.mark.parametrize("name", OPERATORS)


def close(part, whole):
    """Equal but for rounding."""
    torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max() + 1))


def solved(part, whole):
    """Equal but for rounding, which conjugate gradients amplify."""
    torch.testing.assert_close(part, whole, rtol=1e-7, atol=1e-7 * float(whole.abs().max() + 1))


def data(operator, seed=0):
    x = normal(*operator.domain_shape, seed=seed, dtype=torch.float64)
    return x, normal(*operator.range_shape, seed=seed + 1, dtype=torch.float64)


@st.composite
def parts(draw, shape=None):
    """(operator, box) with a random box across its separable axes."""
    operator = OPERATORS[draw(st.sampled_from(sorted(OPERATORS)))]
    return operator, draw(boxes(operator))


def boxes(operator):
    def along(axis, n):
        if axis not in operator.separable_axes:
            return st.just(slice(None))
        return st.integers(0, n - 1).flatmap(lambda begin: st.integers(begin + 1, n).map(lambda end: slice(begin, end)))

    return st.tuples(*[along(axis, n) for axis, n in enumerate(operator.domain_shape)])


@repeatable
@given(case=parts(), seed=st.integers(0, 100))
def test_a_part_is_measured_as_in_the_whole(case, seed):
    operator, box = case
    part, there = operator.on(box), operator.range_box(box)
    x, y = data(operator, seed)
    assert part.domain_shape == tuple(x[box].shape) and part.range_shape == tuple(y[there].shape)
    close(part.forward(x[box]), operator.forward(x)[there])
    close(part.adjoint(y[there]), operator.adjoint(y)[box])
    close(part.normal(x[box], 0.3), operator.normal(x, 0.3)[box])
    close(part.linear_reconstruction(y[there]), operator.linear_reconstruction(y)[box])
    left, right = (part.forward(x[box]) * y[there]).sum(), (x[box] * part.adjoint(y[there])).sum()
    assert abs(left - right) <= 1e-12 * float(x[box].norm() * y[there].norm()) * operator.norm
    assert part.norm == operator.norm and type(part) is type(operator)


@repeatable
@given(case=parts(), draw=st.data())
def test_a_part_of_a_part_is_a_part(case, draw):
    operator, box = case
    part = operator.on(box)
    inner = draw.draw(boxes(part))
    begins = [s.indices(n)[0] for s, n in zip(box, operator.domain_shape)]
    joined = tuple(slice(b + s.indices(n)[0], b + s.indices(n)[1]) for b, s, n in zip(begins, inner, part.domain_shape))
    one, other = part.on(inner), operator.on(joined)
    x, y = data(one)
    close(one.forward(x), other.forward(x))
    close(one.adjoint(y), other.adjoint(y))
    assert one.range_shape == other.range_shape and one.norm == operator.norm
    whole = data(operator)[1]
    assert torch.equal(whole[operator.range_box(box)][part.range_box(inner)], whole[operator.range_box(joined)])


@repeatable
@given(case=parts(), rho=st.sampled_from([0.0, 0.1]), iterations=st.integers(1, 12), seed=st.integers(0, 100))
def test_what_is_solved_of_a_part_does_not_depend_on_the_rest(case, rho, iterations, seed):
    operator, box = case
    part, there = operator.on(box), operator.range_box(box)
    x, y = data(operator, seed)
    # What lies elsewhere is far larger: one system of all would know.
    inside = torch.zeros(operator.domain_shape, dtype=torch.bool)
    inside[box] = True
    x = torch.where(inside, x, 1e3 * x)
    for tolerance in (1e-2, 1e-5):
        whole = operator.conjugate_gradient(x, y, rho, iterations, tolerance)[box]
        found = part.conjugate_gradient(x[box], y[there], rho, iterations, tolerance)
        solved(found, whole)
    for found, whole in (
        (part.pseudo_inverse(y[there]), operator.pseudo_inverse(y)[box]),
        (part.prox(x[box], y[there], 0.5), operator.prox(x, y, 0.5)[box]),
    ):
        solved(found, whole)


@every_operator
def test_in_single_precision_a_part_is_solved_alike(name):
    operator = OPERATORS[name]
    x, y = (values.float() for values in data(operator))
    rho = 0.01 * operator.norm**2
    whole = operator.conjugate_gradient(x, y, rho, 10, 0.0)
    for begin in range(2):
        box = tuple(slice(begin, 4) if a in operator.separable_axes else slice(None) for a in range(3))
        found = operator.on(box).conjugate_gradient(x[box], y[operator.range_box(box)], rho, 10, 0.0)
        torch.testing.assert_close(found, whole[box], rtol=0, atol=1e-3 * float(whole.abs().max()))


@every_operator
def test_a_volume_of_a_batch_is_solved_as_alone(name):
    operator = OPERATORS[name]
    x, y = (
        torch.stack([data(operator)[0], 50 * data(operator, 3)[0]]),
        torch.stack([data(operator, s)[1] for s in (0, 5)]),
    )
    both = operator.conjugate_gradient(x, y, 0.1, 4, 1e-3)
    for i in range(2):
        close(operator.conjugate_gradient(x[i], y[i], 0.1, 4, 1e-3), both[i])


def test_a_coupled_volume_is_one_system():
    geometry = ScanGeometry("cone", (10.0, 77.0, 143.0), 7, 3.0, 5, 3.0, **DISTANCES)
    operator = ConeBeam(geometry, Grid((4, 5, 3), (1.5, 1.2, 2.0)), "torch")
    x, y = data(operator)
    expected = conjugate_gradient(lambda z: operator.normal(z, 0.1), operator.adjoint(y) + 0.1 * x, x, 3, 0.0)
    assert operator.separable_axes == ()
    torch.testing.assert_close(operator.conjugate_gradient(x, y, 0.1, 3, 0.0), expected)
    for refused in (operator.on, operator.range_box):
        with pytest.raises(ValueError, match="ConeBeam cannot be restricted to a part of the volume"):
            refused((slice(None), slice(None), slice(1)))


@every_operator
def test_nothing_is_built_again(name, monkeypatch):
    operator = OPERATORS[name]
    x, _ = data(operator)
    operator.forward(x)
    monkeypatch.setattr(type(operator), "__init__", lambda *_: pytest.fail("built again"))
    box = tuple(slice(1, 3) if axis in operator.separable_axes else slice(None) for axis in range(3))
    part = operator.on(box)
    shared = "_placed" if isinstance(operator, CartesianMRI) else "_cast"
    mine, theirs = ([t for v in getattr(o, shared).values() for t in (v if isinstance(v, tuple) else [v])]
                    for o in (part, operator))  # fmt: skip
    assert len(mine) == len(theirs) > 0
    assert all(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() for a, b in zip(mine, theirs))


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_a_part_of_a_scan_stays_where_it_is(beam):
    whole = radon(beam, "joseph")
    part = whole.on((slice(None), slice(None), slice(2, 5)))
    torch.testing.assert_close(part.grid.coordinates(2), whole.grid.coordinates(2)[2:5])
    torch.testing.assert_close(part.geometry.rows, whole.geometry.rows[:, 2:5])
    corner = torch.tensor([0.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(part.domain_affine()[:, 3], whole.domain_affine() @ corner)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            (slice(0, 3), slice(None), slice(1)),
            "measures the 6 voxels along axis 0 together.*cut it across .* \\(2,\\)",
        ),
        ((slice(None), slice(None), slice(5, 5)), "nothing lies in 5:5 of the 7 voxels along axis 2"),
        ((slice(None), slice(None), slice(0, 7, 2)), "one slice without steps for each of its axes"),
        ((slice(None), slice(None)), "one slice without steps for each of its axes"),
    ],
)
def test_what_is_no_part_is_refused(box, message):
    for refused in (OPERATORS["parallel"].on, OPERATORS["parallel"].range_box):
        with pytest.raises(ValueError, match=message):
            refused(box)


def test_every_operator_states_its_axes():
    assert LinearOperator.separable_axes == ()
    assert {n: o.separable_axes for n, o in OPERATORS.items() if n.startswith("thick")} == {
        "thick 0": (1, 2), "thick 1": (0, 2), "thick 2": (0, 1)
    }  # fmt: skip
    assert all(o.separable_axes == (2,) for n, o in OPERATORS.items() if not n.startswith("thick"))
