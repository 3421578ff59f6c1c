"""A stack: one scan of thick, parallel slices of a patient, as one of several.

    p_k(i, j, t) = T_k A (i, j, k) + t T_k n          where voxel (i, j) of slice k was measured, mm

A is the header's affine, n the unit normal of the slices, t the position across a slice, and T_k the pose of slice k:
where the header says that it lies -> where it lies in the frame that all stacks share. T is rigid, and the identity
until it is known better. Places are RAS+, in mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch

from interslice.files.carried import carried
from interslice.physics.thick.profile import PROFILES, Profile, Table

FEWEST = 3
"""Slices that make a stack of a scan."""


@carried
@dataclass(frozen=True, eq=False)
class Stack:
    """A scan of thick slices and how it lies.

    Attributes:
        voxels: (X, Y, Z) float32.
        affine: (4, 4) float64, voxel -> mm by the header.
        axis: of the voxels, across the slices.
        thickness: of a slice, mm.
        profile: of a slice, "box", "gaussian", "sinc" or a table (interslice.physics.thick.profile).
        name: of the file, for messages and records.
        frame: DICOM's FrameOfReferenceUID, "" where there is none.
        poses: (K, 4, 4) float64, T of each of the K slices.
        weights: (K,) float32 from 0 to 1, how much a slice counts.
        noise: standard deviation of its noise, 0 where it is not known.

    Raises:
        ValueError: voxels without three axes, a thickness that is none, or poses and weights of another number.
    """

    voxels: torch.Tensor
    affine: torch.Tensor
    axis: int
    thickness: float
    profile: Profile = "box"
    name: str = ""
    frame: str = ""
    poses: torch.Tensor = field(default=None)  # type: ignore[assignment]
    weights: torch.Tensor = field(default=None)  # type: ignore[assignment]
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise ValueError(
                f"{self.name or 'a stack'} has voxels of shape {tuple(self.voxels.shape)}: a stack has three axes"
            )
        if not isinstance(self.profile, Table) and self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {PROFILES}, got {self.profile!r}")
        if not (self.thickness > 0 and math.isfinite(self.thickness)):
            raise ValueError(f"slices of {self.name or 'a stack'} must be thicker than 0 mm, got {self.thickness}")
        count = self.count
        identity = torch.eye(4, dtype=torch.float64).expand(count, 4, 4)
        for name, default in (("poses", identity), ("weights", torch.ones(count))):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            elif len(getattr(self, name)) != count:
                raise ValueError(f"{self.name or 'a stack'} has {count} slices, and {len(getattr(self, name))} {name}")

    @property
    def count(self) -> int:
        """K, its slices."""
        return self.voxels.shape[self.axis]

    @property
    def slices(self) -> torch.Tensor:
        """(K, I, J) voxels, slices first."""
        return self.voxels.movedim(self.axis, 0)

    @property
    def in_plane(self) -> tuple[int, int]:
        """The axes of the voxels within a slice."""
        return tuple(a for a in range(3) if a != self.axis)  # type: ignore[return-value]

    @property
    def normal(self) -> torch.Tensor:
        """(3,) unit normal of the slices by the header, towards the next slice."""
        first, second = (self.affine[:3, a] for a in self.in_plane)
        normal = torch.linalg.cross(first, second)
        normal = normal / normal.norm()
        return normal if float(normal @ self.affine[:3, self.axis]) > 0 else -normal

    @property
    def pitch(self) -> float:
        """Distance of neighbouring slices, mm."""
        return float(self.affine[:3, self.axis] @ self.normal)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """mm along each axis of the voxels."""
        return tuple(self.affine[:3, :3].norm(dim=0).tolist())  # type: ignore[return-value]

    def moved(self, **changed) -> Stack:
        """The same scan with other poses, weights, voxels, or noise."""
        return replace(self, **changed)

    def ways(self, to_grid: torch.Tensor) -> torch.Tensor:
        """(K, 4, 3) float64: place of voxel (0, 0) of each slice, the ways to the next i and the next j, and that of a
        mm across, all in voxels of a grid, given `to_grid` (4, 4), mm -> its voxels."""
        first, second = self.in_plane
        columns = self.affine.new_zeros(self.count, 4, 4)
        columns[:, :3, 0] = self.affine[:3, 3] + torch.arange(self.count)[:, None] * self.affine[:3, self.axis]
        columns[:, 3, 0] = 1.0
        columns[:, :3, 1], columns[:, :3, 2] = self.affine[:3, first], self.affine[:3, second]
        columns[:, :3, 3] = self.normal
        return (to_grid @ self.poses @ columns)[:, :3].mT.contiguous()
