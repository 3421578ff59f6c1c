"""Tables and curves of README.md and docs/, generated from JSON: nothing in them is typed by hand.

Generated text stands between `<!-- NAME -->` and `<!-- /NAME -->` and is replaced there.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
from scipy.stats import t as student_t

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

METHODS = {
    "input": "nearest (the input)",
    "cubic": "cubic B-spline",
    "cubic_consistent": "cubic, data-consistent",
    "smoothest": "least curved, data-consistent",
    "independent": "diffusion, independent noise",
    "independent_tv": "the same, then total variation",
    "identical": "diffusion, identical noise",
    "slerp": "diffusion, slerp noise",
    "recon": "diffusion, slerp noise",
}
INTERPOLATIONS = ("input", "cubic", "cubic_consistent", "smoothest")
PLANES = ("axial", "coronal", "sagittal")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 percent interval (Student's t) over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    return mean, float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def cell(values: list[float], digits: int, sign: str = "") -> str:
    """Mean and half width of the interval, or the mean alone where the values do not vary."""
    mean, half = interval(values)
    text = f"{mean:{sign}.{digits}f}"
    return f"{text} ± {half:.{digits}f}" if max(values) > min(values) and half == half else text


def pick(runs: dict, method: str, path: str) -> list[float]:
    """One figure of a method, per seed; `path` names it as in metrics.json, with dots."""
    values = []
    for run in runs.values():
        value = run["metrics"][method]
        for key in path.split("."):
            value = value[key]
        values.append(value)
    return values


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(runs: dict) -> list[str]:
    """The methods that the runs hold, in the order of METHODS; `recon` is slerp, and listed if slerp is not."""
    held = next(iter(runs.values()))["metrics"]
    return [m for m in METHODS if m in held and not (m == "recon" and "slerp" in held)]


def main_table(runs: dict) -> str:
    """Volume metrics and inter-slice errors per method."""
    header = ["method", "PSNR (dB)", "SSIM", "PSNR, brain", "PSNR, outside"]
    header += [f"inter-slice error x 1000, {p}" for p in PLANES] + ["inter-slice ratio, sagittal"]
    rows = []
    for method in measured(runs):
        rows.append(
            [METHODS[method], cell(pick(runs, method, "volume.psnr"), 2), cell(pick(runs, method, "volume.ssim"), 3)]
            + [cell(pick(runs, method, f"regions.{region}.psnr"), 2) for region in ("inside", "outside")]
            + [cell([1000 * e for e in pick(runs, method, f"inter_slice.{p}.error")], 2) for p in PLANES]
            + [cell(pick(runs, method, "inter_slice.sagittal.ratio"), 2)]
        )
    return table(header, rows)


def plane_table(runs: dict) -> str:
    """PSNR and SSIM per plane and method."""
    rows = [
        [METHODS[m]] + [cell(pick(runs, m, f"{p}.{k}"), d) for p in PLANES for k, d in (("psnr", 2), ("ssim", 3))]
        for m in measured(runs)
    ]
    return table(["method"] + [f"{p} {k}" for p in PLANES for k in ("PSNR", "SSIM")], rows)


def paired_table(runs: dict) -> str:
    """Slerp noise against each method, paired by seed: gains in dB, ratios of inter-slice errors."""
    rows = []
    slerp = measured(runs)[-1]
    for method in measured(runs)[:-1]:
        row = [METHODS[method]]
        for region in ("volume", "regions.inside", "regions.outside"):
            ours, theirs = pick(runs, slerp, f"{region}.psnr"), pick(runs, method, f"{region}.psnr")
            row.append(cell([a - b for a, b in zip(ours, theirs)], 2, sign="+"))
        for plane in PLANES:
            ours, theirs = (pick(runs, m, f"inter_slice.{plane}.error") for m in (slerp, method))
            row.append(cell([a / b for a, b in zip(ours, theirs)], 3))
        rows.append(row)
    header = ["slerp noise against", "gain (dB)", "brain", "outside"]
    return table(header + [f"ratio of inter-slice errors, {p}" for p in PLANES], rows)


def benchmark_text(path: Path) -> str:
    """Time and memory of the default run."""
    run = json.loads(path.read_text(encoding="utf-8"))["run"]
    return (
        f"The default run takes {run['whole_run_s']:.0f} s on {run['device']}, {100 * run['outside_network']:.1f} % "
        f"of it outside the network (the same network calls alone, afterwards: {run['bare_network_s']:.0f} s), with a "
        f"peak of {run['peak_memory_mb'] / 1000:.2f} GB."
    )


def training_curve(history: Path, picture: Path) -> None:
    """Loss and validation error per noise level against iterations."""
    rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    steps = [r["iteration"] for r in rows]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.semilogy(steps, [r["train_loss"] for r in rows], color="black", label="training loss")
    for key in (k for k in rows[-1] if k.startswith("noise_mse_t")):
        axes.semilogy(steps, [r[key] for r in rows], linewidth=1, label=f"validation, t = {int(key[-3:])}")
    axes.set_xlabel("iteration")
    axes.set_ylabel("mean squared error of the noise")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def fill(path: Path, name: str, text: str) -> bool:
    """Replace what stands between the markers `name` of a file; False if they are not there."""
    old = path.read_text(encoding="utf-8")
    new = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL)
    path.write_text(new, encoding="utf-8")
    return f"<!-- {name} -->" in old


def write_tables(results: Path) -> list[Path]:
    """Fill README.md, docs/README.md and docs/results.md from the JSON in docs/; the files written."""
    record = json.loads(results.read_text(encoding="utf-8"))
    seeds = len(next(iter(record.values())))
    note = (
        f"Embedded sample (Colin 27, held out), 5x, {seeds} seeds: mean ± 95 percent interval over seeds, paired where "
        "methods are compared. Made by `python -m scripts.reproduce`."
    )
    shipped = record["shipped prior"]
    short = f"{note}\n\n{main_table(shipped)}\n\n{paired_table(shipped)}"
    benchmark = Path("docs/benchmark.json")
    if benchmark.exists():
        short += f"\n\n{benchmark_text(benchmark)} Made by `python -m scripts.benchmark --output docs/benchmark.json`."
    full = note
    for name, runs in record.items():
        tables = (main_table(runs), paired_table(runs), plane_table(runs))
        full += f"\n\n## {name[0].upper()}{name[1:]}\n\n" + "\n\n".join(tables)
    written = []
    for path, text in ((Path("README.md"), short), (Path("docs/README.md"), short), (Path("docs/results.md"), full)):
        if path.exists() and fill(path, "results", text):
            written.append(path)
    history = Path("docs/prior_history.jsonl")
    if history.exists():
        training_curve(history, Path("docs/prior_training.png"))
        written.append(Path("docs/prior_training.png"))
    return written
