"""The default device: Apple's GPUs are asked for the CPU's answers before they are used. None is here: fakes answer."""

import json

import pytest
import torch
from monai.bundle import ConfigParser

from interslice.physics import linear_solvers
from interslice.sampling import best_device as module
from interslice.sampling.best_device import best_device, computes_right
from tests.support.scans import ROOT


@pytest.fixture
def machine(monkeypatch):
    """A machine with these devices, whose MPS gives what `found` says."""

    def made(cuda, mps, found=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        real = module.samples
        if found is not None:
            monkeypatch.setattr(
                module, "samples", lambda device: real("cpu") if device == "cpu" else found(real("cpu"))
            )

    return made


def raise_(error):
    raise error


def test_cuda_comes_first_and_the_cpu_last(machine):
    machine(cuda=True, mps=True, found=lambda right: right)
    assert best_device() == torch.device("cuda")
    machine(cuda=False, mps=False)
    assert best_device() == torch.device("cpu")


def test_mps_is_used_where_it_computes_what_the_cpu_does(machine):
    machine(cuda=False, mps=True, found=lambda right: (right[0], [x + 1e-6 for x in right[1]]))
    assert best_device() == torch.device("mps")


@pytest.mark.parametrize(
    "found",
    [
        lambda right: ([right[0][0] ^ 1, *right[0][1:]], right[1]),  # a product of 64 bits that does not wrap
        lambda right: (right[0], [right[1][0], right[1][1] + 0.1, *right[1][2:]]),
        lambda right: (right[0], [x * float("nan") for x in right[1]]),
        lambda right: raise_(TypeError("Cannot convert a MPS Tensor to float64 dtype")),
        lambda right: raise_(NotImplementedError("not implemented for MPS")),
    ],
    ids=["words", "convolution", "nan", "float64", "missing"],
)
def test_mps_is_left_where_it_computes_something_else(found, machine):
    machine(cuda=False, mps=True, found=found)
    assert best_device() == torch.device("cpu")


def test_a_device_that_is_not_there_computes_nothing_right():
    assert computes_right("cpu")
    if not torch.backends.mps.is_available():
        assert not computes_right("mps")


def test_sums_are_as_wide_as_a_device_has_them():
    assert linear_solvers.widest(torch.device("cpu")) == linear_solvers.widest(torch.device("cuda")) == torch.float64
    assert linear_solvers.widest(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("name", ["inference", "train"])
def test_configs_take_it_by_default(name):
    config = json.loads((ROOT / f"configs/{name}.json").read_text(encoding="utf-8"))
    assert ConfigParser({"device": config["device"]}).get_parsed_content("device") == best_device()
