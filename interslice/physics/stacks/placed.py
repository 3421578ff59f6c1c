"""How the stacks of one patient lie to each other, by their headers.

box       the voxels' centres and half a voxel around them: B = A [-1/2, n - 1/2]^3, A voxel to mm (RAS)
overlap   o(a, b) = |B_a and B_b| / |B_a|, by sample points of B_a; stacks meet if o(a, b) or o(b, a) is MEET
plane     axial, coronal or sagittal: the axis of the patient that is nearest to the slices' normal n
alike     two stacks have one orientation if their normals are less than ALIKE degrees apart
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interslice.planes import plane_across

MEET = 0.02
"""Share of a stack that lies in another, from which the two are of one place."""
ALIKE = 15.0
"""Degrees."""
SAMPLES = 16
"""Points of a box along each axis."""
OBLIQUE = 20.0
"""Degrees off the nearest plane from which a stack is called oblique."""


def plane_of(normal: np.ndarray) -> str:
    """The plane that is across a unit normal (3,) (RAS), with "oblique " before it where the normal is far from it."""
    nearest = int(np.abs(normal).argmax())
    off = np.degrees(np.arccos(min(1.0, abs(float(normal[nearest])))))
    return ("oblique " if off > OBLIQUE else "") + plane_across(nearest)


def angle_between(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees, 0 to 90, between the lines of two unit vectors."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(one @ other))))))


def are_alike(normals: Sequence[np.ndarray]) -> bool:
    """Whether all of these normals are of one orientation."""
    return all(angle_between(normals[0], other) < ALIKE for other in normals[1:])


def overlap(one: tuple[np.ndarray, Sequence[int]], other: tuple[np.ndarray, Sequence[int]]) -> float:
    """Share of a box that lies in another; each is (affine (4, 4), shape of its grid)."""
    (affine, shape), (affine2, shape2) = one, other
    inside = (np.arange(SAMPLES) + 0.5) / SAMPLES
    points = np.stack(np.meshgrid(*[inside * n - 0.5 for n in shape], indexing="ij"), -1).reshape(-1, 3)
    moved = np.linalg.inv(affine2) @ affine
    there = points @ moved[:3, :3].T + moved[:3, 3]
    return float(((there > -0.5) & (there < np.asarray(shape2) - 0.5)).all(1).mean())


def meeting(boxes: Sequence[tuple[np.ndarray, Sequence[int]]], first: int) -> set[int]:
    """Those that meet one of them, or one that meets it, and so on; itself among them."""
    reached, new = {first}, [first]
    while new:
        at = new.pop()
        for k in set(range(len(boxes))) - reached:
            if max(overlap(boxes[at], boxes[k]), overlap(boxes[k], boxes[at])) >= MEET:
                reached.add(k)
                new.append(k)
    return reached
