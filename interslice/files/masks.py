"""Masks and label maps that go along with a scan: read with it, and carried to the grid of its result."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.carried import carried
from interslice.files.doubts import add_doubts
from interslice.files.label_vote import vote
from interslice.files.limits import Limits
from interslice.files.read import LoadVolume
from interslice.files.scan import Refusal
from interslice.files.switch import is_on

LARGEST = 2**24
"""A label, at most: volumes are read as float32."""
ALIKE = 0.01
"""Grids that differ by less than this share of a voxel, for each voxel on the way, are one."""


@carried
@dataclass(frozen=True, eq=False)
class LabelMap:
    """A mask or label map, in the metadata of its scan as "label_map" ("mask" is that of k-space).

    Attributes:
        labels: (X, Y, Z) of the smallest type that holds them.
        affine: (4, 4), voxel to RAS in mm.
        path: of the file.
    """

    labels: np.ndarray
    affine: np.ndarray
    path: str

    def on(self, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
        """(shape) on another grid; see `interslice.files.label_vote`."""
        return vote(self.labels, self.affine, shape, np.asarray(affine, np.float64))


class CarryMaskd(MapTransform):
    """Reads the mask of a scan, whose path the data hold as "mask", into the scan's metadata.

    Args:
        keys: scans (1, X, Y, Z) as they were read, their affine in RAS.
        mask_key: of the path.
        inside: a switch: the mask will restrict the reconstruction (interslice.sampling.inside).
        limits: of the size of a file.

    Raises:
        ValueError: the mask cannot be read, is no map of whole numbers, is empty, or lies elsewhere; or it is to
            restrict the reconstruction, and there is none, or the scan does not consist of thick slices.
    """

    def __init__(self, keys, mask_key: str = "mask", inside: bool | str = False, limits: Limits | None = None) -> None:
        super().__init__(keys)
        self.mask_key, self.inside = mask_key, is_on(inside, "inside")
        self.read = LoadVolume(image_only=True, ensure_channel_first=True, limits=limits)

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        d = dict(data)
        path = d.pop(self.mask_key, None)
        if self.inside:
            self._check_inside(d, path)
        if path is None:
            return d
        mask = label_map(self.read(path), str(path))
        for key in self.key_iterator(d):
            d[key].meta["label_map"] = mask
            if (said := doubt_about(mask, d[key])) and not ("label" in d and is_on_grid_of(mask, d["label"])):
                add_doubts(d[key], said)
        return d

    def _check_inside(self, data: Mapping[Hashable, object], path: str | None) -> None:
        if path is None:
            raise Refusal("--inside restricts the reconstruction to a mask, and this scan has none: see --mask_dir")
        for key in self.key_iterator(data):
            operator = data[key].meta.get("operator")
            if not getattr(operator, "separable_axes", ()) or operator.averaged_axis is None:
                raise Refusal(
                    f"--inside restricts the reconstruction of thick slices, and {type(operator).__name__} measures "
                    "otherwise: leave it off"
                )


def label_map(volume: MetaTensor, path: str) -> LabelMap:
    """A volume as a label map. Raises Refusal where it is none."""
    if volume.ndim != 4 or volume.shape[0] != 1:
        several = f"holds {volume.shape[0]} volumes" if volume.ndim == 4 else f"has {volume.ndim - 1} dimensions"
        raise Refusal(f"its mask {path} {several}: a mask is one 3-D volume")
    voxels = volume.as_tensor()[0]
    if not bool(torch.isfinite(voxels).all()):
        raise Refusal(f"its mask {path} holds NaN or infinity: replace them by 0")
    if not torch.equal(voxels, voxels.round()):
        part = float(voxels[voxels != voxels.round()].flatten()[0])
        raise Refusal(f"its mask {path} holds {part:.4g}, and labels are whole numbers: round it, or set a threshold")
    low, high = int(voxels.min()), int(voxels.max())
    if low == high == 0:
        raise Refusal(f"its mask {path} is empty: every voxel is 0")
    if low < -LARGEST or high > LARGEST:
        raise Refusal(f"its mask {path} holds labels up to {max(high, -low)}, and at most {LARGEST} are read exactly")
    kinds = (np.uint8, np.int16, np.int32)
    kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    return LabelMap(voxels.numpy().astype(kind), volume.affine.double().numpy(), path)


def doubt_about(mask: LabelMap, scan: MetaTensor) -> str:
    """What is said of a mask on another grid than its scan's; "" of one on its grid, its axes in any order.

    Raises:
        Refusal: none of its labels lies within the scan.
    """
    operator, stacked = scan.meta.get("operator"), "stacks" in scan.meta  # which have many grids, and their volume one
    affine = operator.domain_affine(scan.affine) if stacked else scan.affine
    shape = np.array(operator.domain_shape if stacked else scan.shape[1:])
    to_scan = np.linalg.inv(affine.double().cpu().numpy()) @ mask.affine
    places = to_scan[:3, :3] @ np.stack(np.nonzero(mask.labels)) + to_scan[:3, 3:]
    inside = ((places > -0.5) & (places < shape[:, None] - 0.5)).all(0)
    if not inside.any():
        raise Refusal(f"none of its mask {mask.path} lies within the scan: is it of another scan, or its header wrong?")
    if stacked or is_on_grid_of(mask, scan):
        return ""
    beyond = "" if inside.all() else f", {1 - inside.mean():.0%} of it beyond the scan"
    return f"its mask lies on another grid than the scan{beyond}: it is carried by its own header"


def is_on_grid_of(mask: LabelMap, volume: MetaTensor) -> bool:
    """Whether the voxels of a mask are those of a volume (1, X, Y, Z), its axes in any order."""
    to_volume = np.linalg.inv(volume.affine.double().cpu().numpy()) @ mask.affine
    shape = np.array(volume.shape[1:])
    corners = np.stack([np.zeros(3), np.array(mask.labels.shape) - 1], 1)
    ends = np.sort(to_volume[:3, :3] @ corners + to_volume[:3, 3:], axis=1)
    straight = np.allclose(np.sort(np.abs(to_volume[:3, :3]), axis=1), [0, 0, 1], atol=ALIKE)
    return straight and np.allclose(ends, np.stack([np.zeros(3), shape - 1], 1), atol=ALIKE * shape[:, None])
