"""Measurement operators: one file per physics, all with the interface of `LinearOperator`."""

from bundle.operators.cartesian_mri import CartesianMRI
from bundle.operators.cartesian_sampling import CartesianSampling
from bundle.operators.cone_beam import ConeBeam
from bundle.operators.ct_geometry import Grid, ScanGeometry
from bundle.operators.linear_operator import LinearOperator
from bundle.operators.sparse_radon import SparseRadon
from bundle.operators.through_plane import ThroughPlane, ThroughPlaneSampling
from bundle.operators.tomography import Tomography

__all__ = [
    "CartesianMRI", "CartesianSampling", "ConeBeam", "Grid", "LinearOperator", "ScanGeometry", "SparseRadon",
    "ThroughPlane", "ThroughPlaneSampling", "Tomography",
]  # fmt: skip
