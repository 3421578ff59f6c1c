"""No slices of air: the network sees a box around the subject, block by block of neighbouring slices.

A head is an ellipsoid, and the box of a whole volume is a fifth air at its ends. So the slices across an axis are taken
in blocks of BLOCK, counted from the first slice of the volume, each with a box of its own in the plane: what the start
of the reconstruction marks as subject, and a margin, widened to multiples of what the network halves, inside the volume
so that nothing is padded. Outside the boxes x0 is the start, before the data step has its say on the whole volume.

Boxes depend on the start alone, not on batches, ranks or steps. The network sees the border of a box as that of a scan,
and its normalisation has less air to go by: results are others than without boxes, and as good
(docs/explanation/speed.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from interslice.files.switch import is_on
from interslice.files.values import number, whole_number
from interslice.physics.foreground import PLANE, foreground_box
from interslice.ranks import agreed

BLOCK = 8
"""Slices that share a box: as many as a CPU takes through the network at once."""
WORTH = 0.1
"""Part of the pixels that boxes have to save; less is not worth another result."""

Index = tuple[slice, slice, slice]


class SubjectBoxes:
    """Finds the boxes of a reconstruction; only for scans that treat every position in the plane alike.

    Args:
        enabled: a switch, or "auto": on a CPU, where time goes by pixels; a GPU does better with many slices at once.
        threshold: voxels of the start above it are the subject (air is near -1).
        margin: voxels kept around it.
        multiple: what the sides of a box are multiples of, where the volume has room for it.

    Raises:
        UsageError: an argument is none of these.
    """

    def __init__(self, enabled: bool | str = "auto", threshold: float = -0.8, margin: int = 8, multiple: int = 8
                 ) -> None:  # fmt: skip
        self.enabled = enabled if enabled == "auto" else is_on(enabled, 'skip_air, unless "auto",')
        self.threshold, self.margin = number("threshold", threshold), whole_number("margin", margin)
        self.multiple = whole_number("multiple", multiple, 1)

    def of(self, start: torch.Tensor, axes: Sequence[int], on_cpu: bool) -> Boxes | None:
        """Boxes of a volume that starts from `start` (X, Y, Z), across each of `axes`; None where they do not pay.

        Args:
            on_cpu: whether the network is on a CPU.
        """
        if not (on_cpu if self.enabled == "auto" else self.enabled):
            return None
        mask = start > self.threshold
        found = {axis: self._across(mask, axis) for axis in axes}
        seen = sum(start[index].numel() for boxes in found.values() for index in boxes)
        return Boxes(start, found) if seen <= (1 - WORTH) * len(found) * start.numel() else None

    def _across(self, mask: torch.Tensor, axis: int) -> list[Index]:
        """Parts of the volume that hold the subject; blocks of air have none."""
        slices, found = mask.movedim(axis, 0), []
        for first in range(0, len(slices), BLOCK):
            block = slices[first : first + BLOCK]
            if bool(block.any()):
                plane = foreground_box(block, PLANE, self.margin)[1:]
                index = [widened(side, n, self.multiple) for side, n in zip(plane, block.shape[1:])]
                index.insert(axis, slice(first, first + len(block)))
                found.append(tuple(index))
        return found


class Boxes:
    """Parts of a volume, by the axis that its slices lie across, and what is elsewhere.

    Args:
        outside: (X, Y, Z), not changed.
        parts: axis -> parts of the volume, of which no two overlap.
    """

    def __init__(self, outside: torch.Tensor, parts: dict[int, list[Index]]) -> None:
        self.outside, self.parts = outside, parts

    @classmethod
    def of_all(cls, found: Boxes | None, outside: torch.Tensor) -> Boxes | None:
        """The boxes that rank 0 has found, for all ranks (interslice.ranks)."""
        parts = agreed(None if found is None else found.parts)
        return None if parts is None else cls(outside, parts)

    def denoised(self, prior: Callable, network: Callable, x_t: torch.Tensor, t: int, axis: int,
                 out: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        """x0 (X, Y, Z): what `prior`, called as a SlicePrior, makes of the parts of x_t, in their places."""
        x0 = self.outside.clone() if out is None else out.copy_(self.outside)
        for index in self.parts[axis]:
            x0[index] = prior(network, x_t[index], t, axis)
        return x0


def widened(side: slice, length: int, multiple: int) -> slice:
    """A part of [0, length) around `side` whose length is a multiple; all of it where there is no room for that."""
    size = math.ceil((side.stop - side.start) / multiple) * multiple
    if size >= length:
        return slice(0, length)
    start = min(max(0, side.start - (size - (side.stop - side.start)) // 2), length - size)
    return slice(start, start + size)
