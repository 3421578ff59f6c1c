"""Run the evaluation behind the published figures and write them as tables and pictures.

    python -m scripts.reproduce                      run what is missing, then write the tables
    python -m scripts.reproduce --tables_only        write the tables from docs/results.json

The grid is the embedded sample, sampled from several seeds with independent, identical and slerp noise (paired: the
same seeds for all), and, given weights that `run adaptation` made of the thick sample, with slerp noise and those.
Finished runs are kept in --work_dir, so an interrupted grid goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from monai.bundle import ConfigWorkflow

from scripts.tables import write_tables

CASE = "colin27_t1"
CONFIGS = ["configs/inference.json", "configs/evaluate.json"]


def run_one(folder: Path, overrides: dict) -> dict:
    """Metrics and run record of one evaluation; read from `folder` if it is already there."""
    case = folder / CASE
    if not (case / "metrics.json").exists() or not (case / "run.json").exists():
        workflow = ConfigWorkflow(CONFIGS, workflow_type="inference", output_dir=str(folder), **overrides)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    run = json.loads((case / "run.json").read_text(encoding="utf-8"))
    return {
        "metrics": json.loads((case / "metrics.json").read_text(encoding="utf-8")),
        "run": {
            key: run[key] for key in ("seconds", "network_calls", "peak_memory_mb", "device", "threads", "versions")
        },
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--adapted", type=Path, help="weights that configs/adapt.json wrote, to be compared")
    parser.add_argument("--tables_only", action="store_true")
    args = parser.parse_args(argv)

    results = Path("docs/results.json")
    if not args.tables_only:
        grid = {"shipped prior": {"compare": True}}
        if args.adapted:
            grid["adapted to the scan"] = {"checkpoint": str(args.adapted)}
        record: dict[str, dict] = {}
        for name, overrides in grid.items():
            for seed in args.seeds:
                folder = args.work_dir / f"{name.replace(' ', '_')}_seed{seed}"
                record.setdefault(name, {})[str(seed)] = run_one(folder, {"seed": seed, **overrides})
        results.write_text(json.dumps(record, indent=1) + "\n")
        first = args.work_dir / f"shipped_prior_seed{args.seeds[0]}" / CASE / "report.png"
        shutil.copy(first, "docs/report.png")
    for path in write_tables(results):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
