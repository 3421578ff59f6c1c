"""Pictures of the sampling process: a table of steps, the same as a film, and paths of neighbouring slices in a plane.

Slices are drawn as in report.py: radiological convention, proportions in mm, grey windows in the prior's range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from interslice.planes import PLANES
from interslice.report.picture import INK, MUTED, PAPER, oriented_slice
from interslice.report.trajectory.paths import agreement, distance, in_plane

NAMES = {"x_t": "$x_t$", "x0_hat": r"$\hat{x}_0$"}
GREYS, FILM_PIXELS = 32, 2.4e6
"""Grey levels of a film, and the pixels of all its frames together: what keeps the file near 1 MB."""
COLOURS = "cool"
"""Of slices: all of it is bright on a dark page."""
FILM_FRAMES, MILLISECONDS, HOLD = 24, 400, 5
"""Frames of a film at most, how long each is shown, and how many times as long the last one is."""


@dataclass
class Film:
    """One slice at every step: images (K, rows, columns) as drawn, their grey window, pixel height over width."""

    images: np.ndarray
    window: tuple[float, float]
    aspect: float


Films = Mapping[str, Mapping[str, Film]]
"""Row -> column -> film; of the table: block (a plane) -> row of the block (a noise field, or x_t and x0_hat)."""


def film(slab, kind: str, window: tuple[float, float]) -> Film:
    """The chosen slice of a interslice.sampling.trajectory.Slab; x_t, which holds noise, in a window twice as wide."""
    series = slab.series(kind).numpy()
    images = np.stack([oriented_slice(x, slab.plane, slab.chosen) for x in np.moveaxis(series, 3, 0)])
    spacing = slab.affine[:3, :3].norm(dim=0).tolist()
    across, up = (s for a, s in enumerate(spacing) if a != PLANES[slab.plane])
    low, high = window
    margin = (high - low) / 2 if kind == "x_t" else 0.0
    return Film(images, (low - margin, high + margin), up / across)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def process(films: Films, headers: Sequence[str], title: str, inch: float = 1.3) -> Figure:
    """Rows of pictures, in blocks; a column per step, under its header."""
    rows = [
        Row(block, label, [(image, f) for image in f.images])
        for block, inner in films.items()
        for label, f in inner.items()
    ]
    return _board(rows, headers, title, inch)[0]


def write_film(path: Path, films: Films, captions: Sequence[str], inch: float = 1.3) -> None:
    """An animated GIF that loops: a frame per step with its caption, rows and columns as those of `films`."""
    frames = spread(len(captions), FILM_FRAMES)
    rows = [Row(name, "", [(f.images[0], f) for f in inner.values()]) for name, inner in films.items()]
    shown = [f for row in rows for _, f in row.pictures]
    figure, pictures, heading = _board(rows, list(next(iter(films.values()))), captions[0], inch)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(min(100.0, np.sqrt(FILM_PIXELS / len(frames) / np.prod(figure.get_size_inches()))))
    drawn = []
    for frame in frames:
        heading.set_text(captions[frame])
        for picture, f in zip(pictures, shown):
            picture.set_data(f.images[frame])
        canvas.draw()
        drawn.append(Image.fromarray(_few_greys(np.asarray(canvas.buffer_rgba())[..., 0])))
    durations = [MILLISECONDS] * (len(frames) - 1) + [HOLD * MILLISECONDS]
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=True)


def save_small(figure: Figure, path: Path, dpi: int = 100, colours: int = 96) -> None:
    """Write a figure as PNG of few colours, which takes far fewer bytes."""
    with BytesIO() as file:
        figure.savefig(file, dpi=dpi, format="png")
        Image.open(file).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, "png", optimize=True)


def _few_greys(picture: np.ndarray) -> np.ndarray:
    return (np.round(picture / 255.0 * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8)


@dataclass
class Row:
    """Pictures beside each other, of one size: their block, their label, and images with the films they are from."""

    block: str
    label: str
    pictures: list[tuple[np.ndarray, Film]]

    @property
    def tallness(self) -> float:
        """Height over width of a picture."""
        image, film = self.pictures[0]
        return film.aspect * image.shape[0] / image.shape[1]


def _board(rows: list[Row], headers: Sequence[str], title: str, inch: float):
    """Figure with rows of pictures `inch` wide, its pictures row by row, and its heading."""
    left, top, gap, block_gap = (0.52 if any(r.label for r in rows) else 0.3), 0.74, 0.03, 0.14
    tops, y = [], top
    for row, before in zip(rows, [rows[0], *rows]):
        y += block_gap if row.block != before.block else 0.0
        tops.append(y)
        y += inch * row.tallness + gap
    width, height = left + len(headers) * (inch + gap) + 0.06, y + 0.05
    figure = Figure(figsize=(width, height), facecolor=PAPER)

    def write(x: float, down: float, text: str, **style):
        """Text at a place in inches from the left and from the top."""
        style = {"color": INK, "fontsize": 8, "ha": "center", "va": "center"} | style
        return figure.text(x / width, 1 - down / height, text, **style)

    pictures = []
    for row, start in zip(rows, tops):
        tall = inch * row.tallness
        for column, (image, film) in enumerate(row.pictures):
            x = left + column * (inch + gap)
            axes = figure.add_axes((x / width, 1 - (start + tall) / height, inch / width, tall / height))
            axes.set_axis_off()
            grey = {"cmap": "gray", "vmin": film.window[0], "vmax": film.window[1]}
            pictures.append(axes.imshow(image, aspect="auto", interpolation="bilinear", **grey))
        write(0.4, start + tall / 2, row.label, rotation=90)
    for block in dict.fromkeys(r.block for r in rows):
        spans = [(start, start + inch * row.tallness) for row, start in zip(rows, tops) if row.block == block]
        write(0.16, (spans[0][0] + spans[-1][1]) / 2, block, rotation=90, color=MUTED, fontsize=9)
    for column, text in enumerate(headers):
        write(left + column * (inch + gap) + inch / 2, top - 0.05, text, va="bottom")
    return figure, pictures, write(width / 2, 0.12, title, fontsize=10, va="top")


def path_panels(paths: Mapping[str, Mapping[str, np.ndarray]], positions: Sequence[float], title: str) -> Figure:
    """Moves of neighbouring slices in the plane of their principal components: a line per slice, a marker per step.

    Args:
        paths: row (what moves: x_t, x0_hat) -> column (noise field) -> paths (S, K, P). A panel has a plane of its own,
            a row one scale.
        positions: of the S slices, in mm.
        title: of the figure.
    """
    columns = list(next(iter(paths.values())))
    inch, left, right, top, bottom = 2.6, 0.85, 0.75, 0.75, 0.45
    width, height = left + right + inch * len(columns), top + bottom + (inch + 0.55) * len(paths)
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    grid = figure.add_gridspec(
        len(paths), len(columns), left=left / width, right=1 - right / width, top=1 - (top + 0.3) / height,
        bottom=bottom / height, wspace=0.06, hspace=0.32,
    )  # fmt: skip
    norm = Normalize(min(positions), max(positions))
    for row, (name, fields) in enumerate(paths.items()):
        projected = {field: in_plane(p) for field, p in fields.items()}
        reach = 1.12 * max(float(np.abs(points).max()) for points, _ in projected.values()) or 1.0
        first = distance(next(iter(fields.values())))
        for column, (field, (points, share)) in enumerate(projected.items()):
            axes = figure.add_subplot(grid[row, column])
            _draw_paths(axes, points, positions, norm, reach)
            facts = f"agreement {agreement(fields[field]):.2f}"
            if len(fields) > 1 and first > 0:
                facts += f", distance {distance(fields[field]) / first:.2f}"
            axes.set_title(f"{field}\n{facts}", color=INK, fontsize=9)
            axes.text(0.98, 0.02, f"{100 * share:.0f} % of the variance", color=MUTED, fontsize=7, ha="right",
                      transform=axes.transAxes)  # fmt: skip
            if column == 0:
                axes.set_ylabel(f"{name}\n2nd component", color=INK, fontsize=9)
            else:
                axes.set_yticklabels([])
            if row == len(paths) - 1:
                axes.set_xlabel("1st component", color=INK, fontsize=9)
    bar_axes = figure.add_axes((1 - 0.62 / width, bottom / height, 0.12 / width, 1 - (top + 0.3 + bottom) / height))
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar_axes)
    bar.set_label("position of the slice (mm)", color=INK, fontsize=8)
    bar.ax.tick_params(colors=MUTED, labelsize=7)
    bar.outline.set_edgecolor(MUTED)
    figure.suptitle(title, color=INK, fontsize=11, y=1 - 0.12 / height, va="top")
    return figure


def _draw_paths(axes, points: np.ndarray, positions: Sequence[float], norm: Normalize, reach: float) -> None:
    """Paths (S, K, 2) from their first step (a ring) to their last (a square), within `reach` of the origin."""
    axes.set_facecolor(PAPER)
    # Ever thinner, so that one sees lines below others that lie on them.
    for path, position, width in zip(points, positions, np.linspace(3.2, 0.8, len(points))):
        colour = colormaps[COLOURS](norm(position))
        axes.plot(*path.T, color=colour, linewidth=width, marker="o", markersize=width + 1)
        axes.plot(*path[0], color=colour, marker="o", markersize=3 + 2 * width, markerfacecolor="none")
        axes.plot(*path[-1], color=colour, marker="s", markersize=2 + 2 * width)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)
    axes.tick_params(colors=MUTED, labelsize=7)
    axes.spines[:].set_color(MUTED)
