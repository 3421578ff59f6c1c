"""Measurement operators: one file per physics, all with the interface of `LinearOperator`."""

from bundle.operators.linear_operator import LinearOperator
from bundle.operators.through_plane import ThroughPlane, ThroughPlaneSampling

__all__ = ["LinearOperator", "ThroughPlane", "ThroughPlaneSampling"]
