"""Thick scans of a known head that moved between them, made without the operator that reconstructs them.

    y(h) = mean over t of V(T (h + t n)) + noise,         t from -d/2 to d/2, n the normal of the slices

h is where the header says that a voxel lies, and T, rigid, takes it to where it lies in the head: V is interpolated by
cubic splines at points FINE mm apart across the slice, and the operator of the bundle takes straight lines between
voxels. Agreement with data that the same arithmetic made would show less than it seems to.
"""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial.transform import Rotation

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
FINE = 0.5
"""mm between the points that are averaged across a slice."""


@dataclass(frozen=True)
class Motion:
    """A rigid motion about the middle of a volume.

    Attributes:
        rotation: degrees about x, y and z, in this order.
        shift: mm.
    """

    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def matrix(self, head: nib.Nifti1Image) -> np.ndarray:
        """T (4, 4): header's place -> place in the head, mm."""
        middle = nib.affines.apply_affine(head.affine, (np.array(head.shape) - 1) / 2)
        turn = Rotation.from_euler("xyz", self.rotation, degrees=True).as_matrix()
        return nib.affines.from_matvec(turn, middle - turn @ middle + self.shift)


def scan(head: nib.Nifti1Image, part: tuple[slice, ...], plane: str, thickness: float, motion: Motion, noise: float,
         seed: int) -> nib.Nifti1Image:  # fmt: skip
    """A stack of slices without gaps across the axis of `plane`.

    Args:
        head: (X, Y, Z) in RAS+ order.
        part: of the head, that the stack covers; what moves into it comes from the rest.
        thickness: of the slices, mm.
        noise: standard deviation, as a share of the head's maximum.
        seed: of the noise.
    """
    axis = AXES[plane]
    voxels, spacing = np.asarray(head.dataobj, np.float64), float(head.header.get_zooms()[axis])
    ratio = thickness / spacing
    shape = [s.stop - s.start for s in part]
    shape[axis] = int(shape[axis] / ratio)
    to_voxels = nib.affines.from_matvec(np.eye(3), [s.start for s in part])
    to_voxels[axis, axis], to_voxels[axis, 3] = ratio, part[axis].start + (ratio - 1) / 2
    affine = head.affine @ to_voxels
    to_head = np.linalg.inv(head.affine) @ motion.matrix(head) @ affine
    points = round(thickness / FINE)
    coefficients = spline_filter(voxels, order=3, mode="nearest")
    total = np.zeros(shape)
    for offset in (np.arange(points) + 0.5) / points - 0.5:  # in slices
        places = [np.arange(n) + (offset if a == axis else 0.0) for a, n in enumerate(shape)]
        grid = np.stack(np.meshgrid(*places, indexing="ij"))
        where = np.tensordot(to_head[:3, :3], grid, 1) + to_head[:3, 3].reshape(3, 1, 1, 1)
        total += map_coordinates(coefficients, where, order=3, mode="constant", cval=0.0, prefilter=False)
    drawn = np.random.default_rng(seed).normal(0, noise * voxels.max(), shape)
    return nib.Nifti1Image((total / points + drawn).astype(np.float32), affine)
