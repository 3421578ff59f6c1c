"""The BIDS app: what is asked for, what is there, what is to be done, and doing it. See interslice.bids.options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from interslice.bids.dataset import Dataset, Scans, find_scans, open_dataset
from interslice.bids.derivatives import Derivatives
from interslice.bids.names import check_desc
from interslice.bids.options import ROOT, RUN, read, version_of
from interslice.bids.plan import Plan, plan_for
from interslice.bids.run import checked, reconstruct
from interslice.bids.validator import errors_in, find_validator, listed
from interslice.files.command_line import parse
from interslice.files.paths import path_of
from interslice.files.values import number, whole_number
from interslice.files.write import check_writable
from interslice.usage import UsageError


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """The BIDS app, from the words of its command line.

    Args:
        argv: the words; sys.argv by default.
        root: the folder of the bundle, with configs and models.

    Raises:
        UsageError, ValueError, OSError: why there is nothing to do, in words.
        SystemExit: scans have no result; says which, and why.
    """
    args, others = read(sys.argv[1:] if argv is None else argv, root)
    surplus, more = parse(others)
    if surplus:
        raise UsageError(f"these words belong to no option: {' '.join(surplus)}")
    given = {name: text for name in RUN if (text := getattr(args, name)) is not None} | more
    options = checked(given, root, args.combine) | _machine(args)
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
        threads = whole_number("n_cpus", args.n_cpus, 1)
        os.environ |= {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        torch.set_num_threads(threads)
    if args.mem_mb is None:
        return {}
    return {"max_memory": number("mem_mb", args.mem_mb, above=0, kind="a number of MB") / 1000}


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
