"""The cone beam compiled for GPUs, here by Triton's interpreter on CPU tensors: the same matrix, and its transpose.

Triton is no development dependency, as its package takes hundreds of MB, and it comes with torch for CUDA: without it
these tests are skipped. With a GPU, those of tests/physics/test_devices.py run the compiled kernels.
"""

import importlib
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings

from interslice.physics.ct import ConeBeam, Grid, cone_beam, cone_beam_torch
from interslice.physics.ct.cone_beam import table_of
from tests.physics.ct.test_cone_beam import MOVING, scan, scans
from tests.support.helpers import dense, normal, repeatable

WITHOUT = "needs Triton, which comes with torch for CUDA and is too large for the development dependencies"
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason=WITHOUT)
NAME = "interslice.physics.ct.cone_beam_triton"


@pytest.fixture(scope="module")
def interpreted():
    """The module, its kernels run by Triton's interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, NAME, raising=False)
        yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def by_triton(operator, module):
    """(forward, adjoint) of a volume and of projections, by the kernels, whatever the device."""

    def forward(x):
        y = torch.zeros(operator.range_shape)
        for fans in operator._fans:
            module.project(fans, table_of(x.float(), fans.along), operator._rays(y)[0])
        return y

    def adjoint(y):
        x = torch.zeros(operator.domain_shape)
        for fans in operator._fans:
            table = table_of(torch.zeros(operator.domain_shape), fans.along)
            module.back_project(fans, operator._rays(y.float().contiguous())[0], table)
            x += table.view(x.transpose(1, 2).shape).transpose(1, 2) if fans.along == 2 else table.view(x.shape)
        return x

    return forward, adjoint


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    "others",
    [{}, {"detector": "curved"}, {"in_plane_angle": 20.0, "out_of_plane_angle": (10.0, 60.0)}],
    ids=["flat", "curved", "tilted"],
)
def test_the_matrix_is_that_of_torch_and_the_adjoint_its_transpose(interpreted, others):
    some = {name: values[:2] for name, values in MOVING.items()} | others
    operator = ConeBeam(scan((10.0, 77.0), 3, 2, **some), Grid((3, 2, 2), (1.5, 1.2, 2.0), (0.6, -0.8, 1.0)), "torch")
    forward, adjoint = by_triton(operator, interpreted)
    matrix = dense(operator.forward, operator.domain_shape)
    assert (matrix > 0).any(0).sum() >= 11  # of 12 voxels
    close = {"rtol": 0, "atol": 1e-6 * float(matrix.max())}
    torch.testing.assert_close(dense(forward, operator.domain_shape).double(), matrix, **close)
    torch.testing.assert_close(dense(adjoint, operator.range_shape).double(), matrix.T, **close)


@pytest.mark.slow
@needs_triton
@settings(repeatable, max_examples=4)
@given(case=scans())
def test_numba_agrees_and_the_adjoint_is_one(interpreted, case):
    pytest.importorskip("numba")
    operator = ConeBeam(*case, "numba")
    forward, adjoint = by_triton(operator, interpreted)
    x, y = normal(*operator.domain_shape, seed=1), normal(*operator.range_shape, seed=2)
    ax, aty = forward(x), adjoint(y)
    for found, method, values in ((ax, operator.forward, x), (aty, operator.adjoint, y)):
        assert (found - method(values)).abs().max() <= 2e-6 * max(1e-6, float(method(values.abs()).max()))
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= 1e-6 * float(ax.norm() * y.norm())


@pytest.mark.slow
@needs_triton
def test_rows_of_more_than_one_block(interpreted, monkeypatch):
    monkeypatch.setattr(interpreted, "BLOCK", 2)
    operator = ConeBeam(scan((10.0, 77.0), 3, 5), Grid((3, 4, 3), (1.5, 1.2, 2.0)), "torch")
    forward, adjoint = by_triton(operator, interpreted)
    x, y = normal(*operator.domain_shape), normal(*operator.range_shape)
    torch.testing.assert_close(forward(x), operator.forward(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(adjoint(y), operator.adjoint(y), rtol=1e-5, atol=1e-5)


@needs_triton
def test_it_is_tried_before_it_is_used(interpreted, monkeypatch):
    interpreted.works.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interpreted.works(torch.device("cpu"))
    interpreted.works.cache_clear()

    def broken(*_):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(interpreted, "project", broken)
    with pytest.warns(UserWarning, match="cannot be used on cpu .*Failed to find C compiler.*slower torch path"):
        assert not interpreted.works(torch.device("cpu"))
    assert not interpreted.works(torch.device("cpu"))  # said once
    interpreted.works.cache_clear()


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from interslice.physics.ct import cone_beam_triton as module

kinds = {"ray": "*i64", "table": "*fp32", "rays": "*fp32", "BLOCK": "constexpr"} | dict.fromkeys(module.COUNTS, "i32")
for capability, block in ((75, module.BLOCK), (90, module.BLOCK), (90, 1)):
    for kernel, additions in ((module._project, 0), (module._back_project, 4)):
        signature = {name: kinds.get(name, "*fp64") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs={"BLOCK": block})
        options = {"enable_fp_fusion": False, "num_warps": max(1, block // 32)}
        code = compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm
        assert len(code["cubin"]) > 0 and "fma.rn.f64" not in code["ptx"]
        assert code["ptx"].count("red.") == additions and "atom." not in code["ptx"]
print("compiled")
"""


@pytest.mark.slow
@needs_triton
def test_it_compiles_for_gpus_that_are_not_here(fresh_python, monkeypatch, tmp_path):
    """To machine code, with additions to memory that return nothing; in a process that the interpreter left alone."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert fresh_python(COMPILE).strip().splitlines()[-1] == "compiled"


class Somewhere:
    """What is asked of a tensor before a module is chosen for it."""

    def __init__(self, kind, dtype=torch.float32):
        self.device, self.dtype = torch.device(kind), dtype


@pytest.mark.parametrize(
    ("backend", "kind", "dtype", "there", "works", "expected"),
    [
        ("auto", "cuda", torch.float32, True, True, "triton"),
        ("triton", "cuda", torch.float32, True, True, "triton"),
        ("auto", "cuda", torch.float32, True, False, "torch"),
        ("auto", "cuda", torch.float32, False, True, "torch"),
        ("auto", "cuda", torch.float64, True, True, "torch"),
        ("torch", "cuda", torch.float32, True, True, "torch"),
        ("numba", "cuda", torch.float32, True, True, "torch"),
        ("triton", "cpu", torch.float32, True, True, "torch"),
        ("auto", "cpu", torch.float32, True, True, "numba"),
        ("auto", "meta", torch.float32, True, True, "torch"),
    ],
)
def test_which_device_takes_which_path(monkeypatch, backend, kind, dtype, there, works, expected):
    class Fake:
        def __init__(self, name):
            self.name = name

        def works(self, device):
            return works

    monkeypatch.setattr(cone_beam, "has", lambda package: there)
    monkeypatch.setattr(cone_beam.importlib, "import_module", Fake)
    operator = ConeBeam(scan(), Grid((4, 5, 3), (1.0, 1.0, 1.0)), backend)
    found = operator._implementation(Somewhere(kind, dtype))
    assert (found.__name__ if found is cone_beam_torch else found.name).endswith(f"cone_beam_{expected}")


def test_without_triton_it_is_refused_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(cone_beam, "has", lambda package: False)
    with pytest.raises(ImportError, match='needs triton: pip install triton, or use backend "torch"'):
        ConeBeam(scan(), Grid((4, 5, 3), (1.0, 1.0, 1.0)), "triton")
