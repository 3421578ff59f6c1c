"""Label maps on another grid: each place takes the label that lies deepest there.

    v_l(p) = linear interpolation, at p, of the signed distance (mm) to the border of label l: above 0 inside
    label(p) = the l with the largest v_l(p)

Distances are taken within the slices of a map of thick slices, and in three dimensions else. At the middle of a voxel
the map itself comes out. Voting by plain indicators instead would, between two slices, repeat the nearer one: steps as
thick as the slices. (Distances between slices: Raya and Udupa, "Shape-based interpolation of multidimensional objects",
IEEE Transactions on Medical Imaging 9(1), 1990.) Labels are taken one by one, in a box around each: memory does not
grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, map_coordinates

THICK = 1.5
"""Times the other voxel sizes from which slices are thick."""
SLAB = 1 << 20
AROUND = 3
"""Voxels that are kept around a label: beyond, the border is another label's."""


def vote(labels: np.ndarray, affine: np.ndarray, shape: Sequence[int], target: np.ndarray) -> np.ndarray:
    """A label map on another grid; what lies beyond it is 0.

    Args:
        labels: (X, Y, Z) of whole numbers.
        affine, target: (4, 4), voxel to mm, of the map and of the grid.
        shape: of the grid.

    Returns:
        (shape) of the map's type.
    """
    found, ranks = np.unique(labels, return_inverse=True)
    ranks = ranks.reshape(labels.shape).astype(np.int32)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    to_labels, to_target = np.linalg.inv(affine) @ target, np.linalg.inv(target) @ affine
    best = np.full(tuple(shape), -np.inf, np.float32)
    out = np.zeros(tuple(shape), labels.dtype)
    for label, box in zip(found, find_objects(ranks + 1)):
        wide = tuple(slice(max(0, s.start - AROUND), min(n, s.stop + AROUND)) for s, n in zip(box, labels.shape))
        distance = signed_distance(labels[wide] == label, sizes)
        place = _box_on(wide, to_target, shape)
        if any(s.stop <= s.start for s in place):
            continue
        for slab in _slabs(place):
            grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in slab], indexing="ij"))
            where = np.tensordot(to_labels[:3, :3], grid, 1) + to_labels[:3, 3, None, None, None]
            inside = np.all([(w > -0.5) & (w < n - 0.5) for w, n in zip(where, labels.shape)], axis=0)
            where -= np.array([s.start for s in wide])[:, None, None, None]
            votes = map_coordinates(distance, where, order=1, mode="nearest", output=np.float32)
            better = inside & (votes > best[slab])
            best[slab][better] = votes[better]
            out[slab][better] = label
    return out


def _slabs(box: Sequence[slice]) -> Iterator[tuple[slice, ...]]:
    """A box in parts along its first axis, of about SLAB voxels each: places take 50 bytes a voxel."""
    first, *others = box
    thick = max(1, SLAB // math.prod(s.stop - s.start for s in others))
    for start in range(first.start, first.stop, thick):
        yield (slice(start, min(start + thick, first.stop)), *others)


def signed_distance(inside: np.ndarray, sizes: Sequence[float]) -> np.ndarray:
    """(X, Y, Z) float32, mm to the border of a region, above 0 within it; the border lies between voxels.

    Args:
        inside: the region.
        sizes: (3) of its voxels, mm.
    """
    axis = int(np.argmax(sizes))
    thick = sizes[axis] > THICK * np.delete(sizes, axis).max()
    parts = np.moveaxis(inside, axis, 0) if thick else [inside]
    lengths = np.delete(sizes, axis) if thick else np.asarray(sizes)
    out = []
    for part in parts:
        half, far = 0.5 * lengths.min(), 2 * float(np.dot(part.shape, lengths))
        within = distance_transform_edt(part, lengths) if not part.all() else np.full(part.shape, far)
        beyond = distance_transform_edt(~part, lengths) if part.any() else np.full(part.shape, far)
        out.append(np.where(part, within - half, half - beyond).astype(np.float32))
    return np.moveaxis(np.stack(out), 0, axis) if thick else out[0]


def _box_on(box: Sequence[slice], to_target: np.ndarray, shape: Sequence[int]) -> tuple[slice, ...]:
    """The part of a grid that a box of voxels may reach."""
    corners = np.stack(np.meshgrid(*[(s.start - 1, s.stop) for s in box], indexing="ij")).reshape(3, -1)
    places = to_target[:3, :3] @ corners + to_target[:3, 3:]
    lows, highs = np.floor(places.min(1)).astype(int), np.ceil(places.max(1)).astype(int) + 1
    return tuple(slice(max(0, low), min(n, high)) for low, high, n in zip(lows, highs, shape))
