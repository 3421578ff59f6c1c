"""Several stacks of thick slices of one patient, each with its own direction and place: one volume."""

from interslice.physics.stacks.align import AlignStacksd
from interslice.physics.stacks.read import LoadStacksd
from interslice.physics.stacks.scale import ScaleStacksd
from interslice.physics.stacks.scanner import Stacks
from interslice.physics.stacks.simulate import SimulateStacksd
from interslice.physics.stacks.stack import Stack
from interslice.physics.stacks.stacked import StackedSlices

__all__ = ["AlignStacksd", "LoadStacksd", "ScaleStacksd", "SimulateStacksd", "Stack", "StackedSlices", "Stacks"]
