"""Pictures of a reconstruction beside its truth, its input and the best baseline.

Volumes are (X, Y, Z) in RAS+ orientation with their spacing in mm; pictures show them in radiological convention
(the patient's right on the left of the page, superior and anterior up), one grey window for all, scale in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from interslice.planes import PLANES
from interslice.report.titles import RECON

LABELS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Left, right, top and bottom of each picture."""

COLOURS = {
    "Truth": "#ffffff",
    "Input (nearest)": "#8a8f98",
    RECON: "#4cc38a",
    "Diffusion, independent noise": "#e5484d",
}
"""Curves that have a colour of their own; the others take what is left."""

INK, PAPER, MUTED = "#e8e8e8", "#101214", "#9aa0a6"


@dataclass
class Panel:
    """One row of the report: a volume and what to write beside it."""

    title: str
    volume: np.ndarray
    caption: str = ""


def oriented_slice(volume: np.ndarray, plane: str, position: int) -> np.ndarray:
    """The slice as an image whose rows run down the page, in radiological convention."""
    image = volume[(slice(None),) * PLANES[plane] + (position,)]  # (right -> left, up) after the next line
    return np.flipud(image[::-1].T)


def report(
    truth: Panel,
    panels: list[Panel],
    spacing: tuple[float, float, float],
    window: tuple[float, float],
    differences: dict[str, np.ndarray],
    difference_axis: str,
    title: str,
    difference_errors: dict[str, np.ndarray] | None = None,
    position: tuple[float, float, float] = (0.45, 0.5, 0.5),
) -> Figure:
    """Three planes of every panel, error maps below those with a truth, and inter-slice differences.

    Args:
        truth: the ground truth, shown first.
        panels: what is compared with it, best last.
        spacing: voxel size in mm.
        window: grey values of black and white.
        differences: per title, mean |x_{i+1} - x_i| of every pair of slices along an axis.
        difference_axis: plane name of these slices.
        difference_errors: per title, mean |(x_{i+1} - x_i) - (truth_{i+1} - truth_i)|, drawn beside them.
        position: where to cut, as fractions of the extent.
    """
    columns = [truth, *panels]
    extent = [n * s for n, s in zip(truth.volume.shape, spacing)]
    heights = {"axial": extent[1], "coronal": extent[2], "sagittal": extent[2]}
    widths = {"axial": extent[0], "coronal": extent[0], "sagittal": extent[1]}
    wide = max(widths.values())
    rows = [(plane, kind) for plane in PLANES for kind in ("image", "error")]
    ratios = [heights[plane] / wide for plane, _ in rows] + [0.55]
    inch = 2.7
    figure = Figure(figsize=(inch * len(columns) + 0.6, inch * sum(ratios) + 1.5), facecolor=PAPER)
    grid = figure.add_gridspec(
        len(ratios),
        len(columns),
        height_ratios=ratios,
        hspace=0.06,
        wspace=0.03,
        left=0.07,
        right=0.98,
        top=0.93,
        bottom=0.05,
    )
    error_range = 0.25 * (window[1] - window[0])
    for row, (plane, kind) in enumerate(rows):
        index = int(position[PLANES[plane]] * truth.volume.shape[PLANES[plane]])
        aspect = _aspect(plane, spacing)
        reference = oriented_slice(truth.volume, plane, index)
        for column, panel in enumerate(columns):
            if kind == "error" and column == 0:
                continue
            axes = figure.add_subplot(grid[row, column])
            axes.set_axis_off()
            image = oriented_slice(panel.volume, plane, index)
            if kind == "image":
                axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="bilinear")
                _orientation_marks(axes, plane)
                if column == 0:
                    _scale_bar(axes, image.shape, plane, spacing)
                if row == 0:
                    axes.set_title(f"{panel.title}\n{panel.caption}", color=INK, fontsize=9)
            else:
                axes.imshow(image - reference, cmap="RdBu_r", vmin=-error_range, vmax=error_range, aspect=aspect)
    note = figure.add_subplot(grid[1, 0])
    note.set_axis_off()
    note.text(
        0.02, 0.95, "Below each picture: result − truth,\nblue to red = −25 % to +25 %\nof the grey window",
        color=MUTED, fontsize=8, va="top", transform=note.transAxes,
    )  # fmt: skip
    label = f"position across {difference_axis} slices (mm)"
    step = spacing[PLANES[difference_axis]]
    curves = [(differences, "mean |difference|\nof neighbours")]
    if difference_errors:
        curves.append((difference_errors, "mean |error|\nof that difference"))
    strip = grid[-1, :].subgridspec(1, len(curves), wspace=0.18)
    for column, (values, name) in enumerate(curves):
        _plot_curves(figure.add_subplot(strip[0, column]), values, step, label, name)
    figure.suptitle(title, color=INK, fontsize=12, y=0.985)
    return figure


def _aspect(plane: str, spacing: tuple[float, float, float]) -> float:
    across, up = [s for a, s in enumerate(spacing) if a != PLANES[plane]]
    return up / across


def _orientation_marks(axes, plane: str) -> None:
    left, right, top, bottom = LABELS[plane]
    outline = [withStroke(linewidth=2, foreground="black")]
    for x, y, text in ((0.04, 0.5, left), (0.96, 0.5, right), (0.5, 0.94, top), (0.5, 0.06, bottom)):
        axes.text(
            x, y, text, color=INK, fontsize=8, ha="center", va="center", transform=axes.transAxes, path_effects=outline
        )


def _scale_bar(axes, shape: tuple[int, int], plane: str, spacing: tuple[float, float, float]) -> None:
    """A bar of the largest round length that takes less than half of the picture's width."""
    across = next(s for a, s in enumerate(spacing) if a != PLANES[plane])
    length = next((n for n in (50, 20, 10, 5, 2, 1) if n < 0.5 * shape[1] * across), 0.5)
    start, y = 0.06 * shape[1], 0.95 * shape[0]
    axes.autoscale(False)
    axes.plot([start, start + length / across], [y, y], color=INK, linewidth=2, solid_capstyle="butt")
    axes.text(start, y - 0.02 * shape[0], f"{length:g} mm", color=INK, fontsize=7, va="bottom")


def _plot_curves(axes, curves: dict[str, np.ndarray], step: float, xlabel: str, ylabel: str) -> None:
    """Curves over the borders between slices `step` mm apart; the truth in white, the others in fixed colours."""
    axes.set_facecolor(PAPER)
    for title, values in curves.items():
        where = (np.arange(len(values)) + 0.5) * step
        axes.plot(where, values, label=title, color=COLOURS.get(title), linewidth=1.8 if title == "Truth" else 1.2)
    axes.set_xlabel(xlabel, color=INK, fontsize=8)
    axes.set_ylabel(ylabel, color=INK, fontsize=8)
    axes.tick_params(colors=MUTED, labelsize=7)
    axes.margins(x=0.01)
    axes.spines[:].set_color(MUTED)
    axes.legend(fontsize=7, facecolor=PAPER, labelcolor=INK, edgecolor=MUTED, ncols=2)
