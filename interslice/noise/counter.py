"""Standard normal numbers as a function of their key and place, on any device, in torch's own arithmetic.

    words = Philox4x32-10(counter, key)        four words of 32 bits, a function of the counter (4 words) and key (2)
    z_0 = sqrt(-2 log u_0) cos(2 pi u_1),   z_1 = sqrt(-2 log u_0) sin(2 pi u_1),   u = (word + 1/2) / 2^32

Ten rounds of multiplications mix a counter so well that counters can simply count (Salmon, Moraes, Dror, Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011); words become normals by Box and Muller (1958). Element e of
draw `index` takes lane e mod 4 of the counter (e div 4, index, step, purpose), the seed is the key; the fourth word has
what is beyond 32 bits of the step in its higher part. So a number depends
on nothing else: not on what is drawn beside it, nor in which order. Words are the same on all devices; logarithm,
cosine and sine differ by rounding.

Torch has no unsigned products of 32 bits, so words are held in 64: a product wraps at 2^64, which leaves all its bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from numbers import Integral
from typing import NamedTuple

import torch

WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
"""What the key grows by in each round: the golden ratio and sqrt(3) - 1, in 32 bits."""
ROUNDS = 10
CPU_BLOCKS = 1 << 16
"""Counters at once on a CPU, in words of 8 bytes: fewer cost more calls, more leave its caches."""
BLOCKS = 1 << 22
"""On other devices: they hold 0.3 GB of words at once."""
MAX_ELEMENTS = 4 << 32
"""Numbers in a draw, at most."""


class Purpose(IntEnum):
    """What a draw is for. Draws of different purposes are independent, whatever else they share."""

    RENOISE = 0
    """The fresh noise of x_s, and of the start."""
    DATA_STEP = 1
    """Noise that a data step asks of the field."""
    MEASUREMENT = 2
    """A data step's own draws, in the shape of the measurement."""


class Key(NamedTuple):
    """What a draw is a function of, together with its index."""

    seed: int
    step: int
    purpose: Purpose = Purpose.RENOISE


def keyed_normals(
    shape: Sequence[int], key: Key, indices: Sequence[int], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard normal float32 tensors, (len(indices), *shape): each a function of key and index alone.

    Args:
        key: seed from 0, below 2^63; step from 0, below 2^55.
        indices: of the draws, each from 0, below 2^32.

    Raises:
        ValueError: numbers outside of these, or more than 2^34 in a draw.
    """
    size = math.prod(shape)
    _check(key, indices, size)
    out = torch.empty(len(indices), size, device=device)
    blocks = math.ceil(size / 4)
    fourth = int(key.purpose) | key.step >> 32 << 8
    most = CPU_BLOCKS if out.device.type == "cpu" else BLOCKS
    rows = 1 if blocks == 0 else max(1, most // blocks)
    for first in range(0, len(indices), rows):
        part = numbers(tuple(indices[first : first + rows]), out.device)[:, None]
        for start in range(0, blocks, most):
            stop = min(start + most, blocks)
            counter = torch.arange(start, stop, device=device)[None]
            four = box_muller(philox(counter, part, key.step & WORD, fourth, key.seed))
            out[first : first + rows, 4 * start : 4 * stop] = four.flatten(1)[:, : size - 4 * start]
    return out.reshape(len(indices), *shape)


@lru_cache(maxsize=256)
def numbers(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A few whole numbers on a device, which are sent there once and not in every step."""
    return torch.tensor(values, dtype=torch.int64, device=device)


def keyed_normal(shape: Sequence[int], key: Key, index: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The draw of one index, of `shape`; see `keyed_normals`."""
    return keyed_normals(shape, key, [index], device)[0]


def philox(first: torch.Tensor, second: torch.Tensor, third: int, fourth: int, seed: int) -> list[torch.Tensor]:
    """The four words, int64 from 0 to 2^32 - 1, of counters (first, second, third, fourth) under the key `seed`.

    Args:
        first, second: int64 words; they broadcast.
        third, fourth: words.
        seed: of 64 bits: the low word of the key, then the high one.
    """
    keys = [seed & WORD, seed >> 32 & WORD]
    shape = torch.broadcast_shapes(first.shape, second.shape)
    c = [first, second, torch.full((1, 1), third, device=first.device), fourth]
    for _ in range(ROUNDS):
        low, high = (c[i] * m for i, m in ((0, MULTIPLIERS[0]), (2, MULTIPLIERS[1])))
        # The second and the fourth are not multiplied next: their high halves may wait for the mask of the xor.
        c = [
            (high >> 32).bitwise_xor(c[1]).bitwise_xor_(keys[0]).bitwise_and_(WORD), high,
            (low >> 32).bitwise_xor(c[3]).bitwise_xor_(keys[1]).bitwise_and_(WORD), low,
        ]  # fmt: skip
        keys = [(k + w) & WORD for k, w in zip(keys, WEYL)]
    return [(word & WORD).expand(shape) for word in c]


def box_muller(words: Sequence[torch.Tensor]) -> torch.Tensor:
    """Standard normals (..., 4), float32, of four words."""
    out = torch.empty(*words[0].shape, 4, device=words[0].device)
    for lane in (0, 2):
        u, turn = ((word.float() + 0.5).mul_(2.0**-32) for word in words[lane : lane + 2])
        radius, angle = u.log_().mul_(-2).sqrt_(), turn.mul_(2 * math.pi)
        torch.mul(radius, angle.cos(), out=out[..., lane])
        torch.mul(radius, angle.sin_(), out=out[..., lane + 1])
    return out


def _check(key: Key, indices: Sequence[int], size: int) -> None:
    limits = {"seed": 2**63, "step": 2**55, "purpose": 2**8}
    for name, value, limit in (*((n, getattr(key, n), m) for n, m in limits.items()), ("size", size, MAX_ELEMENTS),
                               *(("index", i, 2**32) for i in indices)):  # fmt: skip
        if not isinstance(value, Integral) or not 0 <= value < limit:
            raise ValueError(
                f"the {name} of a draw must be a whole number, not negative, below 2^{limit.bit_length() - 1}, "
                f"got {value!r}"
            )
