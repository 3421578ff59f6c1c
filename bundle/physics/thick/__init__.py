"""Thick slices: weighted means along one axis. They are volumes, which bundle.files reads."""

from bundle.physics.thick.as_acquired import AsAcquiredd
from bundle.physics.thick.scale import ScalePercentilesd
from bundle.physics.thick.scanner import ThroughPlaneSampling
from bundle.physics.thick.simulate import SimulateMeasurementd
from bundle.physics.thick.through_plane import ThroughPlane

__all__ = ["AsAcquiredd", "ScalePercentilesd", "SimulateMeasurementd", "ThroughPlane", "ThroughPlaneSampling"]
