"""Tables and curves of README.md and docs/, generated from JSON: nothing in them is typed by hand.

Generated text stands between `<!-- NAME -->` and `<!-- /NAME -->` and is replaced there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from interslice.planes import PLANES
from interslice.report.titles import title_of

METHODS = (
    "input", "cubic", "cubic_consistent", "smoothest", "least_squares", "total_variation", "independent",
    "independent_tv", "identical", "slerp", "recon",
)  # fmt: skip
"""In the order of the tables. `recon`, the run's own result, has slerp noise."""
CT_INPUT = "Filtered back-projection"
SHOWN = ("input", "cubic_consistent", "total_variation", "independent", "slerp")
"""What the README's table shows."""
RIVALS = ("cubic_consistent", "total_variation")
"""Of thick slices, without a network: the better one in PSNR is what the model card compares with."""


def title(method: str, ct: bool = False) -> str:
    """What a method is called; the input of CT is another."""
    return CT_INPUT if ct and method == "input" else title_of("slerp" if method == "recon" else method)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 percent interval (Student's t) over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    return mean, float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def cell(values: list[float], digits: int, sign: str = "") -> str:
    """Mean and half width of the interval, or the mean alone where the values do not vary; "–" for unknown ones."""
    if None in values:
        return "–"
    mean, half = interval(values)
    text = f"{mean:{sign}.{digits}f}"
    return f"{text} ± {half:.{digits}f}" if max(values) > min(values) and half == half else text


def pick(runs: dict, method: str, path: str) -> list[float]:
    """One figure of a method, per seed, None where a run does not hold it; `path` names it as in metrics.json."""
    values = []
    for run in runs.values():
        value = run["metrics"][method]
        for key in path.split("."):
            value = None if value is None else value.get(key)
        values.append(value)
    return values


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(runs: dict, order: Iterable[str] = METHODS) -> list[str]:
    """The methods that the runs hold, in that order; `recon` is slerp, and listed if slerp is not."""
    held = next(iter(runs.values()))["metrics"]
    return [m for m in order if m in held and not (m == "recon" and "slerp" in held)]


def short_table(runs: dict) -> str:
    """The table of the README: what a newcomer wants to know."""
    header = ["method", "PSNR (dB)", "PSNR, brain (dB)", "SSIM", "inter-slice error x 1000, coronal"]
    paths = (("volume.psnr", 2), ("regions.inside.psnr", 2), ("volume.ssim", 3))
    rows = [
        [title(m), *(cell(pick(runs, m, path), digits) for path, digits in paths)]
        + [cell([1000 * e for e in pick(runs, m, "inter_slice.coronal.error")], 2)]
        for m in measured(runs, SHOWN)
    ]
    return table(header, rows)


def main_table(runs: dict) -> str:
    """Volume metrics and inter-slice errors per method."""
    header = ["method", "PSNR (dB)", "SSIM", "PSNR, brain", "PSNR, outside"]
    header += [f"inter-slice error x 1000, {p}" for p in PLANES] + ["inter-slice ratio, sagittal"]
    rows = []
    for method in measured(runs):
        rows.append(
            [title(method), cell(pick(runs, method, "volume.psnr"), 2), cell(pick(runs, method, "volume.ssim"), 3)]
            + [cell(pick(runs, method, f"regions.{region}.psnr"), 2) for region in ("inside", "outside")]
            + [cell([1000 * e for e in pick(runs, method, f"inter_slice.{p}.error")], 2) for p in PLANES]
            + [cell(pick(runs, method, "inter_slice.sagittal.ratio"), 2)]
        )
    return table(header, rows)


def plane_table(runs: dict, ct: bool = False) -> str:
    """PSNR and SSIM per plane and method."""
    rows = [
        [title(m, ct)] + [cell(pick(runs, m, f"{p}.{k}"), d) for p in PLANES for k, d in (("psnr", 2), ("ssim", 3))]
        for m in measured(runs)
    ]
    return table(["method"] + [f"{p} {k}" for p in PLANES for k in ("PSNR", "SSIM")], rows)


def ct_table(runs: dict) -> str:
    """Volume metrics, inter-slice errors and ratios, and the misfit to the data, per method."""
    header = ["method", "PSNR (dB)", "SSIM"] + [f"inter-slice error x 1000, {p}" for p in PLANES]
    header += [f"inter-slice ratio, {p}" for p in PLANES]
    rows = [
        [title(m, ct=True), cell(pick(runs, m, "volume.psnr"), 2), cell(pick(runs, m, "volume.ssim"), 3)]
        + [cell([1000 * e for e in pick(runs, m, f"inter_slice.{p}.error")], 2) for p in PLANES]
        + [cell(pick(runs, m, f"inter_slice.{p}.ratio"), 2) for p in PLANES]
        for m in measured(runs)
    ]
    return table(header, rows)


def paired_table(runs: dict) -> str:
    """Slerp noise against each method, paired by seed: gains in dB, ratios of inter-slice errors."""
    rows = []
    slerp = measured(runs)[-1]
    for method in measured(runs)[:-1]:
        gains = [paired(runs, slerp, method, f"{r}.psnr") for r in ("volume", "regions.inside", "regions.outside")]
        ratios = [paired(runs, slerp, method, f"inter_slice.{p}.error", ratio=True) for p in PLANES]
        rows.append([title(method), *(cell(g, 2, sign="+") for g in gains), *(cell(r, 3) for r in ratios)])
    header = ["slerp noise against", "gain (dB)", "brain", "outside"]
    return table(header + [f"ratio of inter-slice errors, {p}" for p in PLANES], rows)


def ct_paired_table(runs: dict) -> str:
    """The result against each method, paired by seed: gains in PSNR and SSIM, ratios of inter-slice errors."""
    methods = measured(runs)
    ours, rows = methods[-1], []
    for method in methods[:-1]:
        ssim = [paired(runs, ours, method, f"{p}.ssim") for p in PLANES]
        ratios = [paired(runs, ours, method, f"inter_slice.{p}.error", ratio=True) for p in PLANES]
        gain = cell(paired(runs, ours, method, "volume.psnr"), 2, sign="+")
        rows.append(
            [title(method, ct=True), gain, *(cell(g, 4, sign="+") for g in ssim), *(cell(r, 3) for r in ratios)]
        )
    header = ["slerp noise against", "gain (dB)"] + [f"gain in SSIM, {p}" for p in PLANES]
    return table(header + [f"ratio of inter-slice errors, {p}" for p in PLANES], rows)


def paired(runs: dict, ours: str, theirs: str, path: str, ratio: bool = False) -> list[float]:
    """Differences, or ratios, of a figure of two methods, per seed."""
    pairs = zip(pick(runs, ours, path), pick(runs, theirs, path))
    return [None if None in (a, b) else a / b if ratio else a - b for a, b in pairs]


def benchmark_text(path: Path) -> str:
    """Time and memory of the default run."""
    run = json.loads(path.read_text(encoding="utf-8"))["run"]
    share = f", {100 * run['parts_s']['data'] / run['whole_run_s']:.0f} % in the data step"
    return (
        f"The default run takes {run['whole_run_s']:.0f} s on {run['device']}, {100 * run['outside_network']:.1f} % "
        f"of it outside the network{share} (the same network calls alone, afterwards: {run['bare_network_s']:.0f} s), "
        f"with a peak of {run['peak_memory_mb'] / 1000:.2f} GB."
    )


def projector_table(path: Path) -> str:
    """Seconds of the projectors, per case."""
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [case, name, f"{s['forward']:.3f}", f"{s['adjoint']:.3f}"]
        for case, projectors in record["seconds"].items()
        for name, s in projectors.items()
    ]
    gpu = any("GPU" in name for projectors in record["seconds"].values() for name in projectors)
    where = f"{record['threads']} threads" + (f", {record['device']}" if gpu else "")
    note = f"Seconds for 30 views, {where}; by `python -m scripts.studies.benchmark_projectors`."
    return f"{note}\n\n{table(['beam and volume', 'projector', 'forward', 'adjoint'], rows)}"


def training_curve(history: Path, picture: Path) -> None:
    """Loss and validation error per noise level against iterations; a training in stages restarts at each line."""
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    steps = [r["iteration"] for r in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    starts = [i for i in range(1, len(rows)) if rows[i].get("stage") != rows[i - 1].get("stage")]
    parts = [slice(a, b) for a, b in pairwise([0, *starts, len(rows)])]
    levels = {key: f"validation, t = {int(key[-3:])}" for key in rows[-1] if key.startswith("noise_mse_t")}
    for key, label in {"train_loss": "training loss", **levels}.items():
        drawn = {"color": "black"} if key == "train_loss" else {"linewidth": 1}
        for part in parts:
            values = [r.get(key, math.nan) for r in rows[part]]
            (line,) = axes.semilogy(steps[part], values, label=label, **drawn)
            drawn, label = drawn | {"color": line.get_color()}, None
    for i in starts:
        axes.axvline(steps[i], color="grey", linestyle=":")
        axes.annotate(f" {rows[i]['stage']}", (steps[i], axes.get_ylim()[0]), fontsize=7, va="bottom", rotation=90)
    axes.set_xlabel("iteration")
    axes.set_ylabel("mean squared error of the noise")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def page_of(docs: Path, name: str) -> Path:
    """The page of that name in a folder or one below it; where there is none, the path that it would have in it."""
    return next(iter(sorted(docs.rglob(name))), docs / name)


def fill(path: Path, name: str, text: str) -> bool:
    """Replace what stands between the markers `name` of a file; False if they are not there."""
    old = path.read_text(encoding="utf-8")
    new = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL)
    path.write_text(new, encoding="utf-8")
    return f"<!-- {name} -->" in old


def sentence(runs: dict, best: str, ct: bool = False) -> str:
    """What the model card says of the default: against the best that needs no network."""
    ours = measured(runs)[-1]
    figures = [
        f"PSNR {cell(pick(runs, m, 'volume.psnr'), 2)} dB, SSIM {cell(pick(runs, m, 'volume.ssim'), 3)}"
        for m in (ours, best)
    ]
    return f"{title(ours, ct)}: {figures[0]}. {title(best, ct)}: {figures[1]}."


def mean_psnr(runs: dict, method: str) -> float:
    """Of the volume, over seeds."""
    return interval(pick(runs, method, "volume.psnr"))[0]


def mri_text(record: dict) -> dict[str, str]:
    """README's table, the model card's sentence, and all tables."""
    seeds = len(next(iter(record.values())))
    note = (
        f"Embedded sample (Colin 27, held out), 5x, {seeds} seeds: mean ± 95 percent interval over seeds, paired where "
        "methods are compared. Made by `python -m scripts.reproduce`."
    )
    shipped = record["shipped prior"]
    full = note
    for name, runs in record.items():
        tables = (main_table(runs), paired_table(runs), plane_table(runs))
        full += f"\n\n## {name[0].upper()}{name[1:]}\n\n" + "\n\n".join(tables)
    return {
        "table": f"{note}\n\n{short_table(shipped)}",
        "sentence": sentence(shipped, max(measured(shipped, RIVALS), key=lambda m: mean_psnr(shipped, m))),
        "full": full,
    }


def ct_text(record: dict) -> dict[str, str]:
    """The model card's sentence, and all tables."""
    note = (
        "Embedded chest (LIDC-IDRI-0001, held out), full scale 2000 HU; mean ± 95 percent interval over seeds, paired "
        "where methods are compared. Made by `python -m scripts.reproduce --only ct`."
    )
    full = note
    for name, runs in record.items():
        seeds = f"{name}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
        tables = (ct_table(runs), ct_paired_table(runs), plane_table(runs, ct=True))
        full += f"\n\n### {seeds[0].upper()}{seeds[1:]}\n\n" + "\n\n".join(tables)
    noisy = record["30 views, parallel, 1e5 photons"]
    return {"sentence": f"30 views, 1e5 photons. {sentence(noisy, 'total_variation', ct=True)}", "full": full}


def write_tables(docs: Path) -> list[Path]:
    """Fill README.md, docs/README.md and docs/explanation/results.md from the JSON in docs/; the files written."""
    written = []
    for name, text, timing, options in (
        ("results", mri_text, "benchmark_best.json", "--preset best "),
        ("results ct", ct_text, "benchmark_svct.json", "--task svct "),
    ):
        source = docs / f"{name.replace(' ', '_')}.json"
        if not source.exists():
            continue
        texts = text(json.loads(source.read_text(encoding="utf-8")))
        if (docs / timing).exists():
            command = f"python -m scripts.benchmark {options}--output {docs.name}/{timing}"
            texts["full"] += f"\n\n{benchmark_text(docs / timing)} Made by `{command}`."
        if name == "results ct" and (docs / "benchmark_projectors.json").exists():
            texts["full"] += f"\n\n### Projectors\n\n{projector_table(docs / 'benchmark_projectors.json')}"
        pages = (Path("README.md"), "table"), (docs / "README.md", "sentence"), (page_of(docs, "results.md"), "full")
        for path, kind in pages:
            if path.exists() and kind in texts and fill(path, name, texts[kind]):
                written.append(path)
    for history, picture in (
        ("prior_history.jsonl", "prior_training.png"),
        ("prior_large_history.jsonl", "prior_large_training.png"),
        ("prior_ct_history.jsonl", "prior_ct_training.png"),
    ):
        if (docs / history).exists():
            training_curve(docs / history, docs / picture)
            written.append(docs / picture)
    return list(dict.fromkeys(written))
