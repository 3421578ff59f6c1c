"""Cone-beam rays in torch, on any device and in any float type. See cone_beam.py.

Fans and tables lie on one device. Tables are [X * Y, Z] and [rays, rows]; both functions add to their last argument.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

CHUNK = 2**22
"""Samples of the curtains that are handled at once: bounds the memory to some 100 MB."""


def project(fans, table: torch.Tensor, rays: torch.Tensor) -> None:
    """rays += A table, for the rays of `fans`."""
    padded = F.pad(table, (1, 1)).flatten()  # an empty slice on either side
    for part in _parts(fans, table):
        pixel, weight, lower, share = _samples(fans, part, table)
        if _direct(fans, table):
            place = pixel[..., None] * (table.shape[1] + 2) + lower
            near = torch.lerp(padded[place], padded[place + 1], share)
            read = (near * weight[..., None]).sum(0)
        else:
            curtain = (table[pixel] * weight[..., None]).sum(0)  # (fans, lines, slices)
            curtain = F.pad(curtain, (1, 1))
            read = torch.lerp(curtain.gather(2, lower), curtain.gather(2, lower + 1), share)
        rays.index_add_(0, fans.ray[part], read.sum(1) * fans.length[part].to(rays))


def back_project(fans, rays: torch.Tensor, table: torch.Tensor) -> None:
    """table += A^T rays, for the rays of `fans`."""
    padded = table.new_zeros(table.shape[0], table.shape[1] + 2)
    for part in _parts(fans, table):
        pixel, weight, lower, share = _samples(fans, part, table)
        written = (rays[fans.ray[part]] * fans.length[part].to(rays))[:, None]
        if _direct(fans, table):
            place = pixel[..., None] * padded.shape[1] + lower
            written = written * weight[..., None]
            for p, w in ((place, written * (1 - share)), (place + 1, written * share)):
                padded.view(-1).index_add_(0, p.flatten(), w.flatten())
        else:
            curtain = table.new_zeros(*lower.shape[:2], padded.shape[1])
            curtain.scatter_add_(2, lower, written * (1 - share)).scatter_add_(2, lower + 1, written * share)
            for p, w in zip(pixel, weight):
                padded.index_add_(0, p.flatten(), (curtain * w[..., None]).flatten(0, 1))
    table.add_(padded[:, 1:-1])


def _direct(fans, table: torch.Tensor) -> bool:
    """Whether rays read voxels themselves: where a curtain would be far taller than the rows that read it."""
    return table.shape[1] > 3 * fans.rise.shape[1]


def _parts(fans, table: torch.Tensor):
    height = 4 * fans.rise.shape[1] if _direct(fans, table) else max(fans.rise.shape[1], table.shape[1])
    step = max(1, CHUNK // (len(fans.lines) * height))
    return (slice(i, i + step) for i in range(0, len(fans.ray), step))


def _samples(fans, part: slice, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Where the fans of a part meet the voxel lines.

    Returns the two pixels of each (2, F, L) and their weights, and for every row the slice below it, counted in a
    curtain with one empty slice on either side, and the share of the slice above, (F, L, R) both.
    """
    t = (fans.lines - fans.start[part, None]) / fans.step[part, None]
    across = (fans.start_across[part, None] + t * fans.step_across[part, None] - fans.scale[0]) / fans.scale[2]
    lower = across.floor()
    both = torch.stack([lower, lower + 1])
    weight = torch.stack([lower + 1 - across, across - lower]) * ((both >= 0) & (both < fans.num_across))
    pixel = both.clamp(0, fans.num_across - 1).long() * fans.stride_across
    pixel = pixel + torch.arange(len(fans.lines), device=pixel.device) * fans.stride
    first = ((fans.start_up[part, None] - fans.scale[1]) / fans.scale[3])[..., None]
    rise = (fans.rise[part] / fans.scale[3])[:, None]
    up = torch.addcmul(first, t[..., None], rise).clamp_(-1, like.shape[1])
    below = up.floor().clamp_max_(like.shape[1] - 1)
    share = (up - below).to(like.dtype)
    return pixel, weight.to(like), (below + 1).long(), share
