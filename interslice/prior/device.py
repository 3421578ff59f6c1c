"""The device that the network runs on: there, or refused before any work."""

from __future__ import annotations

import torch

from interslice.files.root_cause import root_cause
from interslice.files.switch import is_on
from interslice.usage import UsageError


def prefer_speed(device: torch.device | str) -> None:
    """On a GPU, let cuDNN time its algorithms and take the fastest: what it adds up then differs by rounding."""
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True


def check_device(device: torch.device | str) -> None:
    """Compute something on `device`.

    Raises:
        UsageError: torch knows no such device, or this machine has none that works.
    """
    try:
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        why = root_cause(error).splitlines()[0].rstrip(".")
        raise UsageError(f"device {device} cannot be used ({why}): leave --device out, or give --device cpu") from None


def placed(network: torch.nn.Module, device: torch.device | str, compile: bool | str = False) -> torch.nn.Module:
    """The network on a device, its weights channels last.

    Args:
        compile: a switch: compile it, at its first call and once for all sizes of slices. That takes time: for many
            scans, or large ones.
    """
    network = network.to(device=device, memory_format=torch.channels_last)
    if is_on(compile, "compile"):
        network.compile(dynamic=True)
    return network
