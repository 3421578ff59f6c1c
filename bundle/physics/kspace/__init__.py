"""Undersampled Cartesian k-space of several coils."""

from bundle.physics.kspace.cartesian_mri import CartesianMRI
from bundle.physics.kspace.read import LoadKspaced
from bundle.physics.kspace.scale import ScaleKspaced
from bundle.physics.kspace.scanner import CartesianSampling
from bundle.physics.kspace.simulate import SimulateKspaced

__all__ = ["CartesianMRI", "CartesianSampling", "LoadKspaced", "ScaleKspaced", "SimulateKspaced"]
