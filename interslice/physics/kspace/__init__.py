"""Undersampled Cartesian k-space of several coils."""

from interslice.physics.kspace.cartesian_mri import CartesianMRI
from interslice.physics.kspace.read import LoadKspaced
from interslice.physics.kspace.scale import ScaleKspaced
from interslice.physics.kspace.scanner import CartesianSampling
from interslice.physics.kspace.simulate import SimulateKspaced

__all__ = ["CartesianMRI", "CartesianSampling", "LoadKspaced", "ScaleKspaced", "SimulateKspaced"]
