"""Cone-beam rays compiled by Triton, for float32 on GPUs. See cone_beam.py.

One program follows a fan for a block of rows, line by line, with the interpolation of cone_beam_numba. Positions are in
double precision, as there, and have the same bits in both directions. Forward, each ray is one program's, and sums have
one order. Backward, programs add to voxels atomically, in no fixed order: results repeat up to rounding. Tables are
[X * Y, Z] and [rays, rows]; both functions add to their last argument.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import lru_cache

import torch
import triton
import triton.language as tl

from interslice.physics.ct.cone_beam import Fans

BLOCK = 128
"""Rows of one program, or fewer for a detector with few: a power of two."""
COUNTS = ("num_lines", "num_rows", "num_slices", "num_across", "stride", "stride_across")


def project(fans: Fans, table: torch.Tensor, rays: torch.Tensor) -> None:
    """rays += A table, for the rays of `fans`."""
    _run(_project, fans, table, rays)


def back_project(fans: Fans, rays: torch.Tensor, table: torch.Tensor) -> None:
    """table += A^T rays, for the rays of `fans`."""
    _run(_back_project, fans, table, rays)


def _run(kernel, fans: Fans, table: torch.Tensor, rays: torch.Tensor) -> None:
    num_rows = rays.shape[1]
    block = min(BLOCK, triton.next_power_of_2(num_rows))
    if not len(fans.ray):
        return
    # Triton launches where torch is, which need not be where the tensors are.
    with torch.cuda.device(table.device) if table.is_cuda else nullcontext():
        kernel[(len(fans.ray), triton.cdiv(num_rows, block))](
            fans.ray, fans.start, fans.step, fans.start_across, fans.step_across, fans.start_up, fans.rise, fans.length,
            fans.lines, fans.scale, table, rays, len(fans.lines), num_rows, table.shape[1], fans.num_across,
            fans.stride, fans.stride_across, BLOCK=block, num_warps=max(1, block // 32), enable_fp_fusion=False,
        )  # fmt: skip


@lru_cache
def works(device: torch.device) -> bool:
    """Whether kernels can be compiled for a GPU and run there; says why not, once.

    It takes a GPU that Triton knows and a C compiler.
    """
    one = torch.ones(1, dtype=torch.float64, device=device)
    fans = Fans(
        along=0, ray=one.long() - 1, start=one - 1, step=one, start_across=one - 1, step_across=one - 1,
        start_up=one - 1, rise=one[:, None], length=one[:, None], lines=one,
        scale=one.new_tensor([0.0, 0.0, 1.0, 1.0]), num_across=1, stride=1, stride_across=1,
    )  # fmt: skip
    table, rays = one[:, None].float(), one[:, None].float()
    try:
        project(fans, table, rays)
        back_project(fans, rays, table)
        table.sum().item()
    except Exception as error:  # whatever a compiler, a driver or a missing tool raises
        warnings.warn(
            f"Triton cannot be used on {device} ({type(error).__name__}: {str(error).strip()[:200]}): cone beams take "
            "the slower torch path there",
            stacklevel=2,
        )
        return False
    return True


@triton.jit
def _meet(f, i, there, start, step, start_across, step_across, start_up, lines, scale, rise, table, num_slices,
          num_across, stride, stride_across):  # fmt: skip
    """Where fan f meets line i, for each row: the first of two neighbours across (each with the next along z) and the
    second, whether they lie in the volume, and how much of the second, and of the next along z, there is."""
    t = (tl.load(lines + i) - tl.load(start + f)) / tl.load(step + f)
    across = (tl.load(start_across + f) + t * tl.load(step_across + f) - tl.load(scale)) / tl.load(scale + 2)
    lower = tl.floor(across)
    up = (tl.load(start_up + f) - tl.load(scale + 1)) / tl.load(scale + 3) + t / tl.load(scale + 3) * rise
    up = tl.minimum(tl.maximum(up, -1.0), num_slices * 1.0)
    below = tl.minimum(tl.floor(up), num_slices - 1.0)
    share, s = (across - lower).to(tl.float32), (up - below).to(tl.float32)
    below = below.to(tl.int32)
    lower = tl.zeros_like(below) + lower.to(tl.int32)
    first = table + (lower.to(tl.int64) * stride_across + i * stride) * num_slices + below
    second = first + stride_across * num_slices
    near, far = there & (lower >= 0) & (lower < num_across), there & (lower >= -1) & (lower < num_across - 1)
    low, high = below >= 0, below < num_slices - 1
    return first, second, near & low, far & low, near & high, far & high, share, s


@triton.jit(do_not_specialize=COUNTS)
def _project(
    ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, table, rays,
    num_lines, num_rows, num_slices, num_across, stride, stride_across, BLOCK: tl.constexpr,
):  # fmt: skip
    f = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = row < num_rows
    up = tl.load(rise + f * num_rows + row, mask=there, other=0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(num_lines):
        first, second, near_low, far_low, near_high, far_high, share, s = _meet(
            f, i, there, start, step, start_across, step_across, start_up, lines, scale, up, table, num_slices,
            num_across, stride, stride_across,
        )  # fmt: skip
        under = (1.0 - share) * tl.load(first, mask=near_low, other=0.0)
        under += share * tl.load(second, mask=far_low, other=0.0)
        over = (1.0 - share) * tl.load(first + 1, mask=near_high, other=0.0)
        over += share * tl.load(second + 1, mask=far_high, other=0.0)
        total += (1.0 - s) * under + s * over
    total *= tl.load(length + f * num_rows + row, mask=there, other=0.0).to(tl.float32)
    place = rays + tl.load(ray + f) * num_rows + row
    tl.store(place, tl.load(place, mask=there, other=0.0) + total, mask=there)


@triton.jit(do_not_specialize=COUNTS)
def _back_project(
    ray, start, step, start_across, step_across, start_up, rise, length, lines, scale, table, rays,
    num_lines, num_rows, num_slices, num_across, stride, stride_across, BLOCK: tl.constexpr,
):  # fmt: skip
    f = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = row < num_rows
    up = tl.load(rise + f * num_rows + row, mask=there, other=0.0)
    g = tl.load(rays + tl.load(ray + f) * num_rows + row, mask=there, other=0.0)
    g *= tl.load(length + f * num_rows + row, mask=there, other=0.0).to(tl.float32)
    for i in range(num_lines):
        first, second, near_low, far_low, near_high, far_high, share, s = _meet(
            f, i, there, start, step, start_across, step_across, start_up, lines, scale, up, table, num_slices,
            num_across, stride, stride_across,
        )  # fmt: skip
        under, over = (1.0 - s) * g, s * g
        tl.atomic_add(first, (1.0 - share) * under, mask=near_low, sem="relaxed")
        tl.atomic_add(second, share * under, mask=far_low, sem="relaxed")
        tl.atomic_add(first + 1, (1.0 - share) * over, mask=near_high, sem="relaxed")
        tl.atomic_add(second + 1, share * over, mask=far_high, sem="relaxed")
