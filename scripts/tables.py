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
}
INTERPOLATIONS = ("input", "cubic", "cubic_consistent", "smoothest")
PLANES = ("axial", "coronal", "sagittal")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 percent interval (Student's t) over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    return mean, float(student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def cell(values: list[float], digits: int) -> str:
    """ "mean ± half width", or the mean alone where it does not vary."""
    mean, half = interval(values)
    return f"{mean:.{digits}f}" if not half > 0.5 * 10**-digits else f"{mean:.{digits}f} ± {half:.{digits}f}"


def pick(runs: dict, method: str, *path: str) -> list[float]:
    """One figure of a method, per seed."""
    values = []
    for run in runs.values():
        value = run["metrics"][method]
        for key in path:
            value = value[key]
        values.append(value)
    return values


def main_table(runs: dict) -> str:
    """Volume metrics, and inter-slice errors, per method."""
    lines = [
        "| method | PSNR (dB) | SSIM | PSNR brain | PSNR outside | inter-slice error ×1000 (sagittal / coronal / axial) | ratio (sagittal) |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, label in METHODS.items():
        if method not in next(iter(runs.values()))["metrics"]:
            continue
        errors = " / ".join(
            cell([1000 * v for v in pick(runs, method, "inter_slice", plane, "error")], 1) for plane in ("sagittal", "coronal", "axial")
        )
        lines.append(
            f"| {label} | {cell(pick(runs, method, 'volume', 'psnr'), 2)} | {cell(pick(runs, method, 'volume', 'ssim'), 3)} "
            f"| {cell(pick(runs, method, 'regions', 'inside', 'psnr'), 2)} | {cell(pick(runs, method, 'regions', 'outside', 'psnr'), 2)} "
            f"| {errors} | {cell(pick(runs, method, 'inter_slice', 'sagittal', 'ratio'), 2)} |"
        )
    return "\n".join(lines)


def plane_table(runs: dict) -> str:
    """PSNR and SSIM per plane, per method."""
    lines = ["| method | " + " | ".join(f"{p}: PSNR, SSIM" for p in PLANES) + " |", "|---|---|---|---|"]
    for method, label in METHODS.items():
        if method in next(iter(runs.values()))["metrics"]:
            cells = [f"{cell(pick(runs, method, p, 'psnr'), 2)}, {cell(pick(runs, method, p, 'ssim'), 3)}" for p in PLANES]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(runs: dict) -> str:
    """Slerp against independent noise and the best interpolation, paired by seed, as sentences."""
    best = max(INTERPOLATIONS, key=lambda m: np.mean(pick(runs, m, "volume", "psnr")))

    def gain(path: tuple[str, ...], against: str) -> str:
        a, b = pick(runs, "slerp", *path), pick(runs, against, *path)
        mean, half = interval([x - y for x, y in zip(a, b)])
        return f"{mean:+.2f} ± {half:.2f}" if half == half else f"{mean:+.2f}"

    def ratio(plane: str, against: str) -> str:
        a, b = pick(runs, "slerp", "inter_slice", plane, "error"), pick(runs, against, "inter_slice", plane, "error")
        return cell([x / y for x, y in zip(a, b)], 3)

    lowest = {p: min(INTERPOLATIONS, key=lambda m: pick(runs, m, "inter_slice", p, "error")[0]) for p in PLANES}
    return "\n".join(
        [
            f"- Slerp against the best interpolation ({METHODS[best]}): {gain(('volume', 'psnr'), best)} dB in the volume, "
            f"{gain(('regions', 'inside', 'psnr'), best)} dB in the brain, {gain(('regions', 'outside', 'psnr'), best)} dB outside it.",
            f"- Slerp against independent noise: {gain(('volume', 'psnr'), 'independent')} dB; inter-slice error "
            + ", ".join(f"{ratio(p, 'independent')} of it ({p})" for p in ("sagittal", "coronal", "axial")) + ".",
            "- Inter-slice error against the lowest of any interpolation: "
            + ", ".join(f"{ratio(p, lowest[p])} of it ({p})" for p in ("sagittal", "coronal", "axial")) + ".",
        ]
    )  # fmt: skip


def benchmark_text(path: Path) -> str:
    """Time and memory of the default run."""
    run = json.loads(path.read_text())["run"]
    return (
        f"The default run took {run['whole_run_s']:.0f} s on {run['device']}, {100 * run['outside_network']:.1f} percent of it outside "
        f"the network (bare network calls: {run['bare_network_s']:.0f} s), with a peak of {run['peak_memory_mb'] / 1000:.2f} GB."
    )


def training_curve(history: Path, picture: Path) -> None:
    """Loss and validation error per noise level against iterations."""
    rows = [json.loads(line) for line in history.read_text().splitlines()]
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
    old = path.read_text()
    new = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m: f"{m[1]}{text}\n{m[2]}", old, flags=re.DOTALL)
    path.write_text(new)
    return f"<!-- {name} -->" in old


def write_tables(results: Path) -> list[Path]:
    """Fill README.md, docs/README.md and docs/results.md from the JSON in docs/; the files written."""
    record = json.loads(results.read_text())
    seeds = len(next(iter(record.values())))
    note = f"Embedded sample, 5x, {seeds} seeds, mean ± 95 percent interval. Made by `python -m scripts.reproduce`."
    shipped = record["shipped prior"]
    short = f"{note}\n\n{main_table(shipped)}\n\n{paired(shipped)}"
    benchmark = Path("docs/benchmark.json")
    if benchmark.exists():
        short += f"\n\n{benchmark_text(benchmark)} Made by `python -m scripts.benchmark --output docs/benchmark.json`."
    full = note + "".join(
        f"\n\n## {name[0].upper() + name[1:]}\n\n{main_table(runs)}\n\n{paired(runs)}\n\n{plane_table(runs)}" for name, runs in record.items()
    )
    written = []
    for path, text in ((Path("README.md"), short), (Path("docs/README.md"), short), (Path("docs/results.md"), full)):
        if path.exists() and fill(path, "results", text):
            written.append(path)
    history = Path("docs/prior_history.jsonl")
    if history.exists():
        training_curve(history, Path("docs/prior_training.png"))
        written.append(Path("docs/prior_training.png"))
    return written
