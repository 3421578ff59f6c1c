"""Reconstructs the thick scans of a BIDS data set, and writes a BIDS derivatives data set.

    python -m interslice.bids bids_dir output_dir participant
    python -m interslice.bids bids_dir bids_dir/derivatives/interslice participant --participant_label 01 --suffix T2w
    python -m interslice.bids bids_dir output_dir participant --combine --preset fast --skip_finished

Every other id of configs/inference.json is an option, too: --operator#gap 1.0, --num_steps 5.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from interslice.bids.dataset import Dataset, Scans, find_scans, open_dataset
from interslice.bids.derivatives import NAME, Derivatives
from interslice.bids.names import check_desc
from interslice.bids.plan import Plan, plan_for
from interslice.bids.run import ROOT, checked, reconstruct, version_of
from interslice.bids.validator import errors_in, find_validator, listed
from interslice.files.command_line import parse
from interslice.files.paths import path_of
from interslice.files.values import number, whole_number
from interslice.files.write import check_writable
from interslice.usage import UsageError

RUN = {
    "preset": "best, fast or sharp",
    "model": "size of the shipped weights: auto, small or large",
    "checkpoint": "weights of your own, .pt or .safetensors",
    "seed": "key of the draws",
    "noise": "the noise field: slerp, independent, identical, mixed, piecewise, ou, matern or auto",
    "noise_level": "noise of the scans as a share of their range; by default it is estimated",
    "num_steps": "steps of the sampler",
    "num_draws": "samples, whose mean is the result",
    "evidence": "yes: also what was measured and what was filled in",
    "report": "no: without the pages for the browser",
    "device": "cpu, cuda, cuda:1",
}
"""Ids of the configs that are listed as options."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m interslice.bids", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("bids_dir", type=Path, help="the data set")
    add("output_dir", type=Path, help="the derivatives data set, made if it is not there")
    add("analysis_level", choices=("participant", "group"), help="participant; there is nothing to do for a group")
    add("--participant_label", "--participant-label", nargs="+", default=[], metavar="LABEL", help="default: all")
    add(
        "--session_label", "--session-label", "--session_id", "--session-id", nargs="+", default=[], metavar="LABEL",
        help="default: all, and scans outside of sessions",
    )  # fmt: skip
    add(
        "--suffix",
        nargs="+",
        default=[],
        metavar="SUFFIX",
        help="contrasts, such as T2w FLAIR; default: all usual ones",
    )
    add("--combine", action="store_true", help="make one volume of all scans of a contrast, subject and session")
    add("--desc", default=NAME, help=f"label of desc in the names of results; default: {NAME}")
    add("--skip_finished", "--skip-finished", action="store_true", help="leave out what an earlier run has done")
    add(
        "--skip-bids-validation", "--skip_bids_validation", action="store_true",
        help="take the data set as it is; by default the validator looks at it, where it is installed",
    )  # fmt: skip
    add("--n_cpus", "--n-cpus", "--nprocs", type=int, metavar="N", help="processor cores to use")
    add("--mem_mb", "--mem-mb", type=float, metavar="MB", help="memory that the run may take")
    add("--dry_run", "--dry-run", action="store_true", help="say what would be done, and end")
    add("--version", action="version", version=f"{NAME} {version_of()}")
    run = parser.add_argument_group("ids of configs/inference.json")
    for name, about in RUN.items():
        run.add_argument(f"--{name}", f"--{name.replace('_', '-')}", help=about)
    return parser


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """The BIDS app, from the words of its command line.

    Args:
        argv: the words; sys.argv by default.
        root: the folder of the bundle, with configs and models.

    Raises:
        UsageError, ValueError, OSError: why there is nothing to do, in words.
        SystemExit: scans have no result; says which, and why.
    """
    args, others = parser().parse_known_args(argv)
    surplus, more = parse(others)
    if surplus:
        raise UsageError(f"these words belong to no option: {' '.join(surplus)}")
    if args.analysis_level == "group":
        raise UsageError(
            "there is no analysis at the level of a group: each scan is reconstructed by itself; say participant"
        )
    given = {name: text for name in RUN if (text := getattr(args, name)) is not None} | more
    options = {several: checked(given, root, several) for several in ((True,) if args.combine else (False,))}
    options = options[args.combine] | _machine(args)
    dataset = open_dataset(args.bids_dir, described=not args.skip_bids_validation)
    output_dir = check_writable(path_of("output_dir", args.output_dir))
    derivatives = Derivatives(output_dir, dataset, check_desc(args.desc), version_of(root))
    derivatives.check()
    scans = find_scans(dataset, args.participant_label, args.session_label, args.suffix)
    if not args.skip_bids_validation:
        validate(dataset)
    plan = plan_for(
        scans, derivatives, args.combine, args.skip_finished, not any(n.startswith("operator") for n in more)
    )
    say(plan, scans, derivatives)
    if args.dry_run:
        return
    if not plan.jobs and not plan.finished and not scans.refused:
        raise ValueError(f"nothing to reconstruct in {dataset.root}: every scan was left out, for the reasons above")
    lost = [f"  {path}: {why}" for path, why in scans.refused.items()]
    ended = reconstruct(plan, derivatives, options, root)
    if lost or ended:
        head = [f"{len(lost)} scans cannot be used:"] if lost else []
        raise SystemExit("\n".join([*ended, *head, *lost]))


def validate(dataset: Dataset) -> None:
    """Have the official validator look at a data set, where it is installed. ValueError names what it finds wrong."""
    command = find_validator()
    if command is None:
        print("the BIDS validator is not installed (pip install bids-validator-deno): only names are checked",
              file=sys.stderr, flush=True)  # fmt: skip
    elif errors := errors_in(dataset.root, command):
        raise ValueError(
            f"{dataset.root} is no valid BIDS data set: mend it, or give --skip-bids-validation\n{listed(errors)}"
        )


def say(plan: Plan, scans: Scans, derivatives: Derivatives) -> None:
    """Name what will be made of what, and what will not."""
    for path, why in scans.left_out.items():
        _print(f"left out {path}: {why}")
    for path, why in scans.refused.items():
        _print(f"skipped {path}: {why}")
    if plan.finished:
        _print(f"{len(plan.finished)} results are finished in {derivatives.root}")
    for job in plan.jobs:
        _print(f"{', '.join(map(derivatives.source.relative, job.paths))} -> {job.name.path()}")


def _machine(args: argparse.Namespace) -> Mapping[str, object]:
    """What of the machine may be used, as ids; the number of threads is set at once."""
    if args.n_cpus is not None:
        import torch

        threads = whole_number("n_cpus", args.n_cpus, 1)
        os.environ |= {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        torch.set_num_threads(threads)
    if args.mem_mb is None:
        return {}
    return {"max_memory": number("mem_mb", args.mem_mb, above=0, kind="a number of MB") / 1000}


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
