"""Refusing volumes that cannot be reconstructed, before any long work begins."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

MAX_SHEAR = 1.0
"""Degrees. What registration to a template leaves of shear stays below; gantries are tilted by more."""


class CheckVolumed(MapTransform):
    """Passes 3-D single-channel volumes on and refuses everything else, naming the file and the fix.

    Expects channel-first images as `LoadVolumed` gives them. Raises ValueError for
    an image that is not (1, X, Y, Z), NaN or Inf voxels, a constant image, spacing that is not positive, or axes that
    are off right angles by more than MAX_SHEAR.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            check_volume(data[key])
        return dict(data)


def check_volume(volume: torch.Tensor) -> None:
    """Raise ValueError unless `volume` is a finite, non-constant (1, X, Y, Z) image of positive spacing."""
    name = volume.meta.get("filename_or_obj", "the image") if isinstance(volume, MetaTensor) else "the image"
    shape = tuple(volume.shape)
    if volume.ndim != 4:
        raise ValueError(
            f"{name}: expected one 3-D volume, got an image of {volume.ndim - 1} dimensions {shape[1:]}; split it first"
        )
    if shape[0] != 1:
        raise ValueError(f"{name}: expected one channel, got {shape[0]}; save each channel as its own volume")
    if min(shape[1:]) < 2:
        raise ValueError(f"{name}: expected a 3-D volume, got {shape[1:]}: an axis has a single voxel")
    if isinstance(volume, MetaTensor):
        affine = volume.affine
        if (
            not torch.isfinite(affine).all()
            or not (volume.pixdim > 0).all()
            or float(torch.linalg.det(affine[:3, :3])) == 0
        ):
            raise ValueError(
                f"{name}: spacing {volume.pixdim.tolist()} mm is not positive in each direction; repair the header"
            )
        if (shear := shear_of(affine)) > MAX_SHEAR:
            raise ValueError(
                f"{name}: its axes are {shear:.1f} degrees off a right angle (a tilted gantry, or a registration), and "
                f"at most {MAX_SHEAR:g} are supported; --resample_shear yes resamples it onto straight slices"
            )
    bad = int((~torch.isfinite(volume)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} voxels are NaN or infinite; replace them (for example with 0) first")
    if float(volume.max()) == float(volume.min()):
        raise ValueError(f"{name}: every voxel is {float(volume.max()):g}; a constant volume cannot be reconstructed")


def shear_of(affine: torch.Tensor) -> float:
    """How far (degrees) the axes of an affine (4, 4) are off right angles, at most."""
    axes = affine[:3, :3] / affine[:3, :3].norm(dim=0)
    cosines = (axes.T @ axes - torch.eye(3, dtype=axes.dtype, device=axes.device)).abs().max()
    return float(torch.rad2deg(torch.asin(cosines.clamp(max=1))))
