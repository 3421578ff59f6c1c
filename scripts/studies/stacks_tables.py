"""Tables of docs/how_to/stacks.md, from docs/stacks.json, docs/tuning_stacks.json and docs/tuning_alignment.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from interslice.report.titles import TITLES
from scripts.studies.shown import PEOPLE
from scripts.studies.stacks import ALONE, DIFFUSION, KNOWN, METHODS, NOISE, REGISTRATION, SEVERAL, THICKNESS
from scripts.studies.tables import cell, fill, page_of, table

NAMES = TITLES | {DIFFUSION: "Diffusion", "input": "Mean of the slices"}
BASELINE = "total_variation"


def value(runs: Mapping, case: str, method: str, metric: str = "psnr") -> float | None:
    """The mean over seeds; None where it was not run."""
    found = runs.get(case, {}).get(method, {})
    return float(np.mean([run[metric] for run in found.values()])) if found else None


def stacks_text(record: Mapping) -> str:
    """Every method per person, what more stacks bring, and how well they were registered."""
    people = record["results"]
    size = " x ".join(map(str, record["settings"]["size"]))
    text = (
        f"The middle {size} mm of each head; slices of {THICKNESS:g} mm, noise of {100 * NOISE:g} percent of the "
        "maximum; PSNR (dB) / SSIM. Made by `python -m scripts.studies.stacks`."
    )
    rows = []
    for case in (*ALONE, *SEVERAL, KNOWN):
        for method in (*METHODS["alone" if case in ALONE else "several"], DIFFUSION):
            cells = [
                "–" if value(runs, case, method) is None else
                f"{value(runs, case, method):.2f} / {value(runs, case, method, 'ssim'):.3f}" for runs in people.values()
            ]  # fmt: skip
            if any(c != "–" for c in cells):
                rows.append([case if case in ALONE else f"{case}", NAMES[method], *cells])
    titles = [PEOPLE[name].title for name in people]
    text += f"\n\n{table(['stacks', 'method', *titles], rows)}\n\n{gains(people, titles)}\n\n{registrations(people)}"
    return text


def gains(people: Mapping, titles: list[str]) -> str:
    """What a second and a third stack bring, and the lead over total variation."""

    def differences(one, other) -> list[float | None]:
        found = []
        for runs in people.values():
            a, b = one(runs), other(runs)
            found.append(None if a is None or b is None else a - b)
        return found

    def alone(runs) -> float | None:
        values = [v for v in (value(runs, case, DIFFUSION) for case in ALONE) if v is not None]
        return max(values) if len(values) == len(ALONE) else None

    rows = []
    for label, one, other in (
        ("two stacks over the better one alone", lambda r: value(r, "two", DIFFUSION), alone),
        ("three stacks over two", lambda r: value(r, "three", DIFFUSION), lambda r: value(r, "two", DIFFUSION)),
        ("two stacks, over total variation", lambda r: value(r, "two", DIFFUSION), lambda r: value(r, "two", BASELINE)),
        ("three stacks, over total variation", lambda r: value(r, "three", DIFFUSION),
         lambda r: value(r, "three", BASELINE)),
        ("two stacks, motion found, over motion known", lambda r: value(r, "two", DIFFUSION),
         lambda r: value(r, KNOWN, DIFFUSION)),
    ):  # fmt: skip
        found = differences(one, other)
        if all(f is not None for f in found):
            rows.append([label, cell(found, 2, "+"), *(f"{f:+.2f}" for f in found)])
    return table(["diffusion, gain in PSNR (dB)", "mean", *titles], rows)


def registrations(people: Mapping) -> str:
    """Errors of registration of each person, and how far the heads had moved."""
    rows = []
    for name, runs in people.items():
        for case in SEVERAL:
            for plane, run in runs.get(case, {}).get(REGISTRATION, {}).get("0", {}).items():
                moved = f"{run['of_degrees']:.1f} degrees, {run['of_mm']:.1f} mm"
                rows.append([PEOPLE[name].title, case, plane, moved, f"{run['degrees']:.3f}", f"{run['mm']:.3f}"])
    if rows:
        mean = [np.mean([float(row[k]) for row in rows]) for k in (4, 5)]
        rows.append(["mean", "", "", "", *(f"{m:.3f}" for m in mean)])
    return table(["head", "stacks", "stack", "had moved by", "error (degrees)", "error (mm)"], rows)


def tuning_text(record: Mapping) -> str:
    """What was tried, and the lead of what was chosen."""
    best, rows = record["best"], []
    for what, title in ((BASELINE, "total variation: weight over noise"), ("sampler", "error, start, steps")):
        for setting, psnr in best[what]["mean_psnr"].items():
            chosen = " (best)" if setting == best[what]["chosen"] else ""
            rows.append([title, f"{setting}{chosen}", f"{psnr:.2f}"])
    lead = cell(best["lead"], 2, "+")
    note = (
        f"Mean PSNR over {len(best['lead'])} people; the best settings lead total variation with its best weight by "
        f"{lead} dB. Made by `python -m scripts.studies.tune_stacks`."
    )
    return f"{note}\n\n{table(['what', 'setting', 'PSNR (dB)'], rows)}"


def alignment_text(record: Mapping) -> str:
    """Errors of two registrations, and what tells people and slices apart."""
    settings, found = record["settings"], record["summary"]
    count = len(record["results"]["errors"])
    titles = {"operator": "on the operator", "mutual information": "ITK's mutual information"}
    rows = [
        [title, *(f"{found[name][kind]:.3f}" for kind in ("mm", "mm_worst", "degrees", "degrees_worst"))]
        for name, title in titles.items()
    ]
    lost = [run["lost"] for seeds in record["results"]["slices"].values() for run in seeds.values()]
    size = " x ".join(map(str, settings["size"]))
    return (
        f"{count} people that priors were trained on, {size} mm of each, an axial and a coronal stack of 5 mm slices, "
        f"the second turned by up to {settings['turn_degrees']:g} degrees about each axis and moved by up to "
        f"{settings['shift_mm']:g} mm along it, noise of {100 * settings['noise']:g} percent. Made by `python -m "
        f"scripts.studies.tune_alignment`.\n\n"
        f"{table(['registration', 'error, mm', 'worst', 'error, degrees', 'worst'], rows)}\n\n"
        f"Similarity with a stack of the same person is {found['least_similarity_of_one_person']:g} or more, with one "
        f"of another person {found['largest_similarity_of_two']:g} or less. Of {found['slices_of_whole_stacks']} good "
        f"slices {found['of_them_count_less']} count less than the others; one that lost 60 percent of its signal "
        f"counts {max(lost):.2f} or less."
    )


def write_stacks(docs: Path) -> list[Path]:
    """Fill docs/how_to/stacks.md; the files written."""
    written = []
    for name, text in (
        ("stacks", stacks_text), ("tuning_stacks", tuning_text), ("tuning_alignment", alignment_text)
    ):  # fmt: skip
        source, page = docs / f"{name}.json", page_of(docs, "stacks.md")
        if source.exists() and fill(page, name.replace("_", " "), text(json.loads(source.read_text("utf-8")))):
            written.append(page)
    return written
