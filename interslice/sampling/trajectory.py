"""What the sampler goes through: x_t and x0_hat of a few slices at every step, kept for pictures and files.

A slab is a few neighbouring slices across one axis of the sampled volume (X, Y, Z), which is in RAS+ orientation and,
under ForegroundInferer, the box of the subject. Only slabs are copied, to the CPU; the sampler goes on as it would have
without an observer. Values are those of the sampler: the prior's range, where x0_hat lies near [-1, 1] and
x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) noise reaches beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from interslice.planes import PLANES
from interslice.usage import UsageError

CENTRAL = {"axial": 0.5, "coronal": 0.5, "sagittal": 0.5}
KINDS = ("x_t", "x0_hat")
"""What is kept of each step: the noisy volume that the network saw, and the clean estimate that fits the data."""


@dataclass
class Slab:
    """Neighbouring slices of one plane, at every step that was kept.

    Args:
        plane: "axial", "coronal" or "sagittal".
        first: index, in the sampled volume, of the first slice.
        count: how many there are.
        chosen: index, among the slices, of the one to be shown.
        affine: (4, 4), voxel of the slab -> mm.
        x_t, x0_hat: per step (X, Y, Z), with few slices across the plane's axis.
    """

    plane: str
    first: int
    count: int
    chosen: int
    affine: torch.Tensor
    x_t: list[torch.Tensor] = field(default_factory=list)
    x0_hat: list[torch.Tensor] = field(default_factory=list)

    @property
    def axis(self) -> int:
        return PLANES[self.plane]

    @property
    def positions(self) -> list[float]:
        """Of the slices along the axis, in mm from the first voxel of the sampled volume."""
        spacing = float(self.affine[:3, self.axis].norm())
        return [spacing * (self.first + i) for i in range(self.count)]

    def series(self, kind: str) -> torch.Tensor:
        """(X, Y, Z, K): all K steps of "x_t" or "x0_hat"."""
        return torch.stack(getattr(self, kind), -1)

    def paths(self, kind: str) -> torch.Tensor:
        """(S, K, P): the way of each of the S slices through K steps, as vectors of its P pixels."""
        return self.series(kind).movedim((self.axis, 3), (0, 1)).flatten(2)


@dataclass
class Observed:
    """One reconstruction: affine (4, 4) and shape of the sampled volume, (step, t, slice axis) of each step kept."""

    affine: torch.Tensor
    shape: tuple[int, ...] | None = None
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    slabs: dict[str, Slab] = field(default_factory=dict)


class Trajectory:
    """The sampler's `observer`: keeps slabs of x_t and x0_hat; reads and writes no file (see trajectory_output.py).

    Args:
        planes: plane -> the slice to keep: a fraction of the extent (0.5 is the middle) or the index of a slice (an
            integer) of the sampled volume; the three central slices by default.
        neighbours: how many slices are kept around each of these, itself among them; at a border, or in a small volume,
            those that there are.
        steps: indices of the steps to keep, from 0; None for all.
        draw: which draw to watch, from 0.

    `records` holds one `Observed` per reconstruction, in their order, until `clear`.
    """

    def __init__(self, planes: Mapping[str, float] = CENTRAL, neighbours: int = 5,
                 steps: Sequence[int] | None = None, draw: int = 0) -> None:  # fmt: skip
        if not planes or not set(planes) <= set(PLANES):
            raise UsageError(f"planes must name some of {', '.join(CENTRAL)}, got {list(planes)}")
        for plane, position in planes.items():
            if not _is_index(position) and not (isinstance(position, float) and 0 <= position <= 1):
                raise UsageError(
                    f"the {plane} slice must be a fraction from 0.0 to 1.0, or the index of a slice from 0, "
                    f"got {position!r}"
                )
        if not _is_index(neighbours) or neighbours < 1:
            raise UsageError(f"neighbours must be a whole number of slices, at least 1, got {neighbours!r}")
        if steps is not None and (len(steps) == 0 or not all(_is_index(i) for i in steps)):
            raise UsageError(f"steps must be a list of indices from 0, or null for all steps, got {steps!r}")
        if not _is_index(draw):
            raise UsageError(f"draw must be an index from 0, got {draw!r}")
        self.planes, self.neighbours, self.draw = dict(planes), neighbours, draw
        self.steps = None if steps is None else sorted(set(steps))
        self.records: list[Observed] = []

    def check(self, num_steps: int, num_draws: int) -> None:
        """Raise ValueError if a sampler with so many steps and draws never comes to what is to be kept."""
        if self.steps and self.steps[-1] >= num_steps:
            raise UsageError(
                f"trajectory: step {self.steps[-1]} is not among the sampler's {num_steps} steps, 0 to "
                f"{num_steps - 1}: choose among these, or raise num_steps"
            )
        if self.draw >= num_draws:
            raise UsageError(
                f"trajectory: draw {self.draw} is not among the sampler's {num_draws} draws, 0 to "
                f"{num_draws - 1}: choose among these, or raise num_draws"
            )

    def clear(self) -> None:
        """Forget all reconstructions."""
        self.records.clear()

    def begin(self, affine: torch.Tensor) -> None:
        """A reconstruction of a volume with this affine (4, 4) begins."""
        self.records.append(Observed(affine.detach().cpu().double().clone()))

    def __call__(self, draw: int, step: int, t: int, slice_axis: int, x_t: torch.Tensor, x0_hat: torch.Tensor) -> None:
        """One step of one draw; x_t and x0_hat (X, Y, Z) are read and not kept."""
        if not self.records:
            raise RuntimeError("a trajectory needs the volume's affine before the first step: call begin(affine)")
        record = self.records[-1]
        if record.shape is None:
            record.shape = tuple(x_t.shape)
            record.slabs = {plane: self._slab(plane, record) for plane in self.planes}
        if draw != self.draw or not (self.steps is None or step in self.steps):
            return
        record.steps.append((int(step), int(t), int(slice_axis)))
        for slab in record.slabs.values():
            for kind, volume in zip(KINDS, (x_t, x0_hat)):
                part = volume.detach().narrow(slab.axis, slab.first, slab.count)
                getattr(slab, kind).append(part.to("cpu", copy=True))

    def _slab(self, plane: str, record: Observed) -> Slab:
        """An empty slab in its place; raises ValueError if its slice is outside."""
        axis, position = PLANES[plane], self.planes[plane]
        size = record.shape[axis]
        index = position if _is_index(position) else min(int(position * size), size - 1)
        if index >= size:
            raise ValueError(
                f"trajectory: {plane} slice {index} is outside the sampled volume, whose {plane} slices are 0 to "
                f"{size - 1}: choose among these, or a fraction from 0.0 to 1.0"
            )
        count = min(self.neighbours, size)
        first = min(max(0, index - count // 2), size - count)
        affine = record.affine.clone()
        affine[:3, 3] += first * affine[:3, axis]
        return Slab(plane, first, count, index - first, affine)


def _is_index(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
