"""Slice-consistent diffusion reconstruction of 3-D medical volumes."""

import warnings
from importlib import import_module

__version__ = "0.5.0"

MOVED = {
    "attenuation": "physics.ct",
    "baselines": "physics.baselines",
    "data_consistency": "sampling",
    "inferers": "sampling",
    "intensity": "physics.thick",
    "kspace": "physics.kspace",
    "markov_noise": "noise",
    "network": "prior",
    "noise_choice": "noise",
    "noise_length": "noise",
    "posterior_steps": "sampling",
    "projections": "physics.ct",
    "trajectory": "sampling",
    "variance_exploding": "prior.variance_exploding",
}
"""Modules that overlays of version 0.4.0 name, and where what they held is now; good for one version."""


def __getattr__(name: str):
    """`bundle.data_consistency.NullSpace` in an overlay is found where it has moved to."""
    if name not in MOVED:
        raise AttributeError(f"module 'bundle' has no attribute {name!r}")
    warnings.warn(f"bundle.{name} has moved to bundle.{MOVED[name]}: correct the overlay", FutureWarning, stacklevel=2)
    return import_module(f"bundle.{MOVED[name]}")
