"""Slice-consistent diffusion reconstruction of 3-D medical volumes."""

import warnings
from importlib import import_module
from types import SimpleNamespace

__version__ = "0.10.0"

MOVED = {
    "adapters": ("sampling.adapters",),
    "attenuation": ("physics.ct",),
    "baselines": ("physics.baselines",),
    "data_consistency": ("sampling",),
    "dicom_input": ("files.read",),
    "dicom_output": ("files.dicom_write",),
    "diffusion": ("prior.diffusion",),
    "evidence": ("physics.evidence",),
    "html_report": ("report.page.write",),
    "inferers": ("sampling",),
    "inputs": ("files.find", "files.check", "files.cases", "physics.ct"),
    "intensity": ("physics.thick",),
    "kspace": ("physics.kspace",),
    "linear_solvers": ("physics.linear_solvers",),
    "markov_noise": ("noise",),
    "metrics": ("report.metrics",),
    "network": ("prior",),
    "noise_choice": ("noise",),
    "noise_length": ("noise",),
    "outputs": ("files.write", "files.restore"),
    "patches": ("prior.patches",),
    "posterior_steps": ("sampling",),
    "projections": ("physics.ct",),
    "run_record": ("files.run_record",),
    "save_results": ("files.save_results",),
    "step": ("sampling.step",),
    "total_variation": ("physics.total_variation",),
    "training": ("prior.training",),
    "trajectory": ("sampling",),
    "trajectory_output": ("report.trajectory.write",),
    "variance_exploding": ("prior.variance_exploding",),
    "weights": ("prior.weights",),
}
"""Modules of version 0.4.0, and where what overlays name of them is now; good for one version."""


def __getattr__(name: str) -> SimpleNamespace:
    """`bundle.data_consistency.NullSpace` in an overlay is found where it has moved to."""
    if name not in MOVED:
        raise AttributeError(f"module 'bundle' has no attribute {name!r}")
    rooms = [f"bundle.{room}" for room in MOVED[name]]
    warnings.warn(f"bundle.{name} is in {', '.join(rooms)} now: correct the overlay", FutureWarning, stacklevel=2)
    return SimpleNamespace(**{n: value for room in rooms for n, value in vars(import_module(room)).items()})
