"""Thick slices: weighted means along one axis. They are volumes, which interslice.files reads."""

from interslice.physics.thick.as_acquired import AsAcquiredd
from interslice.physics.thick.scale import ScalePercentilesd
from interslice.physics.thick.scanner import ThroughPlaneSampling
from interslice.physics.thick.simulate import SimulateMeasurementd
from interslice.physics.thick.through_plane import ThroughPlane

__all__ = ["AsAcquiredd", "ScalePercentilesd", "SimulateMeasurementd", "ThroughPlane", "ThroughPlaneSampling"]
