"""Slices of one scan that are held out of its adaptation, to see whether that helps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.values import whole_number
from interslice.prior.patches import sharp_slice_axes


def held_out_slices(count: int, every: int = 6) -> list[int]:
    """Of `count` slices every sixth, from the middle of the first six; the middle one where they are fewer."""
    return list(range(every // 2, count, every)) or [count // 2]


class SplitSlicesd(MapTransform):
    """Of a volume, its slices across a sharp axis without every sixth, or with `held_out` those alone.

    Slices of a thick scan are a stack of images, and stay in order. Where several planes are sharp, patches lie across
    any of them: then what is held out is the last sixth of the last axis, in one piece.

    Args:
        keys: volumes (1, X, Y, Z) with their spacing.
        held_out: which of the two parts.
        every: one slice of so many is held out.
    """

    def __init__(self, keys, held_out: bool, every: int = 6) -> None:
        super().__init__(keys)
        self.held_out, self.every = held_out, whole_number("every", every, 2)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key]
            axes = sharp_slice_axes(volume.pixdim)
            axis, count = axes[-1], volume.shape[axes[-1] + 1]
            held = held_out_slices(count, self.every)
            if len(axes) > 1:
                held = list(range(count - len(held), count))
            kept = held if self.held_out else [n for n in range(count) if n not in held]
            voxels = volume.as_tensor().index_select(axis + 1, torch.tensor(kept, device=volume.device))
            # Where a part lies is asked by nobody; how large its voxels are is.
            d[key] = MetaTensor(voxels, affine=volume.affine, meta=volume.meta)
        return d
