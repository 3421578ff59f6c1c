"""Draws the noise fields: their covariance, stated and sampled, and what neighbouring slices look like.

    python -m scripts.inspect_noise
    python -m scripts.inspect_noise --length 5 --spacing 0.7 --num_slices 64 --output noise.png

Lines are the covariance that a field states, points the mean product of the slices of one draw that lie so far apart,
with two standard errors (over pixels, which are independent). Where a covariance depends on more than the distance
(piecewise slerp), both are means over all pairs of slices at that distance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interslice.files.last_words import plain_endings
from interslice.noise.field import (
    IdenticalNoise,
    IndependentNoise,
    MixedNoise,
    NoiseField,
    PiecewiseSlerpNoise,
    SlerpNoise,
    as_positions,
)
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise

PIXELS = 64
"""Pixels of a slice in each direction."""
SHOWN = 40
"""Pixels of them that are shown, so that one can be followed from picture to picture."""
POINTS = 16
"""Distances at which the sample is compared with what is stated."""
LINE, INK, MUTED = "#2f6db5", "#1b1f24", "#6b7280"
RANGE = {"vmin": -3, "vmax": 3, "cmap": "RdBu_r", "interpolation": "nearest"}


def fields(length: float) -> dict[str, NoiseField]:
    """The fields that are drawn, by title."""
    return {
        "Independent": IndependentNoise(),
        "Identical": IdenticalNoise(),
        "Mixed, 0.9 of the variance shared": MixedNoise(0.9),
        "Slerp": SlerpNoise(),
        f"Piecewise slerp, anchors {length:g} mm apart": PiecewiseSlerpNoise(spacing=length),
        f"Ornstein-Uhlenbeck, l = {length:g} mm": OrnsteinUhlenbeckNoise(length),
        f"Matern, l = {length:g} mm": MaternNoise(length),
    }


def stated(field: NoiseField, positions: Sequence[float], finer: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Distances (mm), `finer` times as dense as the slices, and the stated covariance there."""
    dense = np.interp(np.arange(finer * (len(positions) - 1) + 1) / finer, np.arange(len(positions)), positions)
    k = field.covariance(dense).numpy()
    return dense - dense[0], np.array([k.diagonal(lag).mean() for lag in range(len(dense))])


def sampled(x: torch.Tensor, lag: int) -> tuple[float, float]:
    """Mean product of the slices (S, H, W) that lie `lag` slices apart, and its standard error."""
    products = (x[lag:] * x[: len(x) - lag]).double().mean(0).flatten()
    return float(products.mean()), float(products.std() / len(products) ** 0.5)


def draw_row(axes: Sequence[Axes], title: str, field: NoiseField, positions: Sequence[float], seed: int) -> None:
    """One field: covariance, a cut across the slices, two neighbouring slices and their difference."""
    x = field.draw(positions, (PIXELS, PIXELS), seed=seed, step=0)
    curve, cut, one, other, change = axes
    extent = positions[-1] - positions[0]
    lags = np.unique(np.linspace(0, len(positions) - 1, POINTS).round().astype(int))
    values, errors = zip(*(sampled(x, lag) for lag in lags))
    curve.axhline(0, color=MUTED, linewidth=0.6)
    curve.plot(*stated(field, positions), color=LINE, linewidth=1.8, label="stated")
    distances = [positions[lag] - positions[0] for lag in lags]
    curve.errorbar(distances, values, 2 * np.array(errors), fmt="o", color=INK, ms=3, lw=1, label="sampled")
    curve.set(xlim=(-0.03 * extent, 1.03 * extent), ylim=(-0.18, 1.18), yticks=[0, 0.5, 1])
    curve.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    curve.spines[["top", "right"]].set_visible(False)

    half = (positions[1] - positions[0]) / 2
    edges = (0, SHOWN, positions[-1] + half, positions[0] - half)
    cut.imshow(x[:, SHOWN // 2, :SHOWN].numpy(), extent=edges, aspect="auto", **RANGE)
    cut.set_xticks([])
    middle = (len(x) - 1) // 2
    difference = x[middle + 1] - x[middle]
    for axis, image in zip((one, other, change), (x[middle], x[middle + 1], difference)):
        axis.imshow(image[:SHOWN, :SHOWN].numpy(), **RANGE)
        axis.set(xticks=[], yticks=[])
    change.set_xlabel(f"standard deviation {difference.square().mean().sqrt():.2f}", fontsize=8, color=INK)
    for axis in axes:
        axis.tick_params(labelsize=8, colors=MUTED)
        for spine in axis.spines.values():
            spine.set(color=MUTED, linewidth=0.6)


def inspect(length: float, spacing: float, num_slices: int, seed: int) -> Figure:
    """One row for each field, for slices `spacing` mm apart."""
    positions = (spacing * as_positions(num_slices)).tolist()
    rows = fields(length)
    figure = Figure(figsize=(10.5, 1.75 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 5, width_ratios=[2.1, 1, 1, 1, 1])
    figure.get_layout_engine().set(hspace=0.05, wspace=0.03)
    for row, (title, field) in zip(axes, rows.items()):
        draw_row(row, title, field, positions, seed)
    middle = (num_slices - 1) // 2
    names = ("cut across slices (mm)", f"slice {middle}", f"slice {middle + 1}", "their difference")
    for axis, name in zip(axes[0, 1:], names):
        axis.set_title(name, fontsize=10, color=INK)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper right")
    axes[-1, 0].set_xlabel(f"distance of two slices (mm); {num_slices} slices, {spacing:g} mm apart", fontsize=9)
    axes[-1, 2].set_xlabel("colours: -3 blue, 0 white, 3 red", fontsize=8, color=INK)
    figure.supylabel("covariance", fontsize=9, color=INK)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/noise.png"), help="the picture to write")
    parser.add_argument("--length", type=float, default=10.0, help="of OU and Matern, and between anchors, in mm")
    parser.add_argument("--spacing", type=float, default=1.0, help="distance of the slices in mm")
    parser.add_argument("--num_slices", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.num_slices < 2:
        parser.error(f"--num_slices must be at least 2, got {args.num_slices}")
    for name in ("length", "spacing"):
        if not 0 < (value := getattr(args, name)) < float("inf"):
            parser.error(f"--{name} must be a positive number of mm, got {value}")
    figure = inspect(args.length, args.spacing, args.num_slices, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=100)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings():
        main()
