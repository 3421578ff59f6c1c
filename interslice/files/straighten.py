"""Sheared volumes, as a tilted gantry leaves them, on straight slices.

    A = [a_u a_v a_n] = Q R        steps of the voxels (mm); n: the axis of the slices, the one with the largest steps
    A' = Q diag(R)                 the straight grid: the same slices, the same distance between them, the same voxel's
                                   volume; u keeps its direction, v and n become perpendicular to what is before them

R is upper triangular, so A^-1 A' leaves the index along n alone: each slice is moved and stretched within its plane,
and nothing is mixed across slices, whose thickness stays what it is. QR: Golub and Van Loan, "Matrix Computations".
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import replace

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import affine_transform

from interslice.files.check import MAX_SHEAR, shear_of
from interslice.files.source import source_of
from interslice.files.switch import is_on

LARGEST = 45.0
"""Degrees of shear up to which a volume is resampled; no gantry tilts further."""
LOWEST = 0.001
"""What lies outside the scan gets the value that this share of the voxels is below: air, and no outlier."""


class ResampleSheard(MapTransform):
    """Brings volumes (1, X, Y, Z) that `CheckVolumed` would refuse for their shear onto straight slices; says so.

    All others pass as they are. The result of a reconstruction lies on the straight grid.

    Args:
        keys: volumes with their affines.
        enabled: a switch; without it every volume passes.
        order: of the splines that interpolate within a slice: 3 for images, 0 (nearest) for masks.
        allow_missing_keys: whether a key may be absent.
    """

    def __init__(self, keys, enabled: bool | str = False, order: int = 3, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.enabled, self.order = is_on(enabled, "resample_shear"), order

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.enabled and is_sheared(d[key]):
                d[key] = straightened(d[key], self.order)
        return d


def is_sheared(volume: torch.Tensor) -> bool:
    """Whether it is one volume (1, X, Y, Z) whose axes span space, but not at right angles."""
    if not isinstance(volume, MetaTensor) or volume.ndim != 4 or volume.shape[0] != 1:
        return False
    affine = volume.affine
    spans = bool(torch.isfinite(affine).all()) and float(torch.linalg.det(affine[:3, :3])) != 0
    return spans and shear_of(affine) > MAX_SHEAR


def straightened(volume: MetaTensor, order: int = 3) -> MetaTensor:
    """The volume (1, X, Y, Z) on straight slices that hold all of it.

    Raises:
        ValueError: the axes are off right angles by more than LARGEST.
    """
    name, shear = volume.meta.get("filename_or_obj", "the image"), shear_of(volume.affine)
    if shear > LARGEST:
        raise ValueError(
            f"{name}: its axes are {shear:.1f} degrees off a right angle, and at most {LARGEST:g} are resampled; "
            "repair the header"
        )
    sheared = np.asarray(volume.affine, dtype=np.float64)
    affine, shape = straight_grid(sheared, tuple(volume.shape[1:]))
    back = np.linalg.inv(sheared) @ affine
    voxels = _moved(volume.as_tensor()[0].cpu().numpy(), back, shape, slice_axis(sheared), order)
    warnings.warn(
        f"{name}: its axes are {shear:.1f} degrees off a right angle; resampled onto straight slices, as asked "
        f"(resample_shear), {tuple(volume.shape[1:])} to {shape} voxels: the result lies on that grid",
        stacklevel=3,
    )
    source = source_of(volume)
    if source.nifti is not None:
        source = replace(source, nifti=source.nifti.straightened(affine))
    meta = {name: value for name, value in volume.meta.items() if name != "affine"}
    meta |= {"spatial_shape": np.array(shape), "original_affine": affine.copy(), "source": source}
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(affine), meta=meta)


def straight_grid(affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine (4, 4) and shape of the straight grid that holds all of a sheared one; its slices are the same."""
    slices = slice_axis(affine)
    order = [*(axis for axis in range(3) if axis != slices), slices]
    q, r = np.linalg.qr(affine[:3, order])
    straight = np.eye(4)
    straight[:3, order] = q * np.diag(r)  # the signs of q and of r cancel
    straight[:3, 3] = affine[:3, 3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    corners = np.linalg.inv(straight[:3, :3]) @ affine[:3, :3] @ corners
    first = np.floor(corners.min(axis=1) + 1e-6)  # what rounding adds is no voxel
    last = np.ceil(corners.max(axis=1) - 1e-6)
    straight[:3, 3] += straight[:3, :3] @ first
    return straight, tuple(int(n) for n in last - first + 1)


def slice_axis(affine: np.ndarray) -> int:
    """The axis with the largest steps; of equal ones, the last."""
    return 2 - int(np.linalg.norm(affine[:3, :3], axis=0).round(3)[::-1].argmax())


def _moved(voxels: np.ndarray, back: np.ndarray, shape: tuple[int, ...], slices: int, order: int) -> np.ndarray:
    """Voxels on a grid of `shape`, whose indices `back` (4, 4) takes to those of `voxels`; slice by slice."""
    plane = [axis for axis in range(3) if axis != slices]
    back = back.round(9)  # or the edges fall off the grid by rounding
    fill = float(np.quantile(voxels, LOWEST))
    moved = np.empty(shape, np.float32)
    for k, image in enumerate(np.moveaxis(voxels, slices, 0)):
        np.moveaxis(moved, slices, 0)[k] = affine_transform(
            image, back[np.ix_(plane, plane)], back[plane, slices] * k + back[plane, 3],
            tuple(shape[axis] for axis in plane), order=order, mode="constant", cval=fill,
        )  # fmt: skip
    return moved.clip(voxels.min(), voxels.max())  # splines overshoot at edges
