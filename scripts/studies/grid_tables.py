"""Tables and the figure of docs/explanation/evidence*.md, from the JSON of the evidence grid.

Every figure is paired: the same volume, seed, solver and measurement with another field, against independent noise.
Intervals are 95 percent (Student's t) over seeds, with the volumes as they are:

    mean of the volumes' means,     standard error^2 = sum over V volumes of s_v^2 / (n_v V^2),    dof = sum (n_v - 1)

Two pieces of one person say nothing of the spread between people; so each volume's mean stands beside the interval.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import t as student_t

from scripts.studies.shown_tables import imprint_text, people_text, real_text, stacked_text
from scripts.studies.tables import fill, table

FIELDS = {
    "identical": "identical",
    "slerp": "slerp",
    "ou": "OU, 20 mm",
    "matern": "Matern, 20 mm",
    "independent_tv": "independent, then total variation",
}
TASK_NAMES = {
    "mri_sagittal": "MRI 5x, sagittal slices",
    "mri_coronal": "MRI 5x, coronal slices",
    "mri_axial": "MRI 5x, axial slices (stacked along the thick axis)",
    "mri_alternate": "MRI 5x, alternating planes (noise kept)",
    "svct_parallel": "CT, 30 parallel views",
    "svct_cone": "CT, 30 cone-beam views",
    "lact_parallel": "CT, 100 degrees, parallel",
}
ACROSS = {
    "mri_sagittal": "sagittal", "mri_coronal": "coronal", "mri_axial": "axial", "mri_alternate": "coronal",
    "svct_parallel": "axial", "svct_cone": "axial", "lact_parallel": "axial",
}  # fmt: skip
"""The plane whose slices the network sees, and between which the inter-slice error is taken."""
SEPARATE = ("mri_sagittal", "mri_coronal", "svct_parallel", "lact_parallel")
"""Tasks whose physics and prior act on each slice alone: no field may change the expected squared error."""
SIGNIFICANCE = 0.01
SOLVER_NAMES = {"dds": "DDS", "ddnm": "DDNM", "diffpir": "DiffPIR"}
BASELINES = {
    "input": "nearest, or filtered back-projection", "cubic_consistent": "cubic, data-consistent",
    "least_squares": "least squares", "total_variation": "3-D total variation",
}  # fmt: skip


def pairs(volumes: dict, field: str, metric, ratio: bool = False) -> list[list[float]]:
    """Differences (or ratios) to independent noise, per volume and seed; `metric` takes a run's metrics."""
    result = []
    for methods in volumes.values():
        seeds = sorted(methods.get(field, {}).keys() & methods.get("independent", {}).keys())
        ours, theirs = ([metric(methods[m][s]) for s in seeds] for m in (field, "independent"))
        if seeds:
            result.append([a / b if ratio else a - b for a, b in zip(ours, theirs)])
    return result


def interval(values: list[list[float]]) -> tuple[float, float]:
    """Mean and half width over seeds, the volumes as they are (see above)."""
    mean = float(np.mean([np.mean(v) for v in values]))
    freedom = sum(len(v) - 1 for v in values)
    if freedom < 1:
        return mean, math.nan
    error = math.sqrt(sum(np.var(v, ddof=1) / len(v) for v in values if len(v) > 1)) / len(values)
    return mean, float(student_t.ppf(0.975, freedom)) * error


def entry(values: list[list[float]], digits: int, sign: str) -> str:
    """`mean ± half width (each volume's mean)`."""
    if not values:
        return "not run"
    mean, half = interval(values)
    each = " / ".join(f"{np.mean(v):{sign}.{digits}f}" for v in values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f} ({each})"


def comparison(record: dict, metric_of, digits: int, sign: str, ratio: bool = False) -> str:
    """A table: tasks and fields against solvers; `metric_of(task)` gives the metric."""
    rows = []
    for task, name in TASK_NAMES.items():
        if task in record:
            for field, label in FIELDS.items():
                cells = [
                    entry(pairs(record[task].get(solver, {}), field, metric_of(task), ratio), digits, sign)
                    for solver in SOLVER_NAMES
                ]
                rows.append([name, label, *cells])
    return table(["task", "noise", *SOLVER_NAMES.values()], rows)


def psnr(metrics: dict) -> float:
    return metrics["psnr"]


def squared_error(metrics: dict) -> float:
    """In units of the data range squared."""
    return 10 ** (-metrics["psnr"] / 10)


def across(task: str):
    """The inter-slice error between the slices that the network sees."""
    return lambda metrics: metrics[f"error_{ACROSS[task]}"]


def ssim_across(task: str):
    """Mean SSIM in the two planes that show the slices from the side."""
    planes = [p for p in ("axial", "coronal", "sagittal") if p != ACROSS[task]]
    return lambda metrics: sum(metrics[f"ssim_{p}"] for p in planes) / 2


def has_ssim(record: dict) -> bool:
    """Whether every run holds it; those of before version 0.6.0, which computed it on values from -1 to 1, do not."""
    return all(
        "ssim" in metrics
        for solvers in record.values()
        for volumes in solvers.values()
        for methods in volumes.values()
        for seeds in methods.values()
        for metrics in seeds.values()
    )


def absolute(record: dict) -> str:
    """PSNR and inter-slice error themselves, of baselines and fields, with DDS."""
    rows = []
    for task, name in TASK_NAMES.items():
        volumes = record.get(task, {}).get("dds", {})
        for method, label in (BASELINES | {"independent": "independent"} | FIELDS).items():
            held = [list(v[method].values()) for v in volumes.values() if method in v]
            if held:
                p, e = (np.mean([np.mean([m(r) for r in runs]) for runs in held]) for m in (psnr, across(task)))
                rows.append([name, label, f"{p:.2f}", f"{1000 * e:.1f}"])
    return table(["task", "method", "PSNR (dB)", "inter-slice error x 1000"], rows)


def null_test(record: dict) -> list[dict]:
    """Where slices are separate: is the mean difference in squared error between two fields zero?

    One t-test over seeds per task, solver and field, at `SIGNIFICANCE` after Bonferroni's correction. A field that
    fails is a fault of the program or of the claim that the slices are separate.
    """
    tests = [
        (task, solver, field)
        for task in SEPARATE
        for solver in SOLVER_NAMES
        for field in FIELDS
        if field != "independent_tv" and len(pairs(record.get(task, {}).get(solver, {}), field, squared_error)) > 0
    ]
    results = []
    for task, solver, field in tests:
        values = pairs(record[task][solver], field, squared_error)
        mean, half = interval(values)
        freedom = sum(len(v) - 1 for v in values)
        if freedom < 1:
            continue
        error = max(half / float(student_t.ppf(0.975, freedom)), 1e-15)  # runs may be equal to the last digit kept
        t = mean / error
        limit = float(student_t.ppf(1 - SIGNIFICANCE / 2 / len(tests), freedom))
        reference = np.mean([np.mean([squared_error(m) for m in v["independent"].values()]) for v in
                             record[task][solver].values()])  # fmt: skip
        results.append({
            "task": task, "solver": solver, "field": field, "t": t, "limit": limit, "passed": abs(t) <= limit,
            "change_percent": 100 * mean / reference, "interval_percent": 100 * half / reference,
        })  # fmt: skip
    return results


def null_table(record: dict) -> str:
    """The null test, per task and solver."""
    rows = []
    results = null_test(record)
    for task in SEPARATE:
        for solver, name in SOLVER_NAMES.items():
            found = {r["field"]: r for r in results if (r["task"], r["solver"]) == (task, solver)}
            if found:
                cells = [
                    f"{r['change_percent']:+.2f} ± {r['interval_percent']:.2f}{'' if r['passed'] else ' (!)'}"
                    if (r := found.get(field))
                    else "not run"
                    for field in FIELDS
                    if field != "independent_tv"
                ]
                rows.append([TASK_NAMES[task], name, *cells])
    passed = sum(r["passed"] for r in results)
    note = (
        f"{passed} of {len(results)} comparisons show no change of the mean squared error (t-test over seeds, "
        f"{100 * SIGNIFICANCE:g} percent level after Bonferroni's correction). Change in percent of it:"
    )
    fields = [label for field, label in FIELDS.items() if field != "independent_tv"]
    return f"{note}\n\n{table(['task', 'solver', *fields], rows)}"


def size(record: dict) -> str:
    """How much was run."""
    counts = [
        len(seeds)
        for solvers in record.values()
        for volumes in solvers.values()
        for methods in volumes.values()
        for method, seeds in methods.items()
        if method in ("independent", *FIELDS) and method != "independent_tv"
    ]
    return (
        f"{sum(counts)} runs; {min(counts)} to {max(counts)} seeds per task, solver, field and volume. "
        "Mean ± 95 percent interval over seeds (each volume's mean)."
    )


def grid_text(record: dict) -> str:
    """Everything between the markers `grid` of docs/explanation/evidence_grid.md."""
    parts = {
        "Gain in PSNR over independent noise (dB)": comparison(record, lambda task: psnr, 2, "+"),
        "Inter-slice error, as a ratio to that of independent noise": comparison(record, across, 3, "", ratio=True),
        **({"Gain in SSIM, seen from the side": comparison(record, ssim_across, 3, "+")} if has_ssim(record) else {}),
        "The null test": null_table(record),
        "Absolute figures, DDS": absolute(record),
    }
    return size(record) + "".join(f"\n\n### {title}\n\n{text}" for title, text in parts.items())


def length_text(record: dict) -> str:
    """What the length that is picked from the measurement costs against the best."""
    header = ["task", "volume", "picked (mm)", "best of those tried (mm)", "lost (dB)"]
    lengths = list(next(iter(next(iter(record.values())).values()))["psnr"])
    rows = [
        [TASK_NAMES[task], volume, f"{r['picked_mm']:.3g}", f"{r['best_mm']:g}", f"{r['lost_db']:.3f}"]
        + [f"{r['psnr'][length]:.2f}" for length in lengths]
        for task, volumes in record.items()
        for volume, r in volumes.items()
    ]
    return table([*header, *(f"PSNR at {length} mm" for length in lengths)], rows)


def calibration_text(record: dict) -> str:
    """Actual coverage of the 90 percent interval, and spread over error, per task and field."""
    rows = []
    for task, fields in record.items():
        for field, views in fields.items():
            cells = []
            for view in ("voxels", "slice_means"):
                v = views[view]
                cells += [f"{v['coverage'][v['nominal'].index(0.9)]:.2f}", f"{v['spread_rms'] / v['error_rms']:.2f}"]
            rows.append([TASK_NAMES[task], "independent" if field == "independent" else FIELDS[field], *cells])
    header = [
        "task",
        "noise",
        "voxels: inside 90 %",
        "spread / error",
        "means of 8 slices: inside 90 %",
        "spread / error",
    ]
    return table(header, rows)


def draw(record: dict, path: Path) -> None:
    """Gains in PSNR and ratios of the inter-slice error, per task and field, for each solver."""
    tasks = [t for t in TASK_NAMES if t in record]
    figure = Figure(figsize=(11, 0.75 * len(tasks) + 1.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(FIELDS, colormaps["tab10"].colors))
    markers = dict(zip(SOLVER_NAMES, "osD"))
    for panel, (title, metric_of, ratio) in zip(panels, (
        ("gain in PSNR over independent noise (dB)", lambda task: psnr, False),
        ("inter-slice error / that of independent noise", across, True),
    )):  # fmt: skip
        for row, task in enumerate(tasks):
            for i, field in enumerate(FIELDS):
                for j, solver in enumerate(SOLVER_NAMES):
                    values = pairs(record[task].get(solver, {}), field, metric_of(task), ratio)
                    if values:
                        mean, half = interval(values)
                        panel.errorbar(
                            mean, row + 0.16 * (i - 2) + 0.045 * (j - 1), xerr=0 if math.isnan(half) else half,
                            color=colours[field], marker=markers[solver], markersize=3.5, linewidth=1,
                        )  # fmt: skip
            if row % 2:
                panel.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
        panel.axvline(1 if ratio else 0, color="black", linewidth=1)
        panel.set_xlabel(title)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(tasks)), [TASK_NAMES[t].replace(" (", "\n(") for t in tasks], fontsize=8)
    panels[0].set_ylim(len(tasks) - 0.5, -0.5)
    handles = [Line2D([], [], color=colours[f], linewidth=3, label=label) for f, label in FIELDS.items()]
    handles += [Line2D([], [], color="grey", marker=markers[s], linestyle="", label=n) for s, n in SOLVER_NAMES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=110)


def write_evidence(docs: Path) -> list[Path]:
    """Fill the pages evidence*.md and draw their figure from the JSON in docs/; the files written."""
    pages, grid = sorted(docs.rglob("evidence*.md")), docs / "results_grid.json"
    if not grid.exists():
        return []
    filled = {page for page in pages for name, text in texts(docs).items() if fill(page, name, text)}
    draw(json.loads(grid.read_text(encoding="utf-8")), docs / "evidence.png")
    return [*sorted(filled), docs / "evidence.png"]


def texts(docs: Path) -> dict[str, str]:
    """Marker: text, for every JSON that is there."""
    makers = {
        "grid": ("results_grid.json", grid_text), "lengths": ("tuning_length.json", length_text),
        "calibration": ("calibration.json", calibration_text), "stacked": ("stacked_slices.json", stacked_text),
        "imprint": ("imprint.json", imprint_text), "people": ("people.json", people_text),
        "real pairs": ("real_pairs.json", real_text),
    }  # fmt: skip
    return {
        name: make(json.loads((docs / source).read_text(encoding="utf-8")))
        for name, (source, make) in makers.items()
        if (docs / source).exists()
    }
