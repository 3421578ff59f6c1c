"""Tables of the studies of the shown people, of stacked slices, of shared noise and of real pairs, from their JSON."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from interslice.planes import PLANES
from interslice.report.titles import TITLES
from scripts.studies.people import ADAPTED
from scripts.studies.shown import PEOPLE
from scripts.studies.stacked_slices import BASELINES, ORDER
from scripts.studies.tables import cell, table

REFERENCE = "cubic_consistent"
"""What everything is compared with."""
NAMES = TITLES | {
    "independent": "independent", "identical": "identical", "slerp": "slerp", "matern": "Matern, 20 mm",
    "ou": "OU, 20 mm", "independent_tv": "independent, then total variation",
}  # fmt: skip
STACKED = (("psnr", 1, 2), ("ssim", 1, 3), ("error_axial", 1000, 1))
"""Metric, factor and digits."""


def mean(runs: list[dict], metric: str) -> float:
    """Over seeds."""
    return float(np.mean([run[metric] for run in runs]))


def whole_or_part(settings: dict) -> str:
    """What of a volume was sampled."""
    size = settings["size"]
    return "Whole volumes" if size is None else f"The middle {' x '.join(map(str, size))} voxels of each volume"


def held(record: dict, person: str, start: str, method: str) -> list[dict]:
    """Metrics of a method of the study of stacked slices, one per seed."""
    seeds = record["results"].get(person, {}).get(start, {})
    source = "independent" if method == "independent_tv" else method
    return [run[method] for run in seeds.get(source, {}).values() if method in run]


def stacked_text(record: dict) -> str:
    """Per start and field: PSNR / SSIM / axial inter-slice error x 1000 of each person, and the mean over them."""
    people = [name for name in PEOPLE if name in record["results"]]
    starts = sorted({s for runs in record["results"].values() for s in runs if s != "0"}, key=int)
    order = [m for name in ORDER for m in ((name, "independent_tv") if name == "independent" else (name,))]
    rows = []
    for start, methods in (("0", BASELINES), *((s, order) for s in starts)):
        for method in methods:
            runs = {person: held(record, person, start, method) for person in people}
            runs = {person: r for person, r in runs.items() if r}
            if runs:
                each = [figures([mean(runs[p], m) for m, _, _ in STACKED]) if p in runs else "not run" for p in people]
                over = [np.mean([mean(r, m) for r in runs.values()]) for m, _, _ in STACKED]
                average = figures(over) if len(runs) == len(people) else "–"
                rows.append(["–" if start == "0" else f"t = {start}", NAMES[method], average, *each])
    note = (
        f"{whole_or_part(record['settings'])}, 5x; {record['settings']['solver'].upper()}, one draw; "
        "PSNR (dB) / SSIM / axial inter-slice error x 1000."
    )
    return f"{note}\n\n{table(['start', 'method', 'mean', *(PEOPLE[p].title for p in people)], rows)}"


def figures(values: list[float]) -> str:
    """Those of STACKED in one cell."""
    return " / ".join(f"{factor * v:.{digits}f}" for v, (_, factor, digits) in zip(values, STACKED))


def imprint_text(record: dict) -> str:
    """Per slice axis, number of slices, start and noise: how alike errors are, near and far."""
    rows = []
    for axis, counts in record["results"].items():
        for count, starts in counts.items():
            for start, noises in starts.items():
                for noise, run in noises.items():
                    far = str(max(int(d) for d in run["error"] if d.isdigit()))
                    parts = [two_digits(run[kind].get(d)) for kind in ("drawn", "error") for d in ("1", "20", far)]
                    rows.append(
                        [
                            "across the thick slices" if axis == "0" else "along them",
                            count,
                            f"t = {start}",
                            NAMES[noise],
                        ]
                        + [*parts, f"{run['drawn']['common_share']:.3f}", f"{100 * run['rms']['drawn']:.2f}"]
                        + [f"{run['metrics']['psnr']:.2f}"]
                    )
    distances = ("neighbours", "20 slices apart", "furthest")
    header = ["stack", "slices", "start", "noise"]
    header += [f"{kind}, {d}" for kind in ("noise's part", "whole error") for d in distances]
    return table([*header, "common share", "size of noise's part (% of full scale)", "PSNR (dB)"], rows)


def two_digits(value: float | None) -> str:
    """A number, or "–" for one that there is not."""
    return "–" if value is None else f"{value:.2f}"


def people_text(record: dict) -> str:
    """Per thickness: gains over consistent interpolation with intervals over people, then every person's figures."""
    text = f"{whole_or_part(record['settings'])}; mean ± 95 percent interval over people of the gain over " + (
        f"{TITLES[REFERENCE].lower()}, each person's mean over seeds.\n"
    )
    for thickness, people in record["results"].items():
        text += f"\n### Slices of {float(thickness):g} mm\n\n{gains(people)}\n\n{absolute(people)}\n"
    return text.rstrip("\n")


def methods_of(people: dict) -> list[str]:
    """Baselines first, the reference among them, else in the order of the runs."""
    names = dict.fromkeys(name for runs in people.values() for name in runs)
    return sorted(names, key=lambda name: name not in TITLES)


def seeds_of(runs: dict, method: str) -> list[dict]:
    """Metrics of a method of one person, one per seed."""
    return list(runs.get(method, {}).values())


def gains(people: dict) -> str:
    """Every method against the reference, paired by person."""
    columns: list[tuple[str, str, int, Callable]] = [
        ("gain (dB)", "psnr", 2, lambda a, b: a - b), ("brain", "psnr_inside", 2, lambda a, b: a - b),
        ("outside", "psnr_outside", 2, lambda a, b: a - b), ("gain in SSIM", "ssim", 3, lambda a, b: a - b),
        *((f"ratio of inter-slice errors, {p}", f"error_{p}", 3, lambda a, b: a / b) for p in PLANES),
    ]  # fmt: skip
    rows = []
    for method in methods_of(people):
        if method == REFERENCE:
            continue
        cells = []
        for _, metric, digits, against in columns:
            values = []
            for runs in people.values():
                ours, theirs = seeds_of(runs, method), seeds_of(runs, REFERENCE)
                if ours and theirs and metric in ours[0]:
                    values.append(against(mean(ours, metric), mean(theirs, metric)))
            cells.append(cell(values, digits, "" if metric.startswith("error") else "+") if values else "–")
        rows.append([called(method), *cells])
    return table(["method", *(title for title, *_ in columns)], rows)


def called(method: str) -> str:
    """A method's title; what is no baseline is a prior."""
    return (
        TITLES.get(method) or f"prior: {method.removesuffix(ADAPTED)}{', adapted' if method.endswith(ADAPTED) else ''}"
    )


def absolute(people: dict) -> str:
    """PSNR, and in the brain, and SSIM of each person: mean and interval over seeds."""
    rows = []
    for method in methods_of(people):
        cells = []
        for runs in people.values():
            found = seeds_of(runs, method)
            kept = [(m, d) for m, d in (("psnr", 2), ("psnr_inside", 2), ("ssim", 3)) if found and m in found[0]]
            cells.append(" / ".join(cell([run[m] for run in found], d) for m, d in kept) or "not run")
        rows.append([called(method), *cells])
    return table(["PSNR / in the brain / SSIM", *(PEOPLE[p].title for p in people)], rows)


def real_text(record: dict) -> str:
    """NRMSE of each method per pair and direction; the mean, and its difference to the reference over the pairs."""
    results = record["results"]
    ways = [(pair, way) for pair, both in results.items() for way in both]
    named: dict[tuple[str, str], dict] = {}
    for pair, way in ways:
        for kind, noises in results[pair][way].items():
            for noise, run in noises.items() if kind != "registration" else ():
                named.setdefault((kind, noise), {})[(pair, way)] = run
    reference, rows = named[REFERENCE, "none"], []
    for (method, noise), runs in sorted(named.items(), key=lambda item: item[0][0] not in TITLES):
        label = called(method) + ("" if noise == "none" else f", {NAMES.get(noise, noise)} noise")
        change = [100 * (run["nrmse"] / reference[key]["nrmse"] - 1) for key, run in runs.items()]
        each = [f"{runs[key]['nrmse']:.4f}" if key in runs else "not run" for key in ways]
        average = [f"{np.mean([run[m] for run in runs.values()]):.4f}" for m in ("nrmse", "correlation")]
        complete = len(runs) == len(ways)
        rows.append([label, *(average if complete else ("–", "–")), cell(change, 2, "+") if complete else "–", *each])
    turned = ", ".join(
        f"{pair} {way}: {results[pair][way]['registration']['none']['turned_degrees']:g}"
        for pair, way in ways
        if "registration" in results[pair][way]
    )
    header = ["method", "NRMSE, mean", "correlation, mean", f"NRMSE against {TITLES[REFERENCE].lower()} (%)"]
    header += [f"{pair.replace('_', ' ')}, {way}" for pair, way in ways]
    size = record["settings"]["size"]
    part = "Whole scans" if size is None else f"The middle {' x '.join(map(str, size))} voxels of each thick scan"
    note = f"{part} reconstructed. The head was turned between the studies by so many degrees: {turned}."
    return f"{note}\n\n{table(header, rows)}"
