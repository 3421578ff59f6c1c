"""The measurement operators under the name that they had until version 0.4.0; they are in `bundle.physics`."""

from bundle.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon, Tomography
from bundle.physics.kspace import CartesianMRI, CartesianSampling
from bundle.physics.linear_operator import LinearOperator
from bundle.physics.thick import ThroughPlane, ThroughPlaneSampling

__all__ = [
    "CartesianMRI", "CartesianSampling", "ConeBeam", "Grid", "LinearOperator", "ScanGeometry", "SparseRadon",
    "ThroughPlane", "ThroughPlaneSampling", "Tomography",
]  # fmt: skip
