"""The laws of every operator on every device: the adjoint, the numbers of the CPU, parts, and what is solved."""

import pytest
import torch

from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.physics.kspace import CartesianMRI
from interslice.physics.thick import ThroughPlaneSampling
from tests.support.helpers import normal

SHAPE = (20, 18, 12)
GRID = Grid(SHAPE, (1.5, 1.2, 2.0), (0.6, -0.8, 1.0))
DISTANCES = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}
ANGLES = tuple(17.0 * i for i in range(14))


def scan(beam, **others):
    rows = {"cone": 9}.get(beam, SHAPE[2])
    return ScanGeometry(
        beam, ANGLES, 21, 2.2, rows, 2.0, column_offset=0.7, **({} if beam == "parallel" else DISTANCES)
    )


def kspace(mask):
    return CartesianMRI(torch.view_as_complex(normal(3, *SHAPE[::-1], 2)), mask)


OPERATORS = {
    "parallel": lambda: SparseRadon(scan("parallel"), GRID, "joseph"),
    "fan": lambda: SparseRadon(scan("fan"), GRID, "strip"),
    "cone": lambda: ConeBeam(scan("cone"), GRID),
    "cone, torch": lambda: ConeBeam(scan("cone"), GRID, "torch"),
    "k-space, lines": lambda: kspace((normal(22, seed=1) > 0)[:, None].expand(22, 20)),
    "k-space, points": lambda: kspace(normal(SHAPE[2], 18, 20) > 0.3),
    "thick slices": lambda: ThroughPlaneSampling(axis=2, gap=0.5).for_scan((20, 18, 4), (1.0, 1.0, 2.5)),
}


@pytest.fixture(params=[
    "cpu",
    pytest.param("cuda", marks=pytest.mark.cuda),
])  # fmt: skip
def device(request):
    return request.param


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


def data(operator, device, dtype=torch.float32):
    x, y = normal(*operator.domain_shape, dtype=dtype), normal(*operator.range_shape, seed=1, dtype=dtype)
    return x.to(device), y.to(device)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("positive", [False, True])
def test_dot_test(operator, device, dtype, tolerance, positive):
    x, y = data(operator, device, dtype)
    if positive:
        x, y = x.abs(), y.abs()
    ax, aty = operator.forward(x), operator.adjoint(y)
    assert ax.dtype == aty.dtype == dtype and ax.device == aty.device == x.device
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= tolerance * float(ax.norm() * y.norm())


def test_the_numbers_are_those_of_double_precision_on_the_cpu(operator, device):
    x, y = data(operator, device)
    exact_x, exact_y = x.double().cpu(), y.double().cpu()
    for found, exact, largest in (
        (operator.forward(x), operator.forward(exact_x), operator.forward(exact_x.abs())),
        (operator.adjoint(y), operator.adjoint(exact_y), operator.adjoint(exact_y.abs())),
        (operator.normal(x, 0.3), operator.normal(exact_x, 0.3), operator.normal(exact_x.abs(), 0.3)),
    ):
        assert (found.double().cpu() - exact).abs().max() <= 5e-6 * float(largest.abs().max())
    found, exact = operator.linear_reconstruction(y).double().cpu(), operator.linear_reconstruction(exact_y)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


def test_parts_and_what_is_solved(operator, device):
    x, y = data(operator, device)
    rho = 0.1 * operator.norm**2
    whole = operator.conjugate_gradient(x, y, rho, 12, 1e-4)
    assert whole.device == x.device
    exact = operator.conjugate_gradient(x.double().cpu(), y.double().cpu(), rho, 12, 1e-4)
    torch.testing.assert_close(whole.double().cpu(), exact, rtol=0, atol=2e-3 * float(exact.abs().max()))
    if not operator.separable_axes:
        return
    box = tuple(slice(1, 4) if axis in operator.separable_axes else slice(None) for axis in range(3))
    part, there = operator.on(box), operator.range_box(box)
    scale = float(operator.norm * x.abs().max())
    torch.testing.assert_close(part.forward(x[box]), operator.forward(x)[there], rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(part.adjoint(y[there]), operator.adjoint(y)[box], rtol=0, atol=1e-5 * scale)
    found = part.conjugate_gradient(x[box], y[there], rho, 12, 1e-4)
    torch.testing.assert_close(found, whole[box], rtol=0, atol=1e-3 * float(whole.abs().max()))


@pytest.mark.cuda
def test_nothing_is_copied_or_waited_for_while_it_is_solved(operator):
    """Once the tables lie on the GPU; `prox` of thick slices makes its matrix of the weight first."""
    x, y = data(operator, "cuda")
    operator.conjugate_gradient(x, y, 1.0, 2, 0.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        operator.conjugate_gradient(x, y, 1.0, 7, 1e-5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
