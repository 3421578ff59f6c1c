"""Where the bundle lies that this package is of: its configs, its weights and the embedded scans.

In a checkout, and in an unpacked bundle, the package stands beside them. An installed package carries them inside of
itself (pyproject.toml puts them there).
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """The folder that holds `configs/`, `models/` and `sample_data/`."""
    return PACKAGE / "share" if is_installed() else PACKAGE.parent


def is_installed() -> bool:
    """Whether the package carries its bundle inside, and so was installed."""
    return (PACKAGE / "share" / "configs").is_dir()
