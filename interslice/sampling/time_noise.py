"""Seeds of the volumes of a series.

    same     seed for all: x_a - x_b = f(y_a, noise) - f(y_b, noise), and what noise does to first order cancels
    own      h(seed, number of the volume), of volume 0 the seed itself: independent errors, less in means over time

The number is that in the file: a volume that is reconstructed alone is what it is within its series.
"""

from __future__ import annotations

import hashlib

from monai.data import MetaTensor

from interslice.files.source import source_of

TIME_NOISE = ("same", "own")
BYTES = 7
"""Of a hash: seeds are below 2^63."""


def seed_of(seed: int, measurement: MetaTensor) -> int:
    """The seed of a measurement that has one of its own."""
    point = source_of(measurement).time
    if point is None or point.index == 0:
        return seed
    told = hashlib.blake2b(f"{seed} {point.index}".encode(), digest_size=BYTES)
    return int.from_bytes(told.digest(), "big")
