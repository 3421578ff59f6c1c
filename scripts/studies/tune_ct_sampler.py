"""How CT sampling is set, on slices that are neither held out nor were trained on: start, noise, steps, draws, planes.

    python -m scripts.studies.tune_ct_sampler --volume data_ct/bodies/totalsegmentator_thorax.nii.gz
                                        docs/tuning_ct_sampler.json, and the table of docs/explanation/ct_sampling.md

The slices of scripts.studies.tune_ct, PHOTONS. Each setting changes the configs' default as its name says;
one draw, unless draws are what is changed, because a mean of draws hides what a draw does. The default is sampled with
SEEDS, which tells how much of a difference is chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.planes import PLANES
from scripts.studies.bench import Bench
from scripts.studies.record import Record
from scripts.studies.tables import cell, fill, table
from scripts.studies.tune_ct import write_slab

PHOTONS = 1e5
SEEDS = (0, 1, 2)
DEFAULT = "default, one draw"
BASELINE = "total variation alone"


def steps(number: int, share: float, **others) -> dict:
    """Ids of so many steps from a share of the schedule."""
    return {"num_steps": number, "start_fraction": share, **others}


SETTINGS: dict[str, dict] = {
    DEFAULT: {},
    "2 draws": {"num_draws": 2},
    "4 draws (`best`)": {"num_draws": 4},
    "8 draws": {"num_draws": 8},
    "from least squares": {"start": "@baselines#least_squares"},
    "from filtered back-projection": {"start": None},
    "from filtered back-projection, 30 steps from t = 200": steps(30, 0.2, start=None),
    "10 steps from t = 20": steps(10, 0.02),
    "20 steps from t = 20": steps(20, 0.02),
    "10 steps from t = 50": steps(10, 0.05),
    "30 steps from t = 50": steps(30, 0.05),
    "10 steps from t = 200": steps(10, 0.2),
    "30 steps from t = 200": steps(30, 0.2),
    "30 steps from t = 200, rho / 3": steps(30, 0.2) | {"data_consistency#rho": 0.003},
    "30 steps from t = 200, rho x 3": steps(30, 0.2) | {"data_consistency#rho": 0.03},
    "30 steps from t = 200, 4 draws": steps(30, 0.2, num_draws=4),
    "50 steps from noise alone (t = 1000)": steps(50, 1.0),
    "eta 0.5": {"eta": 0.5},
    "eta 0": {"eta": 0.0},
    "axial slices alone": {"slice_axis": 2},
    "no total variation at the end": {"finish": None},
    "independent noise": {"noise": "independent"},
    "identical noise": {"noise": "identical"},
}
"""What is changed: ids of the configs."""
MBIR = {
    "total variation across slices (`solver_mbir`), slerp noise": {},
    "total variation across slices (`solver_mbir`), independent noise": {"noise": "independent"},
}
CONE = (
    DEFAULT, "4 draws (`best`)", "10 steps from t = 50", "30 steps from t = 200", "axial slices alone",
    "independent noise",
)  # fmt: skip
"""Those that are tried with a cone beam, too."""


ARCS = {
    DEFAULT: {},
    "10 steps from t = 10": steps(10, 0.01) | {"inferer#share": 1.0},  # as of a whole scan
    "20 steps from t = 50": steps(20, 0.05),
    "20 steps from t = 100": steps(20, 0.1),
    "20 steps from t = 200": steps(20, 0.2),
}
"""Tried where directions are missing."""
SCANS = {
    "parallel beam": ({"beam": "parallel"}, [*SETTINGS, *MBIR]),
    "cone beam": ({"beam": "cone"}, CONE),
    **{f"parallel beam, {arc} degrees": ({"num_views": arc, "arc": float(arc)}, list(ARCS)) for arc in (60, 100, 140)},
}
"""Name: ids, and what is tried."""


def plan() -> Iterator[tuple]:
    """Keys of all runs: scan, setting, seed."""
    for scan, (_, names) in SCANS.items():
        yield scan, BASELINE, "0"
        for name in names:
            yield from ((scan, name, str(seed)) for seed in (SEEDS if name == DEFAULT else SEEDS[:1]))


def run(slab: Path, others: dict, key: tuple) -> dict:
    """Metrics of one setting."""
    scan, name, seed = key
    overlays = ["task_svct", *(["solver_mbir"] if name in MBIR else [])]
    ids = (SETTINGS | MBIR | ARCS).get(name, {})
    # The preset of one draw: `num_draws` itself would keep a limited arc from its own steps.
    ids = {"preset": "sharp", **SCANS[scan][0], **ids, **others}
    bench = Bench(overlays, slab, photons=PHOTONS, report=False, compare=False, **ids)
    if name == BASELINE:
        return bench.measure(bench.reconstruct("total_variation"))
    return bench.measure(bench.sample(seed=int(seed)))


def write_table(record: dict, page: Path) -> None:
    """One row per setting."""
    rows = []
    for scan, settings in record["results"].items():
        for name, runs in settings.items():
            found = list(runs.values())
            figures = [("psnr", 1, 2), ("ssim", 1, 3), *((f"error_{p}", 1e3, 2) for p in PLANES)]
            rows.append([scan, name, *(cell([k * r[m] for r in found], d) for m, k, d in figures)])
    header = ["scan", "setting", "PSNR (dB)", "SSIM", *(f"inter-slice error x 1000, {p}" for p in PLANES)]
    note = (
        f"{record['settings']['slices']} slices of the thorax at 2.5 mm, {PHOTONS:g} photons; 30 views, of limited "
        "arcs one a degree. Made by `python -m scripts.studies.tune_ct_sampler`."
    )
    fill(page, "ct sampler", f"{note}\n\n{table(header, rows)}")


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True, help="the thorax of scripts.prepare_data")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/tune_ct"))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_ct_sampler.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/explanation/ct_sampling.md"))
    args = parser.parse_args(argv)
    slab, count = write_slab(args.volume, args.work_dir)
    record = Record(args.output, {"photons": PHOTONS, "views": 30, "slices": count})
    record.fill(plan(), partial(run, slab, others), "settings")
    write_json(args.output, record.content)
    write_table(record.content, args.page)
    print(f"wrote {args.output} and {args.page}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
