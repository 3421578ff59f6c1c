"""The grid on which several stacks are reconstructed: isotropic, along the axes of one of them.

its axes       those of the reference stack, by its header
its voxels     cubes as fine as the finest pixels of any stack, or of `spacing`
it begins      where slice 0 of the reference begins, and with its pixel (0, 0); pixels as wide as voxels are voxels
it covers      the reference; or, with cover "all", also what the others hold around it
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from interslice.physics.stacks.stack import Stack
from interslice.physics.thick.scanner import EDGE, MAX_RATIO

COVERS = ("reference", "all")


def common_grid(stacks: Sequence[Stack], spacing: float | None = None, cover: str = "reference"
                ) -> tuple[tuple[int, int, int], torch.Tensor]:  # fmt: skip
    """Shape (X, Y, Z) and affine (4, 4), float64, of the grid; the first stack is the reference.

    Args:
        spacing: of the voxels, mm; by default that of the finest pixels, but at least a tenth of the reference's slice
            distance.
        cover: "reference" or "all".
    """
    reference = stacks[0]
    finest = min(stack.voxel_size[axis] for stack in stacks for axis in stack.in_plane)
    spacing = spacing or max(finest, reference.pitch / MAX_RATIO)
    sizes = torch.tensor(reference.voxel_size, dtype=torch.float64)
    extents = [n * s for n, s in zip(reference.voxels.shape, sizes.tolist())]
    extents[reference.axis] = (reference.count - 1) * reference.pitch + reference.thickness
    begins = [-s / 2 for s in sizes.tolist()]
    begins[reference.axis] = -reference.thickness / 2
    turn = reference.affine[:3, :3] / sizes
    ends = [b + e for b, e in zip(begins, extents)]
    if cover == "all":
        begins, ends = _around(stacks, turn, reference.affine[:3, 3], begins, ends, spacing)
    shape = tuple(max(1, math.ceil((e - b) / spacing - EDGE)) for b, e in zip(begins, ends))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = reference.affine[:3, 3] + turn @ (torch.tensor(begins, dtype=torch.float64) + spacing / 2)
    return shape, affine


def _around(stacks, turn, origin, begins, ends, spacing) -> tuple[list[float], list[float]]:
    """Begins and ends, mm along the reference's axes, moved out by whole voxels until they hold all stacks."""
    begins, ends = list(begins), list(ends)
    for stack in stacks[1:]:
        corners = torch.tensor(list(itertools.product(*[(-0.5, n - 0.5) for n in stack.voxels.shape]))).double()
        places = corners @ stack.affine[:3, :3].T + stack.affine[:3, 3]
        along = (places - origin) @ torch.linalg.inv(turn).T
        for a, (low, high) in enumerate(zip(along.min(0).values.tolist(), along.max(0).values.tolist())):
            begins[a] -= max(0, math.ceil((begins[a] - low) / spacing - EDGE)) * spacing
            ends[a] += max(0, math.ceil((high - ends[a]) / spacing - EDGE)) * spacing
    return begins, ends


def no_finer(shape: Sequence[int], affine: torch.Tensor, spacing: float
             ) -> tuple[tuple[int, ...], torch.Tensor]:  # fmt: skip
    """Shape and affine of the same box in cubes that are at least so many mm wide; the last ones may reach beyond."""
    times = max(1.0, spacing / float(affine[:3, 0].norm()))
    wider = affine.clone()
    wider[:3, 3] += (times - 1) / 2 * affine[:3, :3].sum(1)
    wider[:3, :3] *= times
    return tuple(math.ceil(n / times - EDGE) for n in shape), wider
