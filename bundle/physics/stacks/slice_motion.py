"""Motion between the slices of a stack: each slice is placed for itself.

A slice is registered, as a whole stack is (register.py), to a volume that is made without its stack. A stack that is
alone has only itself: then every slice is moved within its plane (two shifts and a turn) to the mean of its neighbours.
A motion is kept if it leaves at most KEPT of the unexplained variance 1 - corr^2, and is not LARGE: noise alone would
move every slice a little, and what holds nothing would go anywhere.
"""

from __future__ import annotations

import torch

from bundle.physics.stacks.motion import angle_of
from bundle.physics.stacks.others import Others
from bundle.physics.stacks.register import Sloped, View, centre_of, climb
from bundle.physics.stacks.stack import Stack

KEPT = 0.9
LARGE = (20.0, 20.0)
"""Degrees, mm."""
LEVELS = (2.0, 0.0)
"""mm, as for stacks."""
THIN = 1e-3
"""mm: a slice without thickness."""
FEWEST = 100
"""Voxels of the subject that a slice must hold."""


def placed_slices(others: Others, stack: Stack) -> Stack:
    """The stack with a pose for each slice, given what the others say of it."""
    volumes = [Sloped.of(others, width) for width in LEVELS]
    poses = [_placed(volumes, one_slice(stack, k)) @ stack.poses[k] for k in range(stack.count)]
    return stack.moved(poses=torch.stack(poses))


def placed_in_plane(stack: Stack) -> Stack:
    """The stack, which is alone, with each slice moved within its plane to the mean of its neighbours."""
    slices = stack.slices
    poses = []
    for k in range(stack.count):
        near = [slices[n] for n in (k - 1, k + 1) if 0 <= n < stack.count]
        volume = torch.stack([sum(near) / len(near)] * 2).movedim(0, stack.axis)
        one = one_slice(stack, k).moved(thickness=THIN)
        # A volume of two equal slices around this one: what is moved within the plane stays between them.
        affine = one.affine.clone()
        affine[:3, 3] -= 0.5 * one.affine[:3, stack.axis]
        volumes = [Sloped.of(Others(volume, affine), width) for width in LEVELS]
        poses.append(_placed(volumes, one, _plane_of(one)) @ stack.poses[k])
    return stack.moved(poses=torch.stack(poses))


def one_slice(stack: Stack, k: int) -> Stack:
    """Slice k of a stack as a stack of its own."""
    affine = stack.affine.clone()
    affine[:3, 3] += k * stack.affine[:3, stack.axis]
    return stack.moved(
        voxels=stack.voxels.narrow(stack.axis, k, 1), affine=affine, poses=stack.poses[k : k + 1],
        weights=stack.weights[k : k + 1],
    )  # fmt: skip


def _placed(volumes: list[Sloped], one: Stack, free: torch.Tensor | None = None) -> torch.Tensor:
    """The motion (4, 4) of a slice, the identity where none is found; `free`: as of `View`."""
    nowhere = torch.eye(4, dtype=torch.float64)
    views = [View(volume, one, free) for volume in volumes]
    if int(views[-1].subject.sum()) < FEWEST:
        return nowhere
    before, motion = views[-1].correlation(nowhere), nowhere
    for view in views:
        motion, after = climb(view, motion)
    middle = centre_of(one)
    shift = motion[:3, :3] @ middle + motion[:3, 3] - middle
    small = angle_of(motion) <= LARGE[0] and float(shift.norm()) <= LARGE[1]
    better = after > before and 1 - after**2 <= KEPT * (1 - before**2)
    return motion if small and better else nowhere


def _plane_of(one: Stack) -> torch.Tensor:
    """(6, 3): the motions within the plane of a slice, a turn about its normal and two shifts."""
    turn = one.poses[0, :3, :3]
    first, second = (turn @ one.affine[:3, a] / one.affine[:3, a].norm() for a in one.in_plane)
    free = torch.zeros(6, 3, dtype=torch.float64)
    free[:3, 0], free[3:, 1], free[3:, 2] = turn @ one.normal, first, second
    return free
