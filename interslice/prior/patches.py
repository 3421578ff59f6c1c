"""2-D patches of 3-D volumes, for training a slice prior.

A volume (1, X, Y, Z) is cut along any of its axes; the slices across axis a lie in the plane of the other
two. Of a thick scan only the planes whose two spacings are fine are sharp, and `slice_axes="sharp"` finds them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from interslice.files.values import number, whole_number

SHARP_RATIO = 1.5
"""A plane is sharp when both its spacings are below this multiple of the volume's finest spacing."""


def sharp_slice_axes(spacing: torch.Tensor) -> list[int]:
    """The axes across which slices are sharp, for three spacings in mm: all of them if isotropic."""
    fine = spacing < SHARP_RATIO * spacing.min()
    axes = [a for a in range(3) if all(fine[b] for b in range(3) if b != a)]
    if not axes:
        raise ValueError(
            f"no plane of a volume with spacing {[round(float(s), 3) for s in spacing]} mm is sharp: two axes must "
            f"be below {SHARP_RATIO} times the finest; resample the volume or name its slice axes"
        )
    return axes


class RandSlicePatchesd(Randomizable, MapTransform):
    """Draws `num_patches` square patches of random slices; returns one dictionary for each.

    Args:
        keys: volumes (1, X, Y, Z) in [0, 1], with their spacing if they are MetaTensor.
        patch_size: side in voxels; smaller slices are padded with their border.
        num_patches: patches per volume and call.
        slice_axes: axes to slice across, each equally likely, or "sharp" to take them from the spacing.
        foreground: a patch centre below this value is drawn again (up to 20 times), so that few show only air.

    Raises:
        ValueError: a volume is not (1, X, Y, Z), or has no sharp plane.
    """

    def __init__(self, keys, patch_size: int, num_patches: int, slice_axes: list[int] | str = "sharp",
                 foreground: float = 0.1) -> None:  # fmt: skip
        MapTransform.__init__(self, keys)
        self.patch_size = whole_number("patch_size", patch_size, 1)
        self.num_patches = whole_number("num_patches", num_patches, 1)
        self.foreground = number("foreground", foreground)
        self.slice_axes = slice_axes

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict]:
        key = self.first_key(data)
        volume = data[key]
        if volume.ndim != 4 or volume.shape[0] != 1:
            raise ValueError(f"expected a volume (1, X, Y, Z), got {tuple(volume.shape)}")
        axes = self.slice_axes
        if axes == "sharp":
            axes = sharp_slice_axes(volume.pixdim) if isinstance(volume, MetaTensor) else [0, 1, 2]
        voxels = volume.as_tensor()[0] if isinstance(volume, MetaTensor) else volume[0]
        return [{key: self._patch(voxels, axes)} for _ in range(self.num_patches)]

    def _patch(self, volume: torch.Tensor, axes: list[int]) -> torch.Tensor:
        axis = axes[self.R.randint(len(axes))]
        for _ in range(20):
            centre = [int(self.R.randint(n)) for n in volume.shape]
            if volume[tuple(centre)] > self.foreground:
                break
        image = volume.select(axis, centre.pop(axis))
        for dim, c in enumerate(centre):
            size = min(self.patch_size, image.shape[dim])
            start = min(max(c - self.R.randint(size), 0), image.shape[dim] - size)
            image = image.narrow(dim, start, size)
        pad = [(self.patch_size - n) for n in image.shape]
        image = torch.nn.functional.pad(image[None, None], (0, pad[1], 0, pad[0]), mode="replicate")
        return image[0].clone()
