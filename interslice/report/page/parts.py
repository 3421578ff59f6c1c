"""Parts of a report page that are made here and not in the browser: tables, charts with text as text, small pictures.

Colours come from the classes of report/page/page.css, so that charts follow the light or dark scheme of the page.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from interslice.planes import PLANES
from interslice.report.page.volumes import canonical
from interslice.report.picture import oriented_slice

WIDTH, HEIGHT = 360, 200
"""Of a chart, in its own pixels: narrow enough that a phone need not shrink its letters."""


def table(caption: str, head: Sequence[str], rows: Mapping[str, Sequence[str]], kind: str = "figures") -> str:
    """A table that scrolls inside its box; cells are HTML, everything else is text."""
    columns = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
        for name, cells in rows.items()
    )
    box = f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table class="{kind}">'
    head_row = f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
    return f"{box}{head_row}<tbody>{body}</tbody></table></div>"


def marked(values: Sequence[float | None], form: str, best: Callable | None = None) -> list[str]:
    """Cells of a column; the best one is bold and has a star, which is read out as "best"."""
    known = [v for v in values if v is not None]
    top = format(best(known), form) if best and len(known) > 1 else None
    star = '<span aria-hidden="true">★</span><span class="unseen"> best</span>'
    texts = ["–" if v is None else format(v, form) for v in values]
    return [f"<strong>{t} {star}</strong>" if t == top else t for t in texts]


def metric_tables(metrics: Mapping[str, Mapping]) -> str:
    """The tables of metrics.json; `metrics` has one entry per method, by its title."""

    def look(*path: str) -> list[float | None]:
        found = []
        for value in metrics.values():
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            found.append(value)
        return found

    def columns(caption: str, head: list[str], cells: list[list[str]]) -> str:
        return table(caption, ["Method", *head], {name: row for name, row in zip(metrics, zip(*cells))})

    views = ("volume", *PLANES)
    regions = sorted({r for m in metrics.values() for r in m.get("regions", {})})
    psnr = [marked(look(v, "psnr"), ".2f", max) for v in views]
    psnr += [marked(look("regions", r, "psnr"), ".2f", max) for r in regions]
    parts = [
        columns(
            "PSNR in dB, higher is better", [*map(str.capitalize, views), *(f"Region: {r}" for r in regions)], psnr
        ),
        columns(
            "SSIM, at most 1, higher is better",
            [*map(str.capitalize, views)],
            [marked(look(v, "ssim"), ".3f", max) for v in views],
        ),
    ]
    errors = [[None if e is None else 1000 * e for e in look("inter_slice", p, "error")] for p in PLANES]
    parts.append(
        columns(
            "Differences of neighbouring slices: error × 1000 (share of the data range, lower is better) and ratio "
            "to the truth's (1 is right, or jitter: judge by the error); data residual",
            [*(f"Error, {p}" for p in PLANES), *(f"Ratio, {p}" for p in PLANES), "Data residual"],
            [marked(e, ".2f", min) for e in errors]
            + [marked(look("inter_slice", p, "ratio"), ".2f") for p in PLANES]
            + [marked(look("data_residual"), ".2e")],
        )
    )
    for name, values in metrics.items():
        if "calibration" in values:
            c = values["calibration"]
            caption = (
                f"{name}: share of voxels whose error lies within the spread of {c['num_draws']} draws "
                "(below the nominal share, the draws are too sure)"
            )
            actual = [f"{100 * share:.1f} %" for share in c["coverage"]]
            parts.append(
                table(caption, ["Nominal share", *(f"{100 * n:g} %" for n in c["nominal"])], {"Actual share": actual})
            )
    return "".join(parts)


def record_tables(record: Mapping) -> str:
    """run.json as tables: the run, its settings, the versions, and each list of things that have names."""
    lists = {k: v for k, v in record.items() if isinstance(v, (list, tuple)) and v and isinstance(v[0], Mapping)}
    groups = {"Run": {k: v for k, v in record.items() if not isinstance(v, Mapping) and k not in lists}}
    groups |= {k.capitalize(): v for k, v in record.items() if isinstance(v, Mapping) and v}
    tables = [
        table(title, ["Name", "Value"], {k: [escape(shown(v))] for k, v in group.items()}, "pairs")
        for title, group in groups.items()
    ]
    for title, things in lists.items():
        heads = [key for key in things[0] if key not in ("name", "file")]
        rows = {str(thing["name"]): [escape(shown(thing.get(key))) for key in heads] for thing in things}
        tables.append(table(title.capitalize(), ["Name", *(key.replace("_", " ") for key in heads)], rows, "pairs"))
    return "".join(tables)


def shown(value) -> str:
    """A value of run.json as a reader likes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        if not value:
            return "none"
        return " × ".join(shown(v) for v in value) if all(isinstance(v, (int, float)) for v in value) else str(value)
    return str(value)


def dots(title: str, values: Mapping[str, float | None], form: str, own: str) -> str:
    """One line per method with a dot at its value; that of the method `own` is a diamond; None is left out."""
    values = {name: value for name, value in values.items() if value is not None}
    if not values:
        return ""
    left, right, row = 12, WIDTH - 60, 34
    low, high = min(values.values()), max(values.values())
    pad = 0.08 * (high - low) or 1.0
    height = row * len(values) + 14
    lines = []
    for i, (name, value) in enumerate(values.items()):
        y, kind = row * i + 32, "own" if name == own else "other"
        x = left + (right - left) * (value - low + pad) / (high - low + 2 * pad)
        mark = (
            f'<path class="mark {kind}" d="M{x:.1f} {y - 7} l7 7 -7 7 -7 -7z"/>'
            if name == own
            else f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y}" r="5"/>'
        )
        lines.append(
            f'<text class="name" x="{left}" y="{y - 11}">{escape(name)}</text>'
            f'<line class="rail" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>{mark}'
            f'<text class="number" x="{WIDTH - 4}" y="{y + 4}" text-anchor="end">{format(value, form)}</text>'
        )
    words = "; ".join(f"{name} {format(value, form)}" for name, value in values.items())
    return figure(title, f"{title}: {words}", height, "".join(lines))


def curves(title: str, series: Mapping[str, np.ndarray], step: float, across: str, classes: Mapping[str, str]) -> str:
    """Curves over the borders between slices `step` mm apart; `classes` gives each its style."""
    left, right, top, bottom = 46, WIDTH - 8, 10, HEIGHT - 40
    highest = max(float(v.max()) for v in series.values()) or 1.0
    count = max(len(v) for v in series.values())
    ticks = round_ticks(0.0, highest)
    span = max(ticks[-1], highest)

    def x(i: float) -> float:
        return left + (right - left) * i / max(1, count - 1)

    def y(v: float) -> float:
        return bottom - (bottom - top) * v / span

    parts = [
        f'<line class="grid" x1="{left}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        + tick(left - 5, y(t) + 4, f"{t:g}", "end")
        for t in ticks
    ]
    for t in round_ticks(0.0, count * step):
        place = x(t / step - 0.5) if t else left
        parts.append(tick(min(max(place, left), right), bottom + 15, f"{t:g}"))
    parts.append(tick(right, bottom + 31, across, "end"))
    for name, values in series.items():
        points = " ".join(f"{x(i):.1f},{y(float(v)):.1f}" for i, v in enumerate(values))
        parts.append(f'<polyline class="curve {classes[name]}" points="{points}"/>')
    words = "; ".join(f"{name} {float(v.mean()):.3g} on average" for name, v in series.items())
    return figure(title, f"{title}: {words}", HEIGHT, "".join(parts), legend(series, classes))


def coverage_chart(title: str, nominal: Sequence[float], actual: Sequence[float]) -> str:
    """Actual over nominal coverage, with the line where both are the same."""
    left, right, top, bottom = 46, WIDTH - 20, 10, HEIGHT - 40

    def point(a: float, b: float) -> str:
        return f"{left + (right - left) * a:.1f},{bottom - (bottom - top) * b:.1f}"

    parts = [f'<polyline class="curve truth" points="{point(0, 0)} {point(1, 1)}"/>']
    for t in (0, 0.5, 1):
        parts.append(tick(left + (right - left) * t, bottom + 15, f"{100 * t:g}"))
        parts.append(tick(left - 5, bottom - (bottom - top) * t + 4, f"{100 * t:g}", "end"))
    parts.append(tick(right, bottom + 31, "nominal share, %", "end"))
    line = " ".join(point(n, a) for n, a in zip([0, *nominal], [0, *actual]))
    parts.append(f'<polyline class="curve result" points="{line}"/>')
    words = ", ".join(f"{100 * a:.0f} % within {100 * n:g} % intervals" for n, a in zip(nominal, actual))
    classes = {"Draws": "result", "Honest": "truth"}
    return figure(title, f"{title}: {words}", HEIGHT, "".join(parts), legend(classes, classes))


def tick(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """A small text beside an axis."""
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def figure(title: str, words: str, height: float, content: str, below: str = "") -> str:
    """A chart with its title and, for those who cannot see it, its figures in words."""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{below}'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(words)}">{content}</svg></figure>'
    )


def legend(names: Iterable[str], classes: Mapping[str, str]) -> str:
    """What the lines of a chart are."""
    line = '<svg viewBox="0 0 28 8" aria-hidden="true"><line class="curve {}" x1="0" x2="28" y1="4" y2="4"/></svg>'
    return f'<ul class="legend">{"".join(f"<li>{line.format(classes[n])}{escape(n)}</li>" for n in names)}</ul>'


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from `low` upwards; the last is at or below `high`."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]


def middle_slices(volume: np.ndarray, affine: np.ndarray, window: tuple[float, float]) -> dict[str, str]:
    """The middle slice of each plane as PNG in base64: grey, square pixels of the finest voxel size, radiological."""
    volume, spacing = canonical(volume, affine)
    finest, pictures = min(spacing), {}
    for plane, axis in PLANES.items():
        image = oriented_slice(volume, plane, volume.shape[axis] // 2)
        grey = np.clip((image - window[0]) / (window[1] - window[0]), 0, 1)
        across, up = (s for a, s in enumerate(spacing) if a != axis)
        size = (round(image.shape[1] * across / finest), round(image.shape[0] * up / finest))
        picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        pictures[plane] = base64.b64encode(buffer.getvalue()).decode("ascii")
    return pictures
