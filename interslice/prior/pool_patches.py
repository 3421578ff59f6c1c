"""Batches of patches drawn from a pool of volumes on the device, augmented there.

Positions have the law of `interslice.prior.patches.RandSlicePatchesd`. Draws are those of torch's global generator of
the device, which `interslice.prior.keyed_epochs` begins anew with every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from interslice.files.values import number, whole_number
from interslice.prior.pool import VolumePool

TRIES = 20
"""Centres that are drawn, of which the first that is no air is taken, or else the last."""
IN_PLANE = ((1, 2), (0, 2), (0, 1))
"""Axes of a slice, by the axis that it lies across."""


class PatchBatches:
    """Batches {"image": (N, 1, P, P)} in the prior's range, without end.

    Args:
        dataset: the pool.
        batch_size: patches of a batch, N.
        patch_size: side in voxels, P; smaller slices are padded with their border.
        foreground: least value, of the pool's, at a patch's centre, as far as it can be had.
        augment: functions of patches (N, 1, P, P) in [0, 1], taken in turn.
    """

    def __init__(self, dataset: VolumePool, batch_size: int, patch_size: int, foreground: float = 0.1,
                 augment: Sequence[Callable[[torch.Tensor], torch.Tensor]] = ()) -> None:  # fmt: skip
        self.dataset, self.augment = dataset, tuple(augment)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.patch_size = whole_number("patch_size", patch_size, 1)
        self.foreground = number("foreground", foreground)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            patches = self.gather(*self.draw())
            for step in self.augment:
                patches = step(patches)
            yield {"image": patches.mul_(2).sub_(1)}

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Volumes (N,), axes across which they are sliced (N,), and the first voxels (N, 3) of patches."""
        pool, n, device = self.dataset, self.batch_size, self.dataset.device
        volume = torch.multinomial(pool.weight, n, replacement=True)
        axis = torch.multinomial(pool.axes[volume], 1)[:, 0]
        shape = pool.shape[volume]
        tried = _below(shape[:, None].expand(n, TRIES, 3))
        subject = pool.at(volume[:, None].expand(n, TRIES), tried) > self.foreground
        subject[:, -1] = True
        rows = torch.arange(n, device=device)
        centre = tried[rows, subject.float().argmax(1)]  # argmax: the first of equals
        size = shape.clamp_max(self.patch_size)
        start = torch.minimum((centre - _below(size)).clamp_min(0), shape - size)
        start[rows, axis] = centre[rows, axis]
        return volume, axis, start

    def gather(self, volume: torch.Tensor, axis: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The patches (N, 1, P, P) that begin at the voxels `start` (N, 3) of slices across `axis` (N,)."""
        n, side, device = len(volume), self.patch_size, self.dataset.device
        rows, columns = torch.tensor(IN_PLANE, device=device)[axis].T
        all_of, steps = torch.arange(n, device=device), torch.arange(side, device=device)
        last = self.dataset.shape[volume] - 1
        stride = self.dataset.strides[volume]
        first = (start * stride).sum(1) + self.dataset.offset[volume]

        def along(dim: torch.Tensor) -> torch.Tensor:
            index = torch.minimum(start[all_of, dim][:, None] + steps, last[all_of, dim][:, None])
            return (index - start[all_of, dim][:, None]) * stride[all_of, dim][:, None]

        flat = first[:, None, None] + along(rows)[:, :, None] + along(columns)[:, None, :]
        return self.dataset.values(volume[:, None, None], flat)[:, None]


def _below(limit: torch.Tensor) -> torch.Tensor:
    """Whole numbers from 0 to below `limit`, each as likely, up to 2^-24 of it: of a shape like it."""
    return torch.minimum((torch.rand(limit.shape, device=limit.device) * limit).long(), limit - 1)
