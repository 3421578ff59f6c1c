"""Thick stacks of one head for tests: the same volume, seen across three axes, with noise of each."""

import nibabel as nib
import numpy as np

from tests.support.scans import head_voxels

SHAPE = (24, 24, 24)
AXES = {"sag": 0, "cor": 1, "ax": 2}


def thick(plane, factor=4, seed=0, noise=5.0):
    """(voxels, affine) of a stack across an axis: `factor` voxels of 1 mm to a slice, on the same place as the head."""
    axis, head = AXES[plane], head_voxels(SHAPE)
    shape = list(SHAPE)
    shape[axis : axis + 1] = [SHAPE[axis] // factor, factor]
    voxels = head.reshape(shape).mean(axis + 1)
    voxels = voxels + np.random.default_rng([seed, axis]).normal(0, noise, voxels.shape)
    affine = np.eye(4)
    affine[axis, axis], affine[axis, 3] = factor, (factor - 1) / 2
    return voxels.astype(np.float32), affine


def write_stack(path, plane="ax", shift=(0, 0, 0), scale=1.0, code=1, **about):
    """Write a stack as NIfTI, moved (mm), its voxels scaled, in the space of this code; returns the path."""
    voxels, affine = thick(plane, **about)
    affine = np.diag([scale, scale, scale, 1]) @ affine
    affine[:3, 3] += shift
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path
