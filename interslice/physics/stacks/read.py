"""Reads all scans of one patient as one measurement.

    files    scans of a `interslice.files.member.Group`, each read and checked as a single one is, on RAS axes
    y        (1, M) voxels of all slices of all stacks, one stack after the other, the reference first
    affine   of the grid on which the volume is reconstructed by default (interslice.physics.stacks.grid)

Which scans belong together is decided from names and headers (interslice.files.groups), before anything is read; which
of them become stacks, when all are read (interslice.physics.stacks.members). What is left out, and what is doubtful, is
said by name, on the screen and in the record of the case.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Orientationd

from interslice.files.check import CheckVolumed
from interslice.files.combined import Combined
from interslice.files.dicom_read import is_dicom_source
from interslice.files.dicom_search import search
from interslice.files.dicom_stack import Stack as Series
from interslice.files.doubts import add_doubts
from interslice.files.find import SUFFIXES, case_name, find_volumes
from interslice.files.groups import COMBINE, called_apart, usable_stacks
from interslice.files.limits import Limits
from interslice.files.member import Group, Member
from interslice.files.read import LoadVolumed
from interslice.files.straighten import ResampleSheard
from interslice.files.values import choice
from interslice.physics.stacks.doubts import doubts_about
from interslice.physics.stacks.grid import common_grid
from interslice.physics.stacks.members import chosen, read_all
from interslice.physics.thick import AsAcquiredd, ThroughPlaneSampling
from interslice.usage import UsageError


class LoadStacksd(MapTransform):
    """Groups of scans become measurements (1, M), with their stacks in the metadata. Bands of each are evened before.

    A path is taken for a group, too: a file for one of itself, a folder, or a list of paths, for all that is in it.
    Metadata: "stacks" (a tuple of interslice.physics.stacks.stack.Stack, the reference first), "source" of the
    reference and with the group, "combined" for the record, "case".

    Args:
        keys: groups, paths, lists of paths, or stacks that were found of DICOM.
        combine: which scans are of one patient (interslice.files.groups).
        reference: name, part of a name, or number from 1 of the stack whose grid and contrast the result has; by
            default see interslice.physics.stacks.members.
        slices: which axis of a scan is thick, and its slices' thickness and profile.
        series: numbers or UIDs of the DICOM series to take, with commas between them; all by default.
        resample_shear: a switch: bring scans with a tilted gantry onto straight slices.
        limits: of the size of a file and of memory.

    Raises:
        ValueError: no scan can be used, or those that can make no volume; each is named.
    """

    suffixes = SUFFIXES

    def __init__(self, keys, combine: str = "auto", reference: str | int | None = None,
                 slices: ThroughPlaneSampling | None = None, series: int | str | None = None,
                 resample_shear: bool | str = False, limits: Limits | None = None) -> None:  # fmt: skip
        super().__init__(keys)
        self.combine, self.series = choice("combine", combine, COMBINE), series
        self.reference = checked_reference(reference)
        self.slices, self.limits = checked_slices(slices or ThroughPlaneSampling()), limits or Limits()
        self.read = Compose([
            LoadVolumed("image", limits=self.limits),
            ResampleSheard("image", enabled=resample_shear),
            CheckVolumed("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            AsAcquiredd("image", self.slices, name="slices"),
        ])  # fmt: skip

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._measurement(group_of(d[key], self.series), d.get("case"))
        return d

    def _measurement(self, group: Group, case: str | None) -> MetaTensor:
        stacks, left_out = chosen(*read_all(group, self.read, self.slices, self.limits), self.reference, group)
        _, affine = common_grid([one.stack for one in stacks])
        y = torch.cat([one.stack.slices.flatten() for one in stacks])
        measurement = MetaTensor(y[None], affine=affine, meta={
            "filename_or_obj": group.__fspath__(),
            "case": case or case_name(group.__fspath__()),
            "stacks": tuple(one.stack for one in stacks),
            "source": replace(stacks[0].source, group=group),
            "combined": Combined(group.combine, tuple(one.record() for one in stacks), left_out),
        })  # fmt: skip
        add_doubts(measurement, *doubts_about(stacks, left_out, float(affine[:3, 0].norm())))
        return measurement


def checked_reference(reference: object) -> str | int | None:
    """A name or a number from 1; UsageError for what is neither."""
    if reference is None or (isinstance(reference, str) and reference.strip()):
        return reference
    if isinstance(reference, int) and not isinstance(reference, bool) and reference >= 1:
        return reference
    raise UsageError(f"reference must be the name of a stack, or its number from 1, got {reference!r}")


def checked_slices(slices: ThroughPlaneSampling) -> ThroughPlaneSampling:
    """The same; UsageError where it sets the grid, which is that of all stacks."""
    plain = ThroughPlaneSampling()
    for name in ("spacing", "ratio", "in_plane"):
        if (value := getattr(slices, name)) != getattr(plain, name):
            raise UsageError(
                f"slices#{name} {value}: stacks are reconstructed on one grid, and not on one of each: set "
                "--operator#spacing, the voxel size in mm, and leave this out"
            )
    return slices


def group_of(data: Group | Series | str | Path | Sequence, series: int | str | None = None) -> Group:
    """A group as it is, and what else is given as one: all scans of a path, a list of paths, or a DICOM stack."""
    if isinstance(data, Group):
        return data
    members: list[Member] = []
    for part in data if isinstance(data, (list, tuple)) else [data]:
        if isinstance(part, Series):
            members.append(Member.of_series(part, [part]))
        elif is_dicom_source(part):
            stacks, _ = usable_stacks(search(part), series)
            members += [Member.of_series(stack, stacks) for stack in stacks]
        elif Path(part).is_dir():
            members += group_of([item["image"] for item in find_volumes(part, deep=True).items], series).members
        else:
            members.append(Member.of_file(part))
    if not members:
        raise ValueError(f"{data}: no scan in it")
    return Group(called_apart(members), "all")
