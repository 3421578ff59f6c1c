"""Memory in words: what a step of the work holds at once, as bytes by the name of what holds them.

    {"network": 1.2e9, "volumes": 3.4e8, ...}

Parts of the bundle state theirs (`working_bytes`) without taking any of it. Volumes are counted as float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Parts = dict[str, float]
FLOAT = 4
"""Bytes of a number."""


def array_bytes(shape: Sequence[int]) -> float:
    """Of a float32 array."""
    return float(FLOAT * math.prod(shape))


def largest(*steps: Parts) -> Parts:
    """That of the steps, taken one after the other, that holds most."""
    return max(steps, key=lambda parts: sum(parts.values()))


def with_more(parts: Parts, **more: float) -> Parts:
    """The parts and more, of which those of a name add up."""
    return parts | {name: parts.get(name, 0.0) + number for name, number in more.items()}
