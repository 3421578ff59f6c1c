"""Builds MRI operators: for k-space that was measured, or for a volume that is to be measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from interslice.files.scan import Refusal
from interslice.files.values import number, whole_number
from interslice.physics.kspace.cartesian_mri import CartesianMRI
from interslice.physics.kspace.coil_maps import MIN_HALF_WIDTH, central_block, centre_of, estimate_maps
from interslice.physics.kspace.simulated_coils import simulated_maps
from interslice.usage import UsageError

PATTERNS = ("random", "equispaced")
MAGNITUDES = (1e-15, 1e15)
"""Between which the largest value of k-space lies: the squares of others are 0 or infinite in single precision."""


@dataclass
class CartesianSampling:
    """How a scanner samples k-space.

    For `for_volume`; measured k-space brings its own:

    Args:
        num_coils: receive coils, in a ring around the volume.
        acceleration: lines of k-space over lines measured, from 1.
        center_fraction: share of the lines, in the middle, that is measured completely; rounded to an odd number of
            lines, at least 3. By default 0.32 / acceleration: 0.08 for 4, 0.04 for 8.
        pattern: of the other lines: "random", or "equispaced" from a random first one.
        phase_axis: axis of the volume along which lines are left out, 0 or 1.
        field_of_view: size of the field of view over that of the volume, in-plane, from 1; rounded up to a size that
            transforms fast. A head that touches its border overlaps with its other side in low-resolution images.
        seed: of the lines, and of the phase of the image.

    For both:

    Args:
        background: value of no signal (air) in the volume.
    """

    num_coils: int = 8
    acceleration: float = 4.0
    center_fraction: float | None = None
    pattern: str = "random"
    phase_axis: int = 0
    field_of_view: float = 1.1
    seed: int = 0
    background: float = -1.0

    def __post_init__(self) -> None:
        whole_number("num_coils", self.num_coils, 1)
        number("acceleration", self.acceleration, 1)
        whole_number("seed", self.seed)
        if self.center_fraction is None:
            self.center_fraction = min(1.0, 0.32 / self.acceleration)
        number("center_fraction", self.center_fraction, above=0, most=1)
        if self.pattern not in PATTERNS:
            raise UsageError(f"pattern must be one of {PATTERNS}, got {self.pattern!r}")
        if self.phase_axis not in (0, 1) or isinstance(self.phase_axis, bool):
            raise UsageError(f"phase_axis must be 0 or 1, the in-plane axes, got {self.phase_axis!r}")
        number("field_of_view", self.field_of_view, 1, 4)
        number("background", self.background, below=1, fix="1 is bright in the prior")

    def for_volume(self, volume) -> CartesianMRI:
        """The operator that measures a volume (1, X, Y, Z), with coils that are made up.

        Raises:
            ValueError: too few lines for the centre of k-space.
        """
        shape, spacing = tuple(volume.shape[1:]), tuple(volume.pixdim.tolist())
        columns, rows = (n if self.field_of_view == 1 else fast_size(self.field_of_view * n) for n in shape[:2])
        lines = self.lines(columns if self.phase_axis == 0 else rows)
        mask = lines.expand(rows, columns) if self.phase_axis == 0 else lines[:, None].expand(rows, columns)
        maps = simulated_maps(shape, spacing, self.num_coils, self.seed)
        return CartesianMRI(maps, mask, spacing, self.background)

    def lines(self, count: int) -> torch.Tensor:
        """Which of `count` lines are measured, bool (count,): round(count / acceleration) of them."""
        measured = round(count / self.acceleration)
        center = min(count, max(3, 2 * round((self.center_fraction * count - 1) / 2) + 1))
        if measured < center:
            raise ValueError(
                f"acceleration {self.acceleration:g} leaves {measured} of {count} lines, and the centre alone takes "
                f"{center}: lower acceleration, or center_fraction ({self.center_fraction:g})"
            )
        kept = np.zeros(count, dtype=bool)
        first = count // 2 - center // 2
        kept[first : first + center] = True
        others = np.flatnonzero(~kept)
        random = np.random.default_rng(self.seed)
        if self.pattern == "random":
            kept[random.permutation(others)[: measured - center]] = True
        elif measured > center:
            step = len(others) / (measured - center)
            kept[others[((np.arange(measured - center) + random.random()) * step).astype(int)]] = True
        return torch.from_numpy(kept)

    def for_measurement(self, kspace) -> CartesianMRI:
        """The operator of k-space (1, C, Z, KY, KX, 2), with maps estimated from its centre.

        Its metadata may hold `mask`, (KY, KX) or (Z, KY, KX), and `volume_shape`, (X, Y) of a volume smaller than the
        field of view. Without them, what is not 0 was measured, and the volume fills the field of view.

        Raises:
            ValueError: not k-space of this shape, NaN, nothing measured, or no complete centre.
        """
        check_kspace(kspace)
        known = kspace.meta.get("mask")
        mask = measured_mask(kspace) if known is None else torch.as_tensor(known) != 0
        rows, columns = kspace.shape[3:5]
        shape = tuple(kspace.meta.get("volume_shape", (columns, rows)))
        spacing = tuple(round(float(s), 6) for s in kspace.pixdim)
        maps = estimate_maps(calibration(kspace, mask), (rows, columns), shape[::-1])
        return CartesianMRI(maps, mask, spacing, self.background)


def calibration(kspace, mask: torch.Tensor) -> torch.Tensor:
    """The complete centre of k-space (1, C, Z, KY, KX, 2), complex64 (C, Z, 2 h + 1, 2 w + 1), on the CPU.

    Raises:
        ValueError: the centre is not complete, or 0.
    """
    half = central_block(mask if mask.ndim == 2 else mask.all(0))
    if min(half) < MIN_HALF_WIDTH:
        rows, columns = (max(0, 2 * n + 1) for n in half)
        least = 2 * MIN_HALF_WIDTH + 1
        raise ValueError(
            f"only the middle {rows} x {columns} points of k-space are complete, and coil maps need at least "
            f"{least} x {least}: measure some lines in the centre (center_fraction), or check that the centre of "
            "k-space is at index N // 2"
        )
    data = torch.view_as_complex(kspace.as_tensor()[0].float().cpu().contiguous())
    center = centre_of(data, half)
    if not center.abs().sum() > 0:
        raise ValueError("the centre of k-space is 0: there is no signal to reconstruct")
    return center.contiguous()


def check_kspace(kspace) -> None:
    """Raise Refusal unless k-space is finite, not all 0, of a usual magnitude, and (1, C, Z, KY, KX, 2)."""
    if kspace.ndim != 6 or kspace.shape[0] != 1 or kspace.shape[-1] != 2:
        raise Refusal(
            "k-space must be (1, coils, slices, rows, columns, 2) with real and imaginary part last, got "
            f"{tuple(kspace.shape)}: this task takes k-space files, or add configs/evaluate.json to simulate k-space"
        )
    values = kspace.as_tensor()
    bad = values.numel() - int(torch.isfinite(values).sum())
    if bad:
        raise Refusal(f"{bad} values of k-space are NaN or infinite: repair the file, or set those lines to 0")
    if not values.any():
        raise Refusal("k-space is 0 everywhere: nothing was measured")
    low, high = MAGNITUDES
    if not low < (largest := float(values.abs().max())) < high:
        raise Refusal(
            f"the largest value of k-space is {largest:g}, and must lie between {low:g} and {high:g}, or its "
            "square is no number: multiply k-space by a constant"
        )


def measured_mask(kspace) -> torch.Tensor:
    """Where k-space (1, C, Z, KY, KX, 2) is not 0: bool (KY, KX), or (Z, KY, KX) if slices differ.

    A slice that is all 0 counts as measured like the others: it shows no signal.
    """
    per_slice = (kspace.as_tensor()[0] != 0).any(-1).any(0).cpu()
    common = per_slice.any(0)
    same = (per_slice == common).flatten(1).all(1) | ~per_slice.flatten(1).any(1)
    return common if bool(same.all()) else per_slice


def fast_size(least: float) -> int:
    """The smallest even number from `least` whose prime factors are 2, 3 and 5."""
    n = 2 * math.ceil(round(least, 6) / 2)
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2
