"""Packages that make things faster, and that nobody has to have."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def has(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    return importlib.util.find_spec(name) is not None
