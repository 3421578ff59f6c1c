"""The command line of the BIDS app, by itself: `--help` needs nothing that takes seconds to import."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from interslice.files.switch import OFF, ON, is_on
from interslice.home import home
from interslice.usage import UsageError

NAME = "interslice"
ROOT = home()
"""Of the bundle: the folder of configs and models."""
ABOUT = """Reconstructs the thick scans of a BIDS data set, and writes a BIDS derivatives data set.

    interslice bids bids_dir output_dir participant
    interslice bids bids_dir bids_dir/derivatives/interslice participant --participant_label 01 --suffix T2w
    interslice bids bids_dir output_dir participant --combine --preset fast --skip_finished

Every other id of configs/inference.json is an option, too: --operator#gap 1.0, --precision float32.
`python -m interslice.bids` is the same command.
"""
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
SWITCHES = ("combine", "skip_finished", "skip_bids_validation", "dry_run")


def version_of(root: Path = ROOT) -> str:
    """The version of the bundle in a folder."""
    return json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]


def parser(root: Path = ROOT) -> argparse.ArgumentParser:
    """The command line.

    Args:
        root: the folder of the bundle.
    """
    parser = argparse.ArgumentParser(
        prog="interslice bids", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter,
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
    add("--version", action="version", version=f"{NAME} {version_of(root)}")
    run = parser.add_argument_group("ids of configs/inference.json")
    for name, about in RUN.items():
        run.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), metavar="VALUE", help=about)
    return parser


def read(argv: Sequence[str], root: Path = ROOT) -> tuple[argparse.Namespace, list[str]]:
    """The command line as `parser` reads it, and the words that it does not know.

    Switches may have a word for on or off after them, as those of the configs have.

    Raises:
        UsageError: another word after a switch and `=`; or the level of a group.
    """
    words, said = [], {}
    rest = list(argv)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        key = name.lstrip("-").replace("-", "_")
        if not name.startswith("--") or key not in SWITCHES:
            words.append(name + equals + text)
            continue
        if not equals:
            text = rest.pop(0) if rest and rest[0].lower() in (*ON, *OFF) else "yes"
        said[key] = is_on(text, key)
    args, others = parser(root).parse_known_args(words)
    for name, on in said.items():
        setattr(args, name, on)
    if args.analysis_level == "group":
        raise UsageError(
            "there is no analysis at the level of a group: each scan is reconstructed by itself; say participant"
        )
    return args, others
