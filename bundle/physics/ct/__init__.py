"""Tomography: line integrals along the rays of a scan."""

from bundle.physics.ct.attenuation import CheckHounsfieldd, HounsfieldScale
from bundle.physics.ct.beam_hardening import CorrectHardeningd
from bundle.physics.ct.cone_beam import ConeBeam
from bundle.physics.ct.geometry import Grid, ScanGeometry
from bundle.physics.ct.plausible import CheckProjectionsd
from bundle.physics.ct.read import LoadProjectionsd
from bundle.physics.ct.rings import RemoveRingsd
from bundle.physics.ct.scale import ScaleProjectionsd
from bundle.physics.ct.scanner import Tomography
from bundle.physics.ct.simulate import SimulateProjectionsd
from bundle.physics.ct.sparse_radon import SparseRadon
from bundle.physics.ct.truncation import MendTruncationd
from bundle.physics.ct.weighted_rays import WeighRaysd

__all__ = [
    "CheckHounsfieldd", "CheckProjectionsd", "ConeBeam", "CorrectHardeningd", "Grid", "HounsfieldScale",
    "LoadProjectionsd", "MendTruncationd", "RemoveRingsd", "ScaleProjectionsd", "ScanGeometry",
    "SimulateProjectionsd", "SparseRadon", "Tomography", "WeighRaysd",
]  # fmt: skip
