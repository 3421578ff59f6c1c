"""Motion between the slices of a stack: each slice is placed for itself.

    max over q of  L(q) = -n / 2 log(1 - corr(P(q) x, y)^2) - |q|^2 / (2 LIKELY^2)        q: six numbers (motion.py)

(register.py; n counts independent samples.) x is a volume that is made without the slice's stack. A stack that is alone
has only itself: then slices are moved within their plane (two shifts and a turn) to what lies between others. A
motion is kept where L rises by CERTAIN: noise alone would move every slice a little, and what holds little of the
subject, as slices at the border do, would go anywhere; those with less than LEAST of the typical slice are left alone.
"""

from __future__ import annotations

import torch

from interslice.physics.stacks.others import Others
from interslice.physics.stacks.register import Sloped, View, climb
from interslice.physics.stacks.signals import threshold_of
from interslice.physics.stacks.stack import Stack

LIKELY = 3.0
"""Degrees and mm."""
CERTAIN = 20.0
"""Six numbers fit noise as well, which gains 3 in the mean; what a volume of a single thick stack lacks, up to 15."""
LEVELS = (2.0, 0.0)
"""mm, as for stacks."""
THIN = 1e-3
"""mm: a slice without thickness."""
LEAST = 0.25
"""Share of the typical slice's subject that a slice has to hold."""


def placed_slices(others: Others, stack: Stack) -> Stack:
    """The stack with a pose for each slice, given what the others say of it."""
    volumes, poses = [Sloped.of(others, width) for width in LEVELS], stack.poses.clone()
    for k in full_slices(stack):
        motion, gain = _placed(volumes, one_slice(stack, k))
        if gain > CERTAIN:
            poses[k] = motion @ stack.poses[k]
    return stack.moved(poses=poses)


def placed_in_plane(stack: Stack) -> Stack:
    """The stack, which is alone, with slices moved within their plane to what lies between their neighbours.

    The most certain one is placed first, and is no neighbour from then on: what moved would pull those beside it.
    """
    poses, moved = stack.poses.clone(), set()
    waiting, known = full_slices(stack), {}
    while True:
        for k in waiting:
            beside = neighbours(k, stack.count, moved)
            if beside and known.get(k, (None,))[0] != beside:
                known[k] = beside, *_placed(*_between(stack, k, *beside))
        certain = {k: gain for k, (_, _, gain) in known.items() if gain > CERTAIN and k not in moved}
        if not certain:
            return stack.moved(poses=poses)
        k = max(certain, key=certain.get)
        poses[k] = stack.poses[k] @ known[k][1]
        moved.add(k)
        waiting.remove(k)


def neighbours(k: int, count: int, moved: set[int]) -> tuple[int, int] | None:
    """The next slices on both sides that did not move."""
    below = [n for n in range(k - 1, -1, -1) if n not in moved][:1]
    above = [n for n in range(k + 1, count) if n not in moved][:1]
    return (below[0], above[0]) if below and above else None


def _between(stack: Stack, k: int, below: int, above: int) -> tuple:
    """Arguments of `_placed` for slice k: a volume of what lies between two others, and the slice without thickness."""
    share, one = (k - below) / (above - below), one_slice(stack, k).moved(thickness=THIN, poses=None)
    middle = (1 - share) * stack.slices[below] + share * stack.slices[above]
    # A volume of two equal slices around this one: what is moved within the plane stays between them.
    affine = one.affine.clone()
    affine[:3, 3] -= 0.5 * one.affine[:3, stack.axis]
    others = Others(torch.stack([middle] * 2).movedim(0, stack.axis), affine)
    return [Sloped.of(others, width) for width in LEVELS], one, _plane_of(one)


def full_slices(stack: Stack) -> list[int]:
    """Slices that hold enough of the subject to be placed."""
    held = (stack.slices > threshold_of(stack.voxels.flatten())).flatten(1).sum(1)
    return [k for k, n in enumerate(held.tolist()) if n > LEAST * float(held.double().quantile(0.75))]


def one_slice(stack: Stack, k: int) -> Stack:
    """Slice k of a stack as a stack of its own."""
    affine = stack.affine.clone()
    affine[:3, 3] += k * stack.affine[:3, stack.axis]
    return stack.moved(
        voxels=stack.voxels.narrow(stack.axis, k, 1), affine=affine, poses=stack.poses[k : k + 1],
        weights=stack.weights[k : k + 1],
    )  # fmt: skip


def _placed(volumes: list[Sloped], one: Stack, free: torch.Tensor | None = None) -> tuple[torch.Tensor, float]:
    """The likeliest motion (4, 4) of a slice, and how much more likely than none it is; `free`: as of `View`."""
    motion = nowhere = torch.eye(4, dtype=torch.float64)
    for volume in volumes:
        view = View(volume, one, free, LIKELY)
        motion, reached = climb(view, motion)
    return motion, reached - view.evidence(nowhere)


def _plane_of(one: Stack) -> torch.Tensor:
    """(6, 3): the motions within the plane of a slice, a turn about its normal and two shifts."""
    turn = one.poses[0, :3, :3]
    first, second = (turn @ one.affine[:3, a] / one.affine[:3, a].norm() for a in one.in_plane)
    free = torch.zeros(6, 3, dtype=torch.float64)
    free[:3, 0], free[3:, 1], free[3:, 2] = turn @ one.normal, first, second
    return free
