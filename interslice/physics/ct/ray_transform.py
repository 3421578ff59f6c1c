"""What parallel, fan and cone beam have in common as operators."""

from __future__ import annotations

import torch

from interslice.files.memory import array_bytes
from interslice.physics.ct.filtered_back_projection import filtered_back_projection
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.redundancy import missing_directions
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.noise_level import noise_norm


class RayTransform(LinearOperator):
    """Line integrals of a volume along the rays of a scan.

    Args:
        geometry, grid: where the rays run, and the volume.
        background: value of air in the volume, which surrounds it.
    """

    units = "the volume's own times mm"
    slice_axes = (2, 0, 1)
    """Views are missing within axial slices; in the other planes their streaks show."""

    smaller = "larger voxels or fewer of them (--operator#spacing, --operator#shape)"
    misfit_limit = 0.012
    misfit_causes = (
        "column_offset or angles that are not the scan's (degrees, order, sense of rotation), wrong distances or "
        "units, wrong air_counts, dead columns, decadic logarithms, a grid that leaves out a part of the object"
    )

    def __init__(self, geometry: ScanGeometry, grid: Grid, background: float) -> None:
        super().__init__(grid.shape, geometry.range_shape)
        self.geometry, self.grid, self.background = geometry, grid, background
        self.gains = tuple(min(grid.spacing) / s for s in grid.spacing)
        self.missing_directions = missing_directions(geometry)

    def __str__(self) -> str:
        return f"{self.geometry}, voxels of {' x '.join(f'{s:.3g}' for s in self.grid.spacing)} mm"

    def linear_reconstruction(self, y: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection, or FDK. Air, `background`, is taken to surround the volume."""
        return filtered_back_projection(y, self)

    def starting_bytes(self) -> float:
        """The result, and of each view its values at all voxels, with what interpolates them."""
        arrays = (20 if self.geometry.helical or self.geometry.tilted else 12) if self.geometry.beam == "cone" else 6
        return arrays * array_bytes(self.domain_shape) + 3 * array_bytes(self.range_shape)

    def noise_norm(self, y: torch.Tensor) -> float:
        """From differences of neighbouring columns."""
        return noise_norm(y, dim=1)

    def domain_affine(self, range_affine: torch.Tensor | None = None) -> torch.Tensor:
        """Affine (4, 4) of the volume in world coordinates; projections have none of their own."""
        return torch.tensor(self.geometry.world, dtype=torch.float64) @ self.grid.affine
