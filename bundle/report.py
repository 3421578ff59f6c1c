"""Pictures of a reconstruction beside its truth, its input and the best baseline.

Volumes are (X, Y, Z) in RAS+ orientation with their spacing in mm; pictures show them in radiological convention
(the patient's right on the left of the page, superior and anterior up), one grey window for all, scale in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
LABELS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""Left, right, top and bottom of each picture."""

INK, PAPER, MUTED = "#e8e8e8", "#101214", "#9aa0a6"


@dataclass
class Panel:
    """One row of the report: a volume and what to write beside it."""

    title: str
    volume: np.ndarray
    caption: str = ""


def oriented_slice(volume: np.ndarray, plane: str, position: int) -> np.ndarray:
    """The slice as an image whose rows run down the page, in radiological convention."""
    image = np.take(volume, position, AXES[plane])  # (right -> left, up) after the next line
    return np.flipud(image[::-1].T)


def report(
    truth: Panel,
    panels: list[Panel],
    spacing: tuple[float, float, float],
    window: tuple[float, float],
    differences: dict[str, np.ndarray],
    difference_axis: str,
    title: str,
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
        position: where to cut, as fractions of the extent.
    """
    columns = [truth, *panels]
    extent = [n * s for n, s in zip(truth.volume.shape, spacing)]
    heights = {"axial": extent[1], "coronal": extent[2], "sagittal": extent[2]}
    widths = {"axial": extent[0], "coronal": extent[0], "sagittal": extent[1]}
    wide = max(widths.values())
    rows = [(plane, kind) for plane in AXES for kind in ("image", "error")]
    ratios = [heights[plane] / wide for plane, _ in rows] + [0.55]
    inch = 2.7
    figure = plt.figure(figsize=(inch * len(columns) + 0.6, inch * sum(ratios) + 1.5), facecolor=PAPER)
    grid = figure.add_gridspec(
        len(ratios),
        len(columns),
        height_ratios=ratios,
        hspace=0.06,
        wspace=0.03,
        left=0.03,
        right=0.99,
        top=0.93,
        bottom=0.05,
    )
    error_range = 0.25 * (window[1] - window[0])
    for row, (plane, kind) in enumerate(rows):
        index = int(position[AXES[plane]] * truth.volume.shape[AXES[plane]])
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
    _plot_differences(figure.add_subplot(grid[-1, :]), differences, difference_axis, spacing)
    figure.suptitle(title, color=INK, fontsize=12, y=0.985)
    return figure


def _aspect(plane: str, spacing: tuple[float, float, float]) -> float:
    across, up = [s for a, s in enumerate(spacing) if a != AXES[plane]]
    return up / across


def _orientation_marks(axes, plane: str) -> None:
    left, right, top, bottom = LABELS[plane]
    for x, y, text in ((0.02, 0.5, left), (0.98, 0.5, right), (0.5, 0.97, top), (0.5, 0.03, bottom)):
        axes.text(x, y, text, color=MUTED, fontsize=7, ha="center", va="center", transform=axes.transAxes)


def _scale_bar(
    axes, shape: tuple[int, int], plane: str, spacing: tuple[float, float, float], length: float = 50.0
) -> None:
    across = next(s for a, s in enumerate(spacing) if a != AXES[plane])
    y = shape[0] * 0.95
    axes.plot(
        [shape[1] * 0.06, shape[1] * 0.06 + length / across], [y, y], color=INK, linewidth=2, solid_capstyle="butt"
    )
    axes.text(shape[1] * 0.06, y - shape[0] * 0.02, f"{length:g} mm", color=INK, fontsize=7, va="bottom")


def _plot_differences(
    axes, differences: dict[str, np.ndarray], plane: str, spacing: tuple[float, float, float]
) -> None:
    axes.set_facecolor(PAPER)
    for i, (title, values) in enumerate(differences.items()):
        where = (np.arange(len(values)) + 0.5) * spacing[AXES[plane]]
        style = {"color": INK, "linewidth": 1.8} if i == 0 else {"linewidth": 1.2}
        axes.plot(where, values, label=title, **style)
    axes.set_xlabel(f"position across {plane} slices (mm)", color=INK, fontsize=8)
    axes.set_ylabel("mean |difference|\nof neighbours", color=INK, fontsize=8)
    axes.tick_params(colors=MUTED, labelsize=7)
    axes.margins(x=0.01)
    axes.spines[:].set_color(MUTED)
    axes.legend(fontsize=7, facecolor=PAPER, labelcolor=INK, edgecolor=MUTED, ncols=min(7, len(differences)))
