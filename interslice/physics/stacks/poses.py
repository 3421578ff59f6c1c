"""Poses from a file, for the stacks of a case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from interslice.files.alignment import read_poses
from interslice.physics.stacks.motion import is_rigid
from interslice.physics.stacks.stack import Stack


def given_poses(path: str | Path, stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks as a file of poses (interslice.files.alignment) places them; those that it does not name stay.

    Raises:
        ValueError: it names none of the stacks, has another number of slices, or what it holds is no rigid motion.
    """
    known = read_poses(path)
    if not any(stack.name in known for stack in stacks):
        raise ValueError(
            f"{path} has poses of {', '.join(known) or 'nothing'}, and the stacks are "
            f"{', '.join(stack.name for stack in stacks)}: name the file that belongs to them"
        )
    placed = []
    for stack in stacks:
        poses = known.get(stack.name)
        if poses is None:
            placed.append(stack)
            continue
        poses = torch.tensor(poses, dtype=torch.float64)
        if len(poses) == 1:
            poses = poses.expand(stack.count, 4, 4)
        if len(poses) != stack.count:
            raise ValueError(f"{path}: {len(poses)} poses of {stack.name}, which has {stack.count} slices")
        if not all(is_rigid(pose) for pose in poses):
            raise ValueError(f"{path}: a pose of {stack.name} is no rigid motion: it mirrors, stretches or shears")
        placed.append(stack.moved(poses=poses))
    return placed
