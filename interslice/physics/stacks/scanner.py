"""Builds operators of several stacks: for the stacks that were read, or for a volume that is to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from interslice.files.switch import is_on
from interslice.files.values import choice, number, whole_number
from interslice.physics.stacks.grid import COVERS, common_grid
from interslice.physics.stacks.stack import FEWEST, Stack
from interslice.physics.stacks.stacked import BACKENDS, StackedSlices
from interslice.physics.thick.profile import PROFILES
from interslice.physics.thick.scanner import MAX_RATIO, RATIO
from interslice.physics.thick.through_plane import MIN_RATIO
from interslice.planes import PLANES
from interslice.usage import UsageError

MAX_TURN, MAX_SHIFT = 45.0, 100.0


@dataclass
class Stacks:
    """How several thick scans measure one volume; builds the operator for stacks or for a volume.

    Args:
        spacing: voxel size to reconstruct, mm; by default that of the finest pixels of any stack.
        cover: "reference": reconstruct what the reference stack holds; "all": what any of them holds.
        backend: "auto", "numba" or "torch" (stacked.py).
        orientations: of stacks to simulate, "axial", "coronal" or "sagittal"; the first is the reference.
        ratio: distance of their slices in voxels.
        thickness: of their slices in mm; by default their distance: no gap.
        profile: of their slices, "box", "gaussian" or "sinc".
        turn, shift: each simulated stack but the first is turned by up to so many degrees about each axis of the
            volume, and moved by up to so many mm along it.
        motion_known: whether the operator is told; if not, alignment has to find out.
        seed: of these motions.
    """

    spacing: float | None = None
    cover: str = "reference"
    backend: str = "auto"
    orientations: Sequence[str] = ("axial", "coronal")
    ratio: float | None = None
    thickness: float | None = None
    profile: str = "box"
    turn: float = 0.0
    shift: float = 0.0
    motion_known: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("spacing", "thickness"):
            if (value := getattr(self, name)) is not None:
                number(name, value, above=0, kind="a number of mm")
        choice("cover", self.cover, COVERS)
        choice("backend", self.backend, BACKENDS)
        choice("profile", self.profile, PROFILES)
        if isinstance(self.orientations, str) or not self.orientations:
            raise UsageError(
                f"orientations must be a list of {', '.join(PLANES)}, such as ['axial','coronal'], got "
                f"{self.orientations!r}"
            )
        for plane in self.orientations:
            choice("orientations", plane, tuple(PLANES))
        if self.ratio is not None:
            number("ratio", self.ratio, MIN_RATIO, MAX_RATIO)
        number("turn", self.turn, 0, MAX_TURN, kind="a number of degrees")
        number("shift", self.shift, 0, MAX_SHIFT, kind="a number of mm")
        self.motion_known = is_on(self.motion_known, "motion_known")
        whole_number("seed", self.seed)

    def for_measurement(self, measurement: torch.Tensor) -> StackedSlices:
        """The operator of the stacks that a measurement (1, M) carries as "stacks".

        Raises:
            ValueError: it carries none.
        """
        stacks = getattr(measurement, "meta", {}).get("stacks")
        if not stacks:
            raise ValueError("the measurement carries no stacks: let the `read` of configs/task_stacks.json read it")
        shape, affine = common_grid(stacks, self.spacing, self.cover)
        return StackedSlices(stacks, shape, affine, self.backend)

    def for_volume(self, volume: torch.Tensor) -> StackedSlices:
        """The operator that measures a volume (1, X, Y, Z) by stacks of `orientations`, whose voxels are empty yet.

        Raises:
            ValueError: the volume is too thin for stacks of that orientation, or `spacing` is not the volume's.
        """
        shape, affine = tuple(volume.shape[1:]), volume.affine.double().cpu()
        if self.spacing is not None:
            raise ValueError(
                f"a simulated scan is reconstructed on the volume's own grid, and not at a spacing of {self.spacing:g} "
                "mm: leave the spacing alone, and set the ratio"
            )
        random = np.random.default_rng(self.seed)
        stacks = []
        for k, plane in enumerate(self.orientations):
            earlier = list(self.orientations[:k]).count(plane)
            stack = self._empty(shape, affine, plane).moved(name=f"{plane} {earlier + 1}" if earlier else plane)
            if stacks and (self.turn or self.shift):
                motion = motion_about(
                    shape, affine, random.uniform(-1, 1, 3) * self.turn, random.uniform(-1, 1, 3) * self.shift
                )
                stack = stack.moved(poses=motion.expand(stack.count, 4, 4))
            stacks.append(stack)
        return StackedSlices(stacks, shape, affine, self.backend)

    def _empty(self, shape: tuple[int, ...], affine: torch.Tensor, plane: str) -> Stack:
        """A stack across the whole of a volume; its slices begin where the volume begins."""
        axis = PLANES[plane]
        spacing = float(affine[:3, axis].norm())
        ratio = self.ratio or RATIO
        thickness = self.thickness or ratio * spacing
        count = int((shape[axis] * spacing - thickness) / (ratio * spacing) + 1e-6) + 1
        if count < FEWEST:
            raise ValueError(
                f"the volume is {shape[axis] * spacing:g} mm thick across its {plane} slices, less than {FEWEST} of "
                f"{thickness:g} mm, {ratio * spacing:g} mm apart: lower the ratio, or leave {plane} out of orientations"
            )
        to_voxels = torch.eye(4, dtype=torch.float64)
        to_voxels[axis, axis], to_voxels[axis, 3] = ratio, (thickness / spacing - 1) / 2
        size = [count if a == axis else n for a, n in enumerate(shape)]
        return Stack(torch.zeros(size), affine @ to_voxels, axis, thickness, self.profile, name=plane)


def motion_about(
    shape: Sequence[int], affine: torch.Tensor, turn: Sequence[float], shift: Sequence[float]
) -> torch.Tensor:
    """A rigid motion (4, 4) of mm, about the middle of a volume: degrees about x, y and z in this order, then mm."""
    middle = affine[:3, :3] @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2) + affine[:3, 3]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_euler("xyz", turn, degrees=True).as_matrix())
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + torch.tensor(shift, dtype=torch.float64)
    return matrix
