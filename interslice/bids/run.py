"""Runs the jobs of a plan by the bundle's own configs, as `python -m monai.bundle run inference` would."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.bundle import ConfigParser, ConfigWorkflow

from interslice.bids.derivatives import Derivatives
from interslice.bids.options import ROOT
from interslice.bids.plan import Job, Plan
from interslice.files.command_line import becomes
from interslice.files.failure import failure_of
from interslice.files.listed import as_list
from interslice.files.never_run import is_code, would_run
from interslice.files.options import complaint
from interslice.usage import UsageError

SINGLE = ("inference.json",)
SEVERAL = ("inference.json", "task_stacks.json")
RESERVED = ("dataset_dir", "output_dir", "bundle_root", "skip_finished", "output_format", "deidentify", "combine",
            "write_cases", "writers", "cases")  # fmt: skip
"""Ids that BIDS decides on."""


def checked(options: Mapping[str, str], root: Path, combine: bool = False) -> dict[str, object]:
    """Ids of the configs and the text that each was given, as values.

    Args:
        combine: whether the configs of several scans are used, too.

    Raises:
        UsageError: an id that no config knows, that BIDS decides on, or a text that would be run as code.
    """
    configs = [ConfigParser.load_config_files(configs_of(root, several)) for several in {False, combine}]
    said = []
    for name, text in options.items():
        unknown = [complaint(name, config, options) for config in configs]
        if name.replace("::", "#").split("#")[0] in RESERVED:
            said.append(f"--{name} is not taken here: it follows from bids_dir, output_dir and the names of the scans")
        elif why := (all(unknown) and unknown[0]) or would_run(name, text):
            said.append(why)
        elif is_code(name, text):
            said.append(f"--{name} {text}: what MONAI would evaluate is not taken here; write it into a config")
    if said:
        raise UsageError("\n".join(said))
    return {name.replace("::", "#"): becomes(text) for name, text in options.items()}


def configs_of(root: Path, several: bool) -> list[str]:
    """Paths of the configs."""
    return [str(root / "configs" / name) for name in (SEVERAL if several else SINGLE)]


def reconstruct(plan: Plan, derivatives: Derivatives, options: Mapping[str, object], root: Path = ROOT) -> list[str]:
    """Make the results of a plan; what goes wrong with some does not end the others.

    Args:
        options: ids of the configs and their values.

    Returns:
        In words, what has no result, and why; empty where all went well.
    """
    lost = []
    for jobs, several in ((plan.single, False), (plan.several, True)):
        if not jobs:
            continue
        try:
            _run(jobs, derivatives, options, root, several)
        except SystemExit as end:  # the run has gone on to its end, and names what has no result
            if end.code:
                lost.append(str(end.code))
        except UsageError:
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure.status != 1 or failure.fault:
                raise
            lost.append(failure.said.removeprefix("error: "))
    return lost


def _run(jobs: Sequence[Job], derivatives: Derivatives, options: Mapping[str, object], root: Path,
         several: bool) -> None:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="interslice-") as folder:
        scans = Path(folder) / "scans.txt"
        scans.write_bytes(as_list(path for job in jobs for path in job.paths))
        files = configs_of(root, several)
        config = ConfigParser.load_config_files(files)
        known = {name: value for name, value in options.items() if not complaint(name, config, options)}
        workflow = ConfigWorkflow(
            files if several else files[0],
            meta_file=str(root / "configs" / "metadata.json"),
            logging_file=str(root / "configs" / "logging.conf"),
            workflow_type="inference",
            bundle_root=str(root),
            dataset_dir=scans,
            output_dir=Path(derivatives.root).absolute(),
            **{
                "write_cases#_target_": "interslice.bids.write.WriteDerivatives",
                "write_cases#bids_dir": Path(derivatives.source.root).absolute(),
                "write_cases#desc": derivatives.desc,
                "write_cases#version": derivatives.version,
            },
            **known,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
