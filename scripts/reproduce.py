"""Run the evaluations behind the published figures and write them as tables and pictures.

    python -m scripts.reproduce                      run what is missing, then write the tables
    python -m scripts.reproduce --only ct            the CT part of it; or mri, grid, or patient
    python -m scripts.reproduce --tables_only        write the tables from docs/results*.json

MRI: the embedded head, sampled from several seeds with independent, identical and slerp noise (paired: the same seeds
for all), and, given weights that `run adaptation` made of the thick sample, with slerp noise and those. CT: the
embedded chest, for the tasks, geometries and photon counts of `CT_RUNS`; strengths that no rule gives come from
docs/tuning_ct.json (scripts.studies.tune_ct). Grid: tasks x solvers x noise fields x volumes x seeds, to compare noise
fields (scripts.studies.evidence_grid). Patient: several stacks, guides, and bands, of the people and the real scans
that --shown_dir and --real_dir hold (scripts.studies.stacks, .guide, .bands, .real_guides); what has no folder is left
out. A seed is the key of the sampling noise and of the photon noise.
Finished runs are kept in --work_dir, so an interrupted grid goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from monai.bundle import ConfigWorkflow

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from scripts.studies import acquired_tables, bands, evidence_grid, guide, real_guides, stacks
from scripts.studies.grid_tables import write_evidence
from scripts.studies.stacks_tables import write_stacks
from scripts.studies.tables import write_tables

CASE, CT_CASE = "colin27_t1", "lidc_idri_0001"
CONFIGS = ["configs/inference.json", "configs/evaluate.json"]
FEW_STEPS = {"num_steps": 5, "num_draws": 1, "compare": True, "finish": None}
"""Comparisons of noise need many runs, no mean of draws and no final smoothing: they would hide what noise does."""
VIEWS = {"svct": {}, "lact": evidence_grid.LIMITED_ARC}
DDS = {"num_steps": 50, "start_fraction": 1.0, "start": None}
"""From noise alone, as in the paper on slice-consistent noise."""


@dataclass(frozen=True)
class CtRun:
    """One evaluation of the embedded chest.

    Attributes:
        views: of VIEWS.
        beam: `parallel` or `cone`.
        photons: per detector element; None: no noise.
        seeds: how many.
        ids: others that are not the default.
        overlays: names of configs, after the task.
    """

    views: str
    beam: str
    photons: float | None = 1e5
    seeds: int = 1
    ids: dict = field(default_factory=dict)
    overlays: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of scan, for which weights are tuned."""
        return f"{self.views}, {self.beam}, {'no noise' if self.photons is None else f'{self.photons:g} photons'}"


CT_RUNS = {
    "30 views, parallel, no noise": CtRun("svct", "parallel", None),
    "30 views, parallel, 1e5 photons": CtRun("svct", "parallel", seeds=3),
    "30 views, parallel, 1e4 photons": CtRun("svct", "parallel", 1e4, seeds=2),
    "30 views, cone beam, 1e5 photons": CtRun("svct", "cone", seeds=2),
    "100 degrees, parallel, 1e5 photons": CtRun("lact", "parallel", seeds=2),
    "noise fields: parallel beam, 30 views, 1e5 photons": CtRun("svct", "parallel", seeds=3, ids=FEW_STEPS),
    "noise fields: cone beam, 30 views, 1e5 photons": CtRun("svct", "cone", seeds=3, ids=FEW_STEPS),
    **{
        f"DDS from noise alone: {name}, no photon noise": CtRun(
            views, beam, None, ids=FEW_STEPS | DDS, overlays=("solver_dds",)
        )
        for name, views, beam in (
            ("parallel beam, 30 views", "svct", "parallel"), ("cone beam, 30 views", "svct", "cone"),
            ("parallel beam, 100 degrees", "lact", "parallel"), ("cone beam, 100 degrees", "lact", "cone"),
        )
    },
}  # fmt: skip
SHOWN_CT = "30 views, parallel, 1e5 photons"
"""The run of the picture and of the model card."""
BANDED = "open_ms_p01_study1_T1W"
"""The real scan whose neighbouring slices differ in brightness."""


def run_one(folder: Path, overrides: dict, configs: list[str] = CONFIGS, case_name: str = CASE) -> dict:
    """Metrics and run record of one evaluation; read from `folder` if it is already there."""
    case = folder / case_name
    if not (case / "metrics.json").exists() or not (case / "run.json").exists():
        overrides = {"report": False} | overrides
        workflow = ConfigWorkflow(configs, workflow_type="inference", output_dir=str(folder), **overrides)
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


def run_mri(work_dir: Path, seeds: list[int], adapted: Path | None) -> None:
    """docs/results.json and docs/report.png."""
    grid = {"shipped prior": {"compare": True}}
    if adapted:
        grid["adapted to the scan"] = {"checkpoint": str(adapted)}
    record: dict[str, dict] = {}
    for name, overrides in grid.items():
        for seed in seeds:
            folder = work_dir / f"{name.replace(' ', '_')}_seed{seed}"
            record.setdefault(name, {})[str(seed)] = run_one(folder, {"seed": seed, **overrides})
    Path("docs/results.json").write_text(json.dumps(record, indent=1) + "\n")
    shutil.copy(work_dir / f"shipped_prior_seed{seeds[0]}" / CASE / "report.png", "docs/report.png")


def run_ct(work_dir: Path) -> None:
    """docs/results_ct.json, and docs/report_ct.png of the run that the README shows."""
    tuned = json.loads(Path("docs/tuning_ct.json").read_text(encoding="utf-8"))["chosen"]
    record: dict[str, dict] = {}
    for name, run in CT_RUNS.items():
        weights = tuned[run.kind]
        # With counts, both follow from their noise.
        without_noise = {"total_variation_weight": weights.get("total_variation")}
        if not run.overlays:
            without_noise["data_consistency#rho"] = weights.get("rho")
        overrides = {
            **(without_noise if run.photons is None else {}),
            "tv_weight": weights["smoothing"],
            "photons": run.photons,
            "beam": run.beam,
            **VIEWS[run.views],
            **run.ids,
        }
        configs = [*CONFIGS, *(f"configs/{overlay}.json" for overlay in ("task_svct", *run.overlays))]
        for seed in range(run.seeds):
            folder = work_dir / f"{name.replace(' ', '_').replace(',', '').replace(':', '')}_seed{seed}"
            record.setdefault(name, {})[str(seed)] = run_one(folder, {"seed": seed, **overrides}, configs, CT_CASE)
            if name == SHOWN_CT and seed == 0:
                shutil.copy(folder / CT_CASE / "report.png", "docs/report_ct.png")
        write_json(Path("docs/results_ct.json"), record)


def _tables(docs: Path) -> list[Path]:
    """Every page whose tables are made of JSON."""
    return write_tables(docs) + write_evidence(docs) + write_stacks(docs) + acquired_tables.write_acquired(docs)


def run_patient(work_dir: Path, shown: Path | None, real: Path | None) -> None:
    """docs/stacks.json, guide.json, bands.json and real_guides.json, of the folders that there are."""
    if shown is not None:
        stacks.main(["--data_dir", str(shown), "--work_dir", str(work_dir / "stacks")])
        guide.main(["--data_dir", str(shown), "--work_dir", str(work_dir / "guide")])
    if real is not None:
        bands.main(["--real_dir", str(real)])
        bands.main(["--real_dir", str(real), "--result", BANDED])
        real_guides.main(["--data_dir", str(real), "--work_dir", str(work_dir / "real_guides")])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the MRI part")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--adapted", type=Path, help="weights that configs/adapt.json wrote, to be compared")
    parser.add_argument("--only", choices=["mri", "ct", "grid", "patient"])
    parser.add_argument("--shown_dir", type=Path, help="folder with the volumes of the shown people")
    parser.add_argument("--real_dir", type=Path, help="folder with the real thick scans")
    parser.add_argument("--tables_only", action="store_true")
    args = parser.parse_args(argv)

    if not args.tables_only:
        if args.only in (None, "mri"):
            run_mri(args.work_dir, args.seeds, args.adapted)
        if args.only in (None, "ct"):
            run_ct(args.work_dir)
        if args.only in (None, "grid"):
            evidence_grid.main(["--work_dir", str(args.work_dir / "grid")])
        if args.only in (None, "patient"):
            run_patient(args.work_dir, args.shown_dir, args.real_dir)
    for path in _tables(Path("docs")):
        print(f"wrote {path}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run in --work_dir"):
        main()
