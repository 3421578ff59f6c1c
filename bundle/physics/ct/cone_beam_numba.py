"""Cone-beam rays compiled by numba, for float32 on CPUs. See cone_beam.py.

Forward, threads share out the fans; backward, the voxel lines, which no two threads then write to. Sums are taken in
one fixed order, so results do not depend on the number of threads. Tables are [X * Y, Z] and [rays, rows]; both
functions add to their last argument.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch


def project(fans, table: torch.Tensor, rays: torch.Tensor) -> None:
    """rays += A table, for the rays of `fans`."""
    with _threads():
        _project(*_arrays(fans), table.numpy(), rays.numpy())


def back_project(fans, rays: torch.Tensor, table: torch.Tensor) -> None:
    """table += A^T rays, for the rays of `fans`."""
    with _threads():
        _back_project(*_arrays(fans), rays.numpy(), table.numpy())


def _arrays(fans) -> tuple:
    tensors = (fans.ray, fans.start, fans.step, fans.start_across, fans.step_across, fans.start_up, fans.rise,
               fans.length, fans.lines)  # fmt: skip
    return (
        *(t.numpy() for t in tensors),
        (*fans.origin, *fans.spacing),
        (fans.num_across, fans.stride, fans.stride_across),
    )


class _threads:
    """As many numba threads as torch uses."""

    def __enter__(self) -> None:
        self.before = numba.get_num_threads()
        numba.set_num_threads(max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)))

    def __exit__(self, *_) -> None:
        numba.set_num_threads(self.before)


@numba.njit(inline="always")
def _meet(f, i, start, step, start_across, step_across, start_up, lines, scale):
    """Where fan f meets line i: position across, in voxels, and the slices at rise 0 and per mm of rise."""
    t = (lines[i] - start[f]) / step[f]
    across = (start_across[f] + t * step_across[f] - scale[0]) / scale[2]
    return across, (start_up[f] - scale[1]) / scale[3], t / scale[3]


@numba.njit(parallel=True, fastmath=True, cache=True)
def _project(ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, counts, table, rays):
    num_slices, num_rows = table.shape[1], rays.shape[1]
    num_across, stride, stride_across = counts
    for f in numba.prange(len(ray)):
        curtain = np.zeros(num_slices + 2, np.float32)
        total = np.zeros(num_rows, np.float32)
        for i in range(len(lines)):
            across, up0, per_rise = _meet(f, i, start, step, start_across, step_across, start_up, lines, scale)
            lower = int(math.floor(across))
            if lower < -1 or lower >= num_across:
                continue
            share = np.float32(across - lower)
            first = i * stride + lower * stride_across
            if lower < 0:
                curtain[1:-1] = share * table[first + stride_across]
            elif lower == num_across - 1:
                curtain[1:-1] = (np.float32(1) - share) * table[first]
            else:
                curtain[1:-1] = (np.float32(1) - share) * table[first] + share * table[first + stride_across]
            for r in range(num_rows):
                up = min(max(up0 + per_rise * rise[f, r], -1.0), float(num_slices))
                below = min(int(math.floor(up)), num_slices - 1)
                s = np.float32(up - below)
                total[r] += (np.float32(1) - s) * curtain[below + 1] + s * curtain[below + 2]
        for r in range(num_rows):
            rays[ray[f], r] += total[r] * np.float32(length[f, r])


@numba.njit(parallel=True, fastmath=True, cache=True)
def _back_project(
    ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, counts, rays, table
):
    num_slices, num_rows = table.shape[1], rays.shape[1]
    num_across, stride, stride_across = counts
    for i in numba.prange(len(lines)):
        curtain = np.empty(num_slices + 2, np.float32)
        for f in range(len(ray)):
            across, up0, per_rise = _meet(f, i, start, step, start_across, step_across, start_up, lines, scale)
            lower = int(math.floor(across))
            if lower < -1 or lower >= num_across:
                continue
            share = np.float32(across - lower)
            curtain[:] = 0
            for r in range(num_rows):
                up = min(max(up0 + per_rise * rise[f, r], -1.0), float(num_slices))
                below = min(int(math.floor(up)), num_slices - 1)
                s = np.float32(up - below)
                g = rays[ray[f], r] * np.float32(length[f, r])
                curtain[below + 1] += (np.float32(1) - s) * g
                curtain[below + 2] += s * g
            first = i * stride + lower * stride_across
            if lower >= 0:
                table[first] += (np.float32(1) - share) * curtain[1:-1]
            if lower < num_across - 1:
                table[first + stride_across] += share * curtain[1:-1]
