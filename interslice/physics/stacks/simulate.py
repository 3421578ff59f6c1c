"""Stacks of a known volume, with noise: what `read` gives of scans.

    y(h) = mean over t, weighted by the slice profile, of v(T (h + t n)) + noise

(stack.py has the symbols.) v is interpolated by cubic splines at points FINE of a voxel apart across a slice, and not
trilinearly and a voxel apart as the operator does: agreement with data that the same arithmetic made would show less
than it seems to.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import map_coordinates, spline_filter

from interslice.files.values import number, whole_number
from interslice.physics.measurement import SIMULATED, Scanner, origin_of
from interslice.physics.stacks.stack import Stack
from interslice.physics.stacks.stacked import profile_points

FINE = 0.5


def scanned(volume: np.ndarray, affine: np.ndarray, stack: Stack) -> np.ndarray:
    """What the slices of a stack (X, Y, Z of its own grid) hold of a volume (X, Y, Z); 0 lies around it.

    Args:
        volume: 0 without signal.
        affine: (4, 4) of the volume.
        stack: its grid, profile and poses; not its voxels.
    """
    voxel = float(np.linalg.norm(affine[:3, :3], axis=0).min())
    offsets, shares = (t.numpy() for t in profile_points(stack, FINE * voxel))
    ways = stack.ways(torch.linalg.inv(torch.from_numpy(np.asarray(affine, np.float64)))).numpy()
    rows, columns = stack.slices.shape[1:]
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    coefficients = spline_filter(np.asarray(volume, np.float64), order=3, mode="nearest")
    out = np.zeros(stack.slices.shape, np.float32)
    last = np.array(volume.shape)[:, None, None] - 1
    for k, (origin, along_i, along_j, across) in enumerate(ways[..., None, None]):
        for offset, share in zip(offsets, shares):
            places = origin + offset * across + along_i * i + along_j * j
            inside = ((places >= -0.5) & (places <= last + 0.5)).all(0)  # half a voxel beyond its middle, as it is
            values = map_coordinates(coefficients, places, order=3, mode="nearest", prefilter=False)
            out[k] += share * np.where(inside, values, 0.0)
    return np.moveaxis(out, 0, stack.axis)


class SimulateStacksd(MapTransform):
    """Replaces a volume by simulated stacks of it and keeps the volume as the truth.

    Args:
        keys: volume (1, X, Y, Z), 0 without signal.
        scanner: measures the volume (interslice.physics.stacks.Stacks).
        noise_std: standard deviation of Gaussian noise, as a share of the volume's maximum.
        seed: of that noise.
        label_key: where the truth goes.
    """

    def __init__(self, keys, scanner: Scanner, noise_std: float = 0.0, seed: int = 0, label_key: str = "label") -> None:
        super().__init__(keys)
        self.scanner, self.label_key = scanner, label_key
        self.noise_std = number("measurement_noise", noise_std, 0, below=1, kind="a share of the volume's maximum")
        self.seed = whole_number("seed", seed)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        operator = self.scanner.for_volume(volume)
        voxels, random = volume.as_tensor()[0].cpu().numpy(), np.random.default_rng(self.seed)
        stacks = []
        for stack in operator.stacks:
            measured = scanned(voxels, operator.affine.numpy(), stack)
            if self.noise_std:
                measured += random.normal(0, self.noise_std * float(voxels.max()), measured.shape).astype(np.float32)
            known = (
                {} if self.scanner.motion_known else {"poses": torch.eye(4, dtype=torch.float64).expand_as(stack.poses)}
            )
            stacks.append(stack.moved(voxels=torch.from_numpy(np.ascontiguousarray(measured)), **known))
        operator = operator.replaced(stacks)
        meta = origin_of(volume) | {"stacks": operator.stacks, SIMULATED: operator}
        d[key] = MetaTensor(
            operator.measurement()[None],
            affine=operator.affine,
            meta=meta,
            applied_operations=volume.applied_operations,
        )
        d[self.label_key] = volume
        return d
