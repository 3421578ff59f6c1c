"""Cone-beam rays compiled by numba, for float32 on CPUs. See cone_beam.py.

Forward, threads share out the fans; backward, the voxel lines, which no two threads then write to. Sums are taken in
one fixed order, so results do not depend on the number of threads. Tables are [X * Y, Z] and [rays, rows]; both
functions add to their last argument.

The threads are Python's, and the kernels let go of its lock. numba's own (`parallel=True`) set the number of threads of
OpenMP, which torch uses too, so that whatever came after a cone beam was computed otherwise; they also end a process
that forks after using them, as a DataLoader does, or that uses them from two threads at once.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

PARTS = 4
"""Parts of the work for each thread: the rays of some fans miss the volume, and take no time."""
SMALL = 1 << 21
"""Meetings of rays and voxel lines that take less time than it takes to start threads."""


def project(fans, table: torch.Tensor, rays: torch.Tensor) -> None:
    """rays += A table, for the rays of `fans`."""
    _share_out(_project, fans, len(fans.ray), *_arrays(fans), table.numpy(), rays.numpy())


def back_project(fans, rays: torch.Tensor, table: torch.Tensor) -> None:
    """table += A^T rays, for the rays of `fans`."""
    _share_out(_back_project, fans, len(fans.lines), *_arrays(fans), rays.numpy(), table.numpy())


def _arrays(fans) -> tuple:
    tensors = (fans.ray, fans.start, fans.step, fans.start_across, fans.step_across, fans.start_up, fans.rise,
               fans.length, fans.lines)  # fmt: skip
    return (
        *(t.numpy() for t in tensors),
        tuple(fans.scale.tolist()),
        (fans.num_across, fans.stride, fans.stride_across),
    )


def _share_out(kernel, fans, count: int, *arguments) -> None:
    """`kernel(begin, end, *arguments)` for parts of range(count), on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1 or fans.rise.numel() * len(fans.lines) < SMALL:
        kernel(0, count, *arguments)
        return
    bounds = np.linspace(0, count, min(PARTS * threads, count) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(kernel, begin, end, *arguments) for begin, end in zip(bounds, bounds[1:])]
    for part in done:
        part.result()  # raises what the part raised


@numba.njit(inline="always")
def _meet(f, i, start, step, start_across, step_across, start_up, lines, scale):
    """Where fan f meets line i: position across, in voxels, and the slices at rise 0 and per mm of rise."""
    t = (lines[i] - start[f]) / step[f]
    across = (start_across[f] + t * step_across[f] - scale[0]) / scale[2]
    return across, (start_up[f] - scale[1]) / scale[3], t / scale[3]


@numba.njit(inline="always")
def _reached(f, up0, per_rise, rise, num_slices):
    """First slice, and the one after the last, that the rows of fan f read on a line: few, if the volume is long."""
    one, other = up0 + per_rise * rise[f, 0], up0 + per_rise * rise[f, rise.shape[1] - 1]
    low, high = max(min(one, other), -1.0), min(max(one, other), float(num_slices))
    return max(int(math.floor(low)), 0), min(int(math.floor(high)) + 2, num_slices)


@numba.njit(nogil=True, fastmath=True, cache=True)
def _project(
    begin, end, ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, counts, table, rays
):
    num_slices, num_rows = table.shape[1], rays.shape[1]
    num_across, stride, stride_across = counts
    curtain = np.zeros(num_slices + 2, np.float32)
    total = np.empty(num_rows, np.float32)
    for f in range(begin, end):
        total[:] = 0
        for i in range(len(lines)):
            across, up0, per_rise = _meet(f, i, start, step, start_across, step_across, start_up, lines, scale)
            lower = int(math.floor(across))
            if lower < -1 or lower >= num_across:
                continue
            begin_slice, end_slice = _reached(f, up0, per_rise, rise, num_slices)
            if begin_slice >= end_slice:
                continue
            share = np.float32(across - lower)
            first = i * stride + lower * stride_across
            count = end_slice - begin_slice
            read = curtain[begin_slice + 1 : end_slice + 1]  # views from 0, which compilers make vectors of
            near = table[max(first, 0), begin_slice:end_slice]
            far = table[min(first + stride_across, len(table) - 1), begin_slice:end_slice]
            if lower < 0:
                for k in range(count):
                    read[k] = share * far[k]
            elif lower == num_across - 1:
                for k in range(count):
                    read[k] = (np.float32(1) - share) * near[k]
            else:
                for k in range(count):
                    read[k] = (np.float32(1) - share) * near[k] + share * far[k]
            for r in range(num_rows):
                up = min(max(up0 + per_rise * rise[f, r], -1.0), float(num_slices))
                below = min(int(math.floor(up)), num_slices - 1)
                s = np.float32(up - below)
                total[r] += (np.float32(1) - s) * curtain[below + 1] + s * curtain[below + 2]
        for r in range(num_rows):
            rays[ray[f], r] += total[r] * np.float32(length[f, r])


@numba.njit(nogil=True, fastmath=True, cache=True)
def _back_project(
    begin, end, ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, counts, rays, table
):
    num_slices, num_rows = table.shape[1], rays.shape[1]
    num_across, stride, stride_across = counts
    curtain = np.empty(num_slices + 2, np.float32)
    for i in range(begin, end):
        for f in range(len(ray)):
            across, up0, per_rise = _meet(f, i, start, step, start_across, step_across, start_up, lines, scale)
            lower = int(math.floor(across))
            if lower < -1 or lower >= num_across:
                continue
            begin_slice, end_slice = _reached(f, up0, per_rise, rise, num_slices)
            if begin_slice >= end_slice:
                continue
            share = np.float32(across - lower)
            curtain[begin_slice : end_slice + 2] = 0
            for r in range(num_rows):
                up = min(max(up0 + per_rise * rise[f, r], -1.0), float(num_slices))
                below = min(int(math.floor(up)), num_slices - 1)
                s = np.float32(up - below)
                g = rays[ray[f], r] * np.float32(length[f, r])
                curtain[below + 1] += (np.float32(1) - s) * g
                curtain[below + 2] += s * g
            first = i * stride + lower * stride_across
            count = end_slice - begin_slice
            written = curtain[begin_slice + 1 : end_slice + 1]
            if lower >= 0:
                near = table[first, begin_slice:end_slice]
                for k in range(count):
                    near[k] += (np.float32(1) - share) * written[k]
            if lower < num_across - 1:
                far = table[first + stride_across, begin_slice:end_slice]
                for k in range(count):
                    far[k] += share * written[k]
