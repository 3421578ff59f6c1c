"""Slice-consistent diffusion reconstruction of 3-D medical volumes."""

import warnings
from importlib import import_module
from types import SimpleNamespace

__version__ = "0.5.0"

MOVED = {
    "attenuation": ("physics.ct",),
    "baselines": ("physics.baselines",),
    "data_consistency": ("sampling",),
    "dicom_input": ("files.read",),
    "inferers": ("sampling",),
    "inputs": ("files.find", "files.check", "files.cases", "physics.ct"),
    "intensity": ("physics.thick",),
    "kspace": ("physics.kspace",),
    "markov_noise": ("noise",),
    "network": ("prior",),
    "noise_choice": ("noise",),
    "noise_length": ("noise",),
    "patches": ("prior.patches",),
    "posterior_steps": ("sampling",),
    "projections": ("physics.ct",),
    "training": ("prior.training",),
    "trajectory": ("sampling",),
    "variance_exploding": ("prior.variance_exploding",),
    "weights": ("prior.weights",),
}
"""Modules that overlays of version 0.4.0 name, and where what they held is now; good for one version."""


def __getattr__(name: str) -> SimpleNamespace:
    """`bundle.data_consistency.NullSpace` in an overlay is found where it has moved to."""
    if name not in MOVED:
        raise AttributeError(f"module 'bundle' has no attribute {name!r}")
    rooms = [f"bundle.{room}" for room in MOVED[name]]
    warnings.warn(f"bundle.{name} is in {', '.join(rooms)} now: correct the overlay", FutureWarning, stacklevel=2)
    return SimpleNamespace(**{n: value for room in rooms for n, value in vars(import_module(room)).items()})
