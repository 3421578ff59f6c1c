"""Batches of slices: of every size the same result, in whatever memory there is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.prior import batches
from interslice.prior.batches import CPU_BATCH, Batches, arithmetic, equal_parts
from interslice.prior.network import SliceUNet
from interslice.prior.slices import SlicePrior
from tests.support.helpers import BlurringDenoiser, alpha_bars, normal

AB = alpha_bars()
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Small:
    """A network on a device that has memory for so many slices."""

    def __init__(self, most, error=None):
        error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.most, self.error, self.network, self.tried = most, error, BlurringDenoiser(AB), []

    def __call__(self, x, t):
        self.tried.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.network(x, t)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("most", [1, 3, 8])
def test_where_memory_runs_out_batches_are_halved_and_go_on(axis, most):
    x_t, prior, network = normal(9, 13, 17), SlicePrior(AB, 16), Small(most)
    expected = SlicePrior(AB, 1)(network.network, x_t, 200, axis)
    assert torch.allclose(prior(network, x_t, 200, axis), expected, atol=1e-6)
    failed = [n for n in network.tried if n > most]
    assert failed == [min(16, x_t.shape[axis]), *failed[1:]] and len(failed) <= math.ceil(math.log2(17))
    again = len(network.tried)
    prior(network, x_t, 200, axis)
    assert max(network.tried[again:]) <= most  # what was found out is kept


def test_a_gradient_is_halved_on_its_own():
    def network(x, t):
        if x.requires_grad and len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.sin(x)

    x_t, v, prior = normal(6, 5, 4), normal(6, 5, 4, seed=1), SlicePrior(AB, 6, multiple=1)
    expected = SlicePrior(AB, 1, multiple=1).pull_back(network, x_t, 200, 0, v)
    assert torch.allclose(prior.pull_back(network, x_t, 200, 0, v), expected, atol=1e-6)
    prior(network, x_t, 200, 0)
    assert prior.calls == 2 + 3 + 1  # of 6 and of 3 slices in vain, then of 2; and all at once without a gradient


def test_one_slice_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        SlicePrior(AB, 8)(Small(0), normal(9, 13, 17), 200, 0)


def test_other_errors_are_not_tried_again():
    network = Small(1, RuntimeError("sizes do not match"))
    with pytest.raises(RuntimeError, match="do not match"):
        SlicePrior(AB, 8)(network, normal(9, 13, 17), 200, 0)
    assert network.tried == [8]


def test_the_memory_of_a_machine_runs_out_in_words():
    network = Small(2, RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"))
    SlicePrior(AB, 8)(network, normal(9, 13, 17), 200, 0)
    assert max(network.tried[2:]) == 2


@given(count=st.integers(1, 2000), free=st.floats(1.0, 1e5))
def test_on_a_gpu_a_batch_fills_the_share_of_its_memory(monkeypatch_free, count, free):
    monkeypatch_free(free)
    size = Batches().of(count, CUDA, ("x",), lambda n: 2.0 * n)
    most = max(1, int(batches.SHARE * free / 2.0))
    assert 1 <= size <= max(1, min(most, count))
    parts = math.ceil(count / size)
    assert parts == math.ceil(count / most)  # as few as fit
    assert parts * size - count < parts  # of one size, but for the last


@pytest.fixture(scope="module")
def monkeypatch_free():
    patch = pytest.MonkeyPatch()
    yield lambda free: patch.setattr(batches, "available_memory", lambda device: free)
    patch.undo()


def test_on_a_cpu_it_does_not_depend_on_the_memory():
    assert Batches().of(100, CPU, ("x",), lambda n: 1e30) == CPU_BATCH
    assert equal_parts(0, 5) == 1


def test_precision_is_that_of_the_network_alone_and_given_back():
    network = SliceUNet(channels=(8, 16), norm_num_groups=4).eval()
    torch.manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    x_t, before = normal(3, 16, 16), torch.backends.cudnn.conv.fp32_precision
    full, half = (SlicePrior(AB, precision=name)(network, x_t, 200, 0) for name in ("float32", "bfloat16"))
    assert half.dtype == torch.float32
    error = float((full - half).norm() / full.norm())
    assert 1e-6 < error < 0.05
    by_itself = SlicePrior(AB)(network, x_t, 200, 0)
    assert torch.equal(by_itself, half if batches.multiplies_bfloat16() else full)
    assert torch.backends.cudnn.conv.fp32_precision == before and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("has", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_takes_bfloat16_where_it_multiplies_it(has, chosen, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: has, raising=False)
    assert batches.chosen_precision(CPU) == chosen


def test_on_a_gpu_auto_is_tf32():
    seen = {}
    for name in ("auto", "float32", "tf32"):
        with arithmetic(name, CUDA):
            seen[name] = torch.backends.cudnn.conv.fp32_precision
    assert seen == {"auto": "tf32", "float32": "ieee", "tf32": "tf32"}


@pytest.mark.slow
def test_a_compiled_network_is_compiled_once_for_all_sizes():
    from interslice.prior.device import placed

    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    network = SliceUNet(channels=(8, 16), norm_num_groups=4).eval()
    x_t = normal(12, 20, 28)
    eager = [SlicePrior(AB)(network, x_t, 200, axis) for axis in range(3)]
    network = placed(network, "cpu")
    network.compile(dynamic=True, backend=backend)
    with torch.no_grad():
        for axis in range(3):
            assert torch.allclose(SlicePrior(AB, 5)(network, x_t, 200, axis), eager[axis], atol=1e-5)
    assert len(compiled) == 1
