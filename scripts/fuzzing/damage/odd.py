"""Odd values: what a field may hold that nobody meant to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")
Damage = Callable[[np.random.Generator, Path], str]
"""Changes an input in place, and says how."""
WORDS = (
    "0", "-1", "1", "2", "nan", "inf", "-inf", "1e308", "-1e-308", "1e-30", "65536", "2147483648",
    "99999999999999999999", "0.5", "3.999", "", " ", "x", "None", "true", "1,2", "1 2 3 4 5 6 7", "[1]", "{}",
    "é\x00", "0x10", "../..",
    "a" * 300,
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 255, 0.5, -0.0, 1e-30, 1e9, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"))
VALUES = (
    *NUMBERS, None, True, False, "", "x", "1", [], [1], [[1, 2], [3]], {}, {"a": 1}, 10**30, ["x"], [None], "é" * 40,
)  # fmt: skip
"""Of JSON; NaN and infinity as Python writes them."""


def pick(rng: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    """One of them, as it is."""
    return choices[int(rng.integers(len(choices)))]


def odd_word(rng: np.random.Generator, old: str) -> str:
    """An odd value in the place of a text: one that stands alone, or the old one with a word changed."""
    words = old.split()
    if len(words) > 1 and rng.random() < 0.5:
        at = int(rng.integers(len(words)))
        changes = (lambda: words.pop(at), lambda: words.insert(at, words[at]), lambda: words.reverse(),
                   lambda: words.__setitem__(at, pick(rng, WORDS)))  # fmt: skip
        pick(rng, changes)()
        return " ".join(words)
    if old.lstrip("-").isdigit() and rng.random() < 0.4:
        return str(int(old) + int(rng.choice([-1, 1, 1000, -2 * int(old)])))
    return pick(rng, WORDS)


def set_element(rng: np.random.Generator, array: np.ndarray) -> str:
    """Set one number of an array to an odd one, as far as its type can hold it; in words."""
    at = tuple(int(rng.integers(n)) for n in array.shape)
    old = array[at]
    near = rng.random() < 0.3
    with np.errstate(all="ignore"):
        if array.dtype.kind == "S":
            value = rng.bytes(array.dtype.itemsize)
        elif array.dtype.kind in "iu":
            limits = np.iinfo(array.dtype)
            value = int(old) + pick(rng, (-1, 1)) if near else pick(rng, (0, 1, 2, limits.min, limits.max, -1, 300, 7))
            value = min(max(value, limits.min), limits.max)
        else:
            value = old * pick(rng, (0.99, 1.01, -1, 1e3)) if near else pick(rng, NUMBERS)
        array[at] = value
    return f"{list(at)} = {value!r}" if at else f"{value!r}"


def odd_voxels(rng: np.random.Generator, values: np.ndarray) -> tuple[np.ndarray, str]:
    """An array of odd values, or of another type or shape."""
    some = rng.random(values.shape) < pick(rng, (0.001, 0.3, 1.0))
    changes = {
        "NaN in some": lambda: np.where(some, np.nan, values),
        "Inf in some": lambda: np.where(some, np.inf, values),
        "1e38 in some": lambda: np.where(some, 1e38, values),
        "-32768 in some": lambda: np.where(some, -32768, values),
        "all 0": lambda: np.zeros_like(values),
        "all 5": lambda: np.full_like(values, 5),
        "times 1e-30": lambda: values * 1e-30,
        "times 1e30": lambda: values * 1e30,
        "negative": lambda: -values,
        "complex": lambda: values.astype(np.complex64),
        "bool": lambda: (values > 100).astype(np.uint8),
        "int8": lambda: values.astype(np.int8),
        "uint64": lambda: np.abs(values).astype(np.uint64),
        "int32": lambda: values.astype(np.int32),
        "float64": lambda: values.astype(np.float64),
        "big-endian": lambda: values.astype(values.dtype.newbyteorder(">")),
        "first plane alone": lambda: values[..., 0],
        "one plane": lambda: values[..., :1],
        "one voxel": lambda: values[:1, :1, :1],
        "an axis more": lambda: np.stack([values, values], -1),
        "two axes more": lambda: np.stack([np.stack([values, values], -1)] * 3, -1),
        "an axis of one more": lambda: values[..., None],
        "no voxels": lambda: values[:0],
        "axes turned": lambda: np.ascontiguousarray(values.T),
        "one column": lambda: values[:, :1],
    }
    name = pick(rng, tuple(changes))
    with np.errstate(all="ignore"):
        return changes[name](), f"voxels: {name}"
