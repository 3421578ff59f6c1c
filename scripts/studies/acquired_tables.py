"""Tables of docs/how_to/acquired.md, from docs/bands.json and docs/thickness.json.

python -m scripts.studies.acquired_tables
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from interslice.files.last_words import plain_endings
from scripts.studies.tables import fill, page_of, table

KINDS = (("place_median", "places, median"), ("place_rms", "places, rms"), ("whole", "whole scan"))
CHANGES = {"step": "from side to side", "uneven": "at random"}


def bands_table(record: dict) -> str:
    """Odd-even differences of the scans that have bands, before and after."""
    rows = []
    for name, scan in record["real"].items():
        if scan["packages"] > 1:
            rows += [_row(name, scan)]
    for name, result in record.get("result", {}).items():
        rows += [_row(f"result of its middle ({name})", result)]
    return table(["scan", *(f"{title}, %" for _, title in KINDS)], rows)


def _row(name: str, scan: dict) -> list[str]:
    cells = []
    for kind, _ in KINDS:
        before, after = scan["before"][kind], scan["after"][kind]
        cells.append(f"{before:.2f} → {after:.2f} ({100 * (after / before - 1):+.0f} %)")
    return [name, *cells]


def without_table(record: dict) -> str:
    """What is said of scans without bands, and what evening them by force would change."""
    rows = [
        [name, str(scan["packages"]), f"{scan['before']['place_rms']:.2f}", f"{scan['change']:g}",
         f"{scan['change_if_forced']:.2f}"]
        for name, scan in record["real"].items() if scan["packages"] == 1
    ]  # fmt: skip
    header = ["scan", "packages found", "odd-even difference, places, rms, %", "change", "with `packages 2`, rms, %"]
    return table(header, rows)


def simulated_table(record: dict) -> str:
    """Per size of simulated bands: how many were found, and how much of them is left."""
    people = record["simulated"].values()
    rows = [["none", f"{sum(p['packages_without'] > 1 for p in people)} of {len(people)}", "–"]]
    for kind in sorted({name for p in people for name in p if name.startswith(tuple(CHANGES))}):
        found = [p[kind] for p in people]
        left = [f["left"] for f in found]
        change, size = kind.split("_")
        rows.append([
            f"{100 * float(size):g} %, {CHANGES[change]}", f"{sum(f['packages'] == 2 for f in found)} of {len(found)}",
            f"{100 * np.median(left):.0f} % ({100 * min(left):.0f} to {100 * max(left):.0f})",
        ])  # fmt: skip
    return table(["simulated bands", "found", "left of them, median (range)"], rows)


def thickness_table(record: dict) -> str:
    """Quantiles of estimate over truth, per profile, thickness and noise."""
    groups: dict[tuple, list] = {}
    for rows in record["people"].values():
        for row in rows:
            groups.setdefault((row["profile"], row["thickness"], row["noise"]), []).append(row["estimate"])
    lines = []
    for (profile, thickness, noise), estimates in groups.items():
        ratios = np.array([e / thickness for e in estimates if e])
        low, middle, high = np.quantile(ratios, [0.1, 0.5, 0.9])
        lines.append([profile, f"{thickness:g}", f"{100 * noise:g} %", f"{middle:.2f}", f"{low:.2f} to {high:.2f}",
                      f"{len(estimates) - len(ratios)} of {len(estimates)}"])  # fmt: skip
    header = ["profile", "thickness, mm", "noise", "estimate / truth, median", "8 of 10 within", "not told"]
    return table(header, lines)


def write_acquired(docs: Path) -> list[Path]:
    """Fill docs/how_to/acquired.md; the files written."""
    bands, thickness = (json.loads((docs / f"{n}.json").read_text(encoding="utf-8")) for n in ("bands", "thickness"))
    page = page_of(docs, "acquired.md")
    filled = [
        fill(page, name, text)
        for name, text in (
            ("bands", bands_table(bands)), ("without bands", without_table(bands)),
            ("simulated bands", simulated_table(bands)), ("thickness", thickness_table(thickness)),
        )
    ]  # fmt: skip
    return [page] if any(filled) else []


if __name__ == "__main__":
    with plain_endings():
        for path in write_acquired(Path("docs")):
            print(f"wrote {path}")
