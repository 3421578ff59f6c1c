"""Stacks of random voxels for tests of the operator: along each axis, oblique, moved, weighted."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from interslice.physics.stacks import Stack, StackedSlices
from interslice.physics.stacks.grid import common_grid
from tests.support.helpers import normal


def rigid(turn=(0, 0, 0), shift=(0, 0, 0)):
    """(4, 4): degrees about x, y and z, then mm."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.from_euler("xyz", turn, degrees=True).as_matrix())
    matrix[:3, 3] = torch.tensor(shift, dtype=torch.float64)
    return matrix


def stack(axis=2, size=(10, 9, 12), pitch=3.0, thickness=None, spacing=1.0, place=(0, 0, 0), turn=(0, 0, 0), seed=0,
          **about):  # fmt: skip
    """A stack over about `size` mm: `pitch` mm apart along `axis`, turned by its header; random voxels."""
    steps = [spacing] * 3
    steps[axis] = pitch
    shape = [max(1, int(round(n / s))) for n, s in zip(size, steps)]
    affine = rigid(turn, place) @ torch.diag(torch.tensor([*steps, 1.0], dtype=torch.float64))
    voxels = normal(*shape, seed=seed)
    return Stack(voxels, affine, axis, thickness or pitch, name=f"stack {axis}", **about)


def several():
    """Three: straight; oblique, Gaussian, with coarser pixels and weights; moved slice by slice."""
    moved = torch.stack([rigid((k, -2, 3), (0.3 * k, 0.5, -0.4)) for k in range(3)])
    return [
        stack(2),
        stack(1, pitch=3.5, thickness=3.0, spacing=1.3, place=(0.4, 1.1, -0.7), turn=(5, -8, 11), seed=1,
              profile="gaussian", weights=torch.tensor([1.0, 0.3, 0.0])),
        stack(0, pitch=3.4, place=(1.0, 0.2, 0.1), seed=2, poses=moved),
    ]  # fmt: skip


def operator(stacks=None, backend="torch", **grid):
    """Of stacks on their common grid."""
    stacks = stacks or several()
    return StackedSlices(stacks, *common_grid(stacks, **grid), backend)


def smooth(places):
    """A smooth function of places (..., 3) in mm."""
    x, y, z = np.moveaxis(np.asarray(places), -1, 0)
    return np.sin(x / 7) + np.cos(y / 8 + 0.4) * np.sin(z / 6 + 1)


def on_grid(shape, affine, function=smooth):
    """A function at the voxels of a grid, float32 (X, Y, Z)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    affine = np.asarray(affine)
    return torch.from_numpy(function(index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32))
