"""The device that runs use by default: an NVIDIA or AMD GPU, Apple's where it computes what is needed, else the CPU.

Apple's GPUs (MPS in torch) have no float64, and what they do with products of integers of 64 bits, on which the keyed
noise stands, is not known here: nobody has run this project on one. So a device of theirs is asked to compute the same
small things as the CPU, and is taken only if it does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from interslice.noise.counter import box_muller, philox
from interslice.physics.linear_solvers import total

SEED = 0x9E3779B97F4A7C15
"""Uses all bits of both words of a key."""
ROUNDING = 1e-4


def best_device() -> torch.device:
    """CUDA (or ROCm) if there is any, else MPS if it is there and computes right, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available() and computes_right("mps"):
        return torch.device("mps")
    return torch.device("cpu")


def computes_right(device: torch.device | str) -> bool:
    """Whether noise, a convolution and a sum come out on a device as on the CPU; False if one cannot be done."""
    try:
        (words, numbers), (their_words, their_numbers) = samples("cpu"), samples(device)
        same = all(torch.equal(a, b.cpu()) for a, b in zip(words, their_words))
        near = all(torch.allclose(a, b.cpu().to(a.dtype), atol=ROUNDING) for a, b in zip(numbers, their_numbers))
    except (RuntimeError, TypeError, NotImplementedError, AssertionError):
        return False
    return same and near


def samples(device: torch.device | str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What must be the same on all devices, and what may differ by rounding."""
    first, second = torch.arange(257, device=device)[None], torch.arange(3, device=device)[:, None]
    words = philox(first, second, 0xFFFFFFFF, 1 << 8, SEED)
    normals = box_muller(words)
    image = normals[..., :2].movedim(-1, 0)[None].contiguous(memory_format=torch.channels_last)
    found = F.conv2d(image, torch.linspace(-1, 1, 36, device=device).reshape(2, 2, 3, 3), padding=1)
    return words, [normals, F.silu(F.group_norm(found, 1)), total(normals.clone(), (0, 1, 2))]
