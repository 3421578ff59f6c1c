"""Stacks of a head of random blobs that moved between and within them, with the truth."""

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

from interslice.physics.stacks import StackedSlices, Stacks
from interslice.physics.stacks.motion import angle_of
from interslice.physics.stacks.scanner import motion_about
from interslice.physics.stacks.simulate import scanned

SHAPE = (52, 56, 48)
AFFINE = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
AFFINE[:3, 3] = torch.tensor([-20.0, 10.0, 5.0])
BRIGHT = 1000.0


def blobs(seed=0, shape=SHAPE):
    """(X, Y, Z) from 0 (air) to about 1000: an ellipsoid of blobs of several sizes, brighter towards one side."""
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = gaussian_filter((np.square(places / 0.9).sum(0) < 1).astype(float), 0.7)
    texture = np.zeros(shape)
    for width in (1.5, 2.5, 5.0):
        part = gaussian_filter(random.normal(size=shape), width)
        texture += part / part.std()
    return (inside * (500 + 110 * texture)).clip(0).astype(np.float32)


def moved_stacks(planes=("axial", "coronal"), turns=None, shifts=None, seed=0, noise=0.02, ratio=4, voxels=None):
    """Operator of stacks as their headers place them, in the prior's range, and the true pose of each.

    Args:
        turns, shifts: of each stack but the first, degrees about x, y and z, and mm; none by default.
        voxels: of the volume; by default `blobs` of the seed.
    """
    voxels, random = blobs(seed) if voxels is None else voxels, np.random.default_rng(seed)
    empty = (
        Stacks(orientations=planes, ratio=ratio)
        .for_volume(MetaTensor(torch.from_numpy(voxels)[None], affine=AFFINE))
        .stacks
    )
    stacks, poses = [], []
    for k, stack in enumerate(empty):
        turn, shift = ((t[k - 1] if t and k else (0, 0, 0)) for t in (turns, shifts))
        poses.append(motion_about(voxels.shape, AFFINE, turn, shift))
        y = scanned(voxels, AFFINE.numpy(), stack.moved(poses=poses[-1].expand(stack.count, 4, 4)))
        y = y + random.normal(0, noise * BRIGHT, y.shape)
        stacks.append(stack.moved(voxels=torch.from_numpy((y / BRIGHT * 2 - 1).astype(np.float32))))
    return StackedSlices(stacks, voxels.shape, AFFINE), poses


def apart(one, other):
    """(mean mm over the volume's places, degrees) between two motions."""
    index = torch.cartesian_prod(*[torch.linspace(0, n - 1, 4, dtype=torch.float64) for n in SHAPE])
    places = index @ AFFINE[:3, :3].mT + AFFINE[:3, 3]
    motion = one @ torch.linalg.inv(other)
    return float((places @ motion[:3, :3].mT + motion[:3, 3] - places).norm(dim=1).mean()), angle_of(motion)
