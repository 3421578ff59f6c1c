"""What is to be done of the scans of a data set: which go together, what they become, and what is done already."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib

from interslice.bids.dataset import Scans
from interslice.bids.derivatives import Derivatives
from interslice.bids.names import Derivative, derivative_of
from interslice.bids.write import record_in
from interslice.files.bids_names import bids_name
from interslice.files.fingerprint import fingerprint
from interslice.files.groups import grouped
from interslice.files.member import Group, Member, paths_of
from interslice.files.record import count
from interslice.physics.thick import ThroughPlaneSampling


@dataclass(frozen=True, eq=False)
class Job:
    """A result that is to be made.

    Attributes:
        data: the path of a scan, or the group of several.
        name: what its results are called.
    """

    data: str | Group
    name: Derivative

    @property
    def paths(self) -> list[str]:
        """Of its scans."""
        return paths_of(self.data)


@dataclass
class Plan:
    """Jobs of a run.

    Attributes:
        single: those of one scan each.
        several: those of several scans each.
        finished: those that an earlier run has done.
    """

    single: list[Job] = field(default_factory=list)
    several: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)

    @property
    def jobs(self) -> list[Job]:
        return [*self.single, *self.several]


def plan_for(scans: Scans, derivatives: Derivatives, combine: bool = False, skip_finished: bool = False,
             only_thick: bool = True) -> Plan:  # fmt: skip
    """What is to be done; what is not is named in `scans`, with the reason.

    Args:
        combine: make one volume of all scans of a contrast, subject and session (interslice.files.groups).
        skip_finished: leave out what is whole in the derivatives data set, and made from the same data.
        only_thick: leave out scans of which no axis is thick, by the operator's own rule, unless scans are combined;
            else they are refused when they are read.
    """
    together: dict[object, list[Path]] = {}
    scans.refused |= {str(path): why for path in scans.paths if (why := _several(path))}
    for path in scans.paths:
        if str(path) in scans.refused:
            continue
        together.setdefault((path.parent, bids_name(path).shared) if combine else path, []).append(path)
    plan, taken = Plan(), {}
    for paths in together.values():
        jobs = [_job(path, derivatives) for path in paths]
        if len(paths) > 1:
            members = [Member.of_file(path) for path in paths]
            groups = [item["image"] for item in grouped(members, "auto", paths)]
            jobs = [Job(group, derivative_of(paths_of(group), derivatives.desc)) for group in groups]
        elif only_thick and (why := _not_thick(paths[0])):
            scans.left_out[str(paths[0])] = why
            continue
        jobs = [job for job in jobs if _alone(job, taken, scans)]
        if skip_finished and jobs and all(is_finished(job, derivatives) for job in jobs):  # groups are told apart anew
            plan.finished += jobs
        else:
            (plan.several if len(paths) > 1 else plan.single).extend(jobs)
    return plan


def is_finished(job: Job, derivatives: Derivatives) -> bool:
    """Whether an earlier run has written all that the record of a result names, from the same data."""
    record = record_in(derivatives.root / job.name.path(end=".json"))
    if record is None or record.get("fingerprint") != fingerprint(job.data):
        return False
    return all(
        isinstance(number, int) and count(derivatives.root / name) >= number for name, number in record["files"].items()
    )


def _job(path: Path, derivatives: Derivatives) -> Job:
    return Job(os.fspath(path), derivative_of([path], derivatives.desc))


def _alone(job: Job, taken: dict[str, str], scans: Scans) -> bool:
    """Whether no other job has results of this name; else its scans are refused."""
    name = str(job.name.path())
    if name not in taken:
        taken[name] = ", ".join(Path(path).name for path in job.paths)
        return True
    for path in job.paths:
        scans.refused[path] = f"its result would be called {name}, as that of {taken[name]}: rename one"
    return False


def _several(path: Path) -> str | None:
    """Why a file holds more than an anatomical scan of BIDS does; None of any other, and of what cannot be read."""
    try:
        volumes = math.prod(nib.load(path).shape[3:])
    except Exception:  # a header can be damaged in as many ways as nibabel can fail: its reader says how
        return None
    return f"it holds {volumes} volumes, and an anatomical scan of BIDS one: split it" if volumes > 1 else None


def _not_thick(path: Path) -> str | None:
    """Why a scan has no thick slices, by its header; None of any that may have, or that cannot be read."""
    try:
        header = nib.load(path).header
        shape, spacing = header.get_data_shape()[:3], [float(s) for s in header.get_zooms()[:3]]
    except Exception:  # as above
        return None
    try:
        ThroughPlaneSampling().for_scan(tuple(shape), tuple(spacing))
    except ValueError as error:
        return str(error)
    return None
