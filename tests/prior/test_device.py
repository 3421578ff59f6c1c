"""A device that does not compute is refused before any work."""

import pytest
import torch

from interslice.prior.device import check_device
from interslice.usage import UsageError


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_that_computes_passes(device):
    check_device(device)


@pytest.mark.parametrize("device", ["x", "cuda:99", "meta", 5.5, "", torch.device("cuda:99")])
def test_other_devices_are_refused(device):
    with pytest.raises(UsageError, match=r"device .* cannot be used \(.+\): leave --device out, or give --device cpu"):
        check_device(device)
