"""Several stacks of thick slices of one patient, each with its own direction and place: one volume."""

from bundle.physics.stacks.align import AlignStacksd
from bundle.physics.stacks.read import LoadStacksd
from bundle.physics.stacks.scale import ScaleStacksd
from bundle.physics.stacks.scanner import Stacks
from bundle.physics.stacks.simulate import SimulateStacksd
from bundle.physics.stacks.stack import Stack
from bundle.physics.stacks.stacked import StackedSlices

__all__ = ["AlignStacksd", "LoadStacksd", "ScaleStacksd", "SimulateStacksd", "Stack", "StackedSlices", "Stacks"]
