"""Where the volumes of a reconstruction lie, and how work is done on parts of them.

    device   with the network, all of each: the fastest
    host     in the machine's memory; slices and parts of volumes travel to the network's device and back
    disk     in files that are mapped into memory, for what exceeds that

The network sees a few slices at once, noise is drawn for a few, and a data step whose operator measures parts of the
volume alone (`separable_axes`) takes one part after the other: what they hold on the device does not grow with the
number of slices, and results are those of the whole volume, to rounding. Work that couples the whole volume is done
where the volume lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from interslice.files.mapped import mapped
from interslice.files.memory import array_bytes
from interslice.files.values import choice
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.linear_solvers import widest

PLACES = ("auto", "device", "host", "disk")
PART = 1e8
"""Bytes that the work on a part of a volume takes, about; of a single index where that takes more."""
SURE = 0.9
"""Share of what work is estimated to take that has to fit."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Volumes:
    """The volumes of one reconstruction.

    Args:
        place: "device", "host" or "disk".
        device: where work is done, the network's.
        folder: of the files.
    """

    place: str = "device"
    device: torch.device = torch.device("cpu")
    folder: str = "."

    @property
    def in_parts(self) -> bool:
        return self.place != "device"

    def empty(self, shape: Sequence[int]) -> torch.Tensor:
        """A volume with nothing in it yet."""
        if self.place == "disk":
            return mapped(shape, self.folder)
        return torch.empty(*shape, device="cpu" if self.place == "host" else self.device)

    def work(self, function: Callable, operator: LinearOperator, y: torch.Tensor, *volumes: torch.Tensor,
             alone: bool, out: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        """function(y, operator, *volumes) -> volume; where volumes are worked on in parts, of each part.

        Args:
            alone: whether what the function makes of a part, across separable axes, depends on that part alone.
            out: takes what is made of parts, and may be one of the volumes; a volume of its own if None.
        """
        if not (self.in_parts and alone and operator.separable_axes):
            return function(y, operator, *volumes)
        out = self.empty(operator.domain_shape) if out is None else out
        for box in parts(operator):
            measured = y[operator.range_box(box)].to(self.device)
            out[box] = function(measured, operator.on(box), *(v[box].to(self.device) for v in volumes)).to(out.device)
        return out

    def misfit(self, x: torch.Tensor, y: torch.Tensor, operator: LinearOperator) -> float:
        """|A x - y| / |y|."""
        if not (self.in_parts and operator.separable_axes):
            return float((operator.forward(x) - y).norm() / y.norm().clamp_min(1e-12))
        left = of_y = 0.0
        for box in parts(operator):
            measured = y[operator.range_box(box)].to(self.device)
            left += float(
                (operator.on(box).forward(x[box].to(self.device)) - measured).to(widest(self.device)).square().sum()
            )
            of_y += float(measured.to(widest(self.device)).square().sum())
        return math.sqrt(left / max(of_y, 1e-24))


class Storage:
    """Chooses where volumes lie.

    Args:
        place: one of PLACES; "auto": the first of device, host and disk that has room for them.
        folder: of the files, "disk".
        memory: device -> bytes that may be taken there.

    Raises:
        UsageError: `place` is none of them.
    """

    def __init__(self, place: str = "auto", folder: str = ".",
                 memory: Callable[[str], float] | None = None) -> None:  # fmt: skip
        self.place, self.folder = choice("volumes_on", place, PLACES), folder
        self._memory = memory or (lambda _: math.inf)

    def of(self, device: torch.device, needed: float) -> Volumes:
        """For a network on `device`, and `needed` bytes of all that is held at once."""
        place = self.place
        if place == "auto":
            fitting = SURE * needed
            places = [("device", device)] + [("host", torch.device("cpu"))] * (device.type != "cpu")
            place = next((name for name, where in places if fitting <= self._memory(str(where))), "disk")
        return Volumes(place, device, self.folder)


def part_bytes(operator: LinearOperator) -> float:
    """Bytes that work on a part takes on the device, at most: the part itself, and conjugate gradients on it."""
    return max(PART, _bytes_of_one(operator)) if operator.separable_axes else 0.0


def _bytes_of_one(operator: LinearOperator) -> float:
    """Of a single index of the axis that is cut."""
    longest = max(operator.domain_shape[axis] for axis in operator.separable_axes)
    held = array_bytes(operator.domain_shape) + array_bytes(operator.range_shape)
    return (held + operator.descent_bytes()) / longest


def parts(operator: LinearOperator) -> Iterator[Box]:
    """Boxes that cover the volume, cut across the longest of the separable axes."""
    shape = operator.domain_shape
    axis = max(operator.separable_axes, key=lambda a: shape[a])
    thick = max(1, int(PART / _bytes_of_one(operator)))
    for start in range(0, shape[axis], thick):
        yield tuple(slice(start, min(start + thick, n)) if a == axis else slice(0, n) for a, n in enumerate(shape))
