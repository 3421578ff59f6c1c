"""Tomography: line integrals along the rays of a scan."""

from interslice.physics.ct.attenuation import CheckHounsfieldd, HounsfieldScale
from interslice.physics.ct.beam_hardening import CorrectHardeningd
from interslice.physics.ct.cone_beam import ConeBeam
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.plausible import CheckProjectionsd
from interslice.physics.ct.read import LoadProjectionsd
from interslice.physics.ct.rings import RemoveRingsd
from interslice.physics.ct.scale import ScaleProjectionsd
from interslice.physics.ct.scanner import Tomography
from interslice.physics.ct.simulate import SimulateProjectionsd
from interslice.physics.ct.sparse_radon import SparseRadon
from interslice.physics.ct.truncation import MendTruncationd
from interslice.physics.ct.weighted_rays import WeighRaysd

__all__ = [
    "CheckHounsfieldd", "CheckProjectionsd", "ConeBeam", "CorrectHardeningd", "Grid", "HounsfieldScale",
    "LoadProjectionsd", "MendTruncationd", "RemoveRingsd", "ScaleProjectionsd", "ScanGeometry",
    "SimulateProjectionsd", "SparseRadon", "Tomography", "WeighRaysd",
]  # fmt: skip
