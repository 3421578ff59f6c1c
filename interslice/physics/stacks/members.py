"""Reads the scans of one patient, and decides which of them are stacks of one volume.

    read        every scan by the readers of single ones, checked as those are, and brought to RAS axes
    left out    by name, with the reason: what cannot be read; fewer than FEWEST slices; the same voxels as
                another; another contrast than the reference's; voxels of one length (a 3-D sequence), unless contrasts
                are known to be the same; no common place with the others by the headers
    reference   whose grid and contrast the result has: of the contrast that most stacks have, the one with the finest
                voxels in its slices, then the one that covers most, then the first by name; or the one that is named

A volume with voxels of one length is a good measurement, too, and is taken as a stack of thin slices. Where its
contrast is not known it is left out: beside thick slices it mostly is a T1-weighted overview.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from interslice.files.acquired import acquired_of
from interslice.files.dicom_check import check_stack
from interslice.files.dicom_stack import Stack as Series
from interslice.files.doubts import doubts_of
from interslice.files.groups import by_contrast
from interslice.files.limits import Limits
from interslice.files.machine import GIGA, in_gigabytes
from interslice.files.member import Group, Member
from interslice.files.root_cause import root_cause
from interslice.files.source import Source, source_of
from interslice.physics.stacks.placed import meeting, plane_of
from interslice.physics.stacks.stack import FEWEST, Stack
from interslice.physics.thick.scanner import ThroughPlaneSampling
from interslice.physics.thick.through_plane import MIN_RATIO

MOST = 50
"""Scans of a patient. More are those of several, in one folder."""
SAME = 1.05
"""In-plane voxels that differ by less than this factor are equally fine."""
FRAMES = {3: "Talairach", 4: "MNI 152", 5: "a template"}
"""Codes of a NIfTI header for spaces that are not the scanner's; 2, another scan's, is what nibabel writes unasked."""


@dataclass(frozen=True, eq=False)
class Taken:
    """A scan that was read.

    Attributes:
        member: what it was read from.
        stack: its slices and where they lie.
        source: what its file says beyond that.
        thick: whether its slices are thicker than its voxels are wide.
        said: what is doubtful about it by itself.
        acquired: what its voxels tell of how it was acquired (interslice.files.acquired).
    """

    member: Member
    stack: Stack
    source: Source
    thick: bool
    said: tuple[str, ...] = ()
    acquired: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.member.label

    @property
    def in_plane(self) -> float:
        """Finest width of a voxel within a slice, mm."""
        return min(self.stack.voxel_size[axis] for axis in self.stack.in_plane)

    @property
    def box(self) -> tuple[np.ndarray, tuple[int, ...]]:
        """(affine, shape) of its grid."""
        return self.stack.affine.numpy(), tuple(self.stack.voxels.shape)

    @property
    def covered(self) -> float:
        """mm^3."""
        return math.prod(self.stack.voxel_size) * self.stack.voxels.numel()

    def record(self) -> dict:
        """What run.json says of it."""
        return {
            "name": self.name,
            "file": self.member.__fspath__(),
            "plane": plane_of(self.stack.normal.numpy()),
            "slices": self.stack.count,
            "thickness_mm": round(self.stack.thickness, 4),
            "pitch_mm": round(self.stack.pitch, 4),
            "in_plane_mm": round(self.in_plane, 4),
            "contrast": self.member.contrast.name,
            "frame": self.stack.frame or None,
            "acquired": dict(self.acquired),
        }


def read_all(group: Group, read: Callable[[dict], dict], slices: ThroughPlaneSampling, limits: Limits | None = None
             ) -> tuple[list[Taken], dict]:  # fmt: skip
    """The scans of a group that can be read, and name -> why of the others.

    Args:
        read: transforms that read and check "image", and bring it to RAS axes.
        slices: of all scans, which axis is thick, and the slices' thickness and profile.
        limits: of all scans together.

    Raises:
        ValueError: they are more than a patient has, or more than may be read.
    """
    if len(group.members) > MOST:
        raise ValueError(
            f"{len(group.members)} scans would be stacks of one patient, and at most {MOST} are combined: --combine "
            "none makes each a case, and --combine folder each folder of them"
        )
    taken: list[Taken] = []
    left_out: dict[str, str] = {}
    most = (limits or Limits()).max_gigabytes * GIGA
    for member in group.members:
        try:
            if isinstance(member.data, Series):
                check_series(member.data, group.named)
            with warnings.catch_warnings():  # what is doubtful is said once, and of those that are used
                warnings.simplefilter("ignore")
                one = _taken(member, read({"image": member.data})["image"], slices)
        except Exception as error:  # a file can be broken in as many ways as readers can fail
            left_out[member.label] = _about(root_cause(error), member, group.named)
            continue
        copy_of = next((other for other in taken if _same(one, other)), None)
        if copy_of is not None:
            left_out[member.label] = f"the same voxels as {copy_of.name}: a copy"
            continue
        taken.append(one)
        if (size := 4.0 * sum(one.stack.voxels.numel() for one in taken)) > most:
            raise ValueError(
                f"its scans take more than {in_gigabytes(most)} together as float32: --max_gigabytes "
                f"{math.ceil(size / GIGA)} reads more, --combine none each by itself"
            )
    return taken, left_out


def chosen(taken: Sequence[Taken], left_out: dict[str, str], reference: str | int | None, group: Group
           ) -> tuple[list[Taken], dict[str, str]]:  # fmt: skip
    """The stacks that make one volume, the reference first, and name -> why of the others.

    Args:
        taken, left_out: of `read_all`.
        reference: name or number, from 1, of the stack that is to be the reference; by default as above.
        group: of all.

    Raises:
        ValueError: no stack is left; the reference cannot be one; no other lies where the reference does.
    """
    left_out = dict(left_out)
    if not taken:
        raise ValueError("none of its scans can be used:" + _lines(left_out))
    named = None if reference is None else _named(taken, left_out, reference, group)
    kinds = by_contrast([one.member for one in taken])
    of_kind = [[one for one in taken if one.member in kind] for kind in kinds]
    most = min(of_kind, key=lambda kind: (-sum(one.thick for one in kind), min(one.name for one in kind)))
    ours = next(kind for kind in of_kind if named in kind) if named else most
    if not any(one.thick for one in ours):
        raise ValueError(
            f"none of {', '.join(one.name for one in ours)} has a thick axis: the slices must be at least {MIN_RATIO} "
            "times as far apart as voxels are wide; these need no super-resolution, or set the axis"
        )
    first = named or _best([one for one in ours if one.thick])
    for one in taken:
        if one not in ours:
            why = next(filter(None, (one.member.contrast.differs(other.member.contrast) for other in ours)), None)
            left_out[one.name] = f"another contrast than {first.name}: {why or 'it fits several of the patient'}"
    contrast = first.member.contrast.name
    for one in [one for one in ours if not one.thick and one is not first]:
        if contrast is None or one.member.contrast.name is None:
            left_out[one.name] = "a volume without a thick axis, whose contrast is not known to be that of the stacks"
            ours.remove(one)
    stacks, left_out = _of_one_place(ours, first, left_out)
    return stacks, {m.label: left_out[m.label] for m in group.members if m.label in left_out}


def _of_one_place(ours: list[Taken], first: Taken, left_out: dict[str, str]) -> tuple[list[Taken], dict[str, str]]:
    """Those that lie where the reference does; ValueError where no other does."""
    near = meeting([one.box for one in ours], ours.index(first))
    apart = [one for n, one in enumerate(ours) if n not in near]
    if apart and len(near) == 1:
        raise ValueError(
            f"by the headers {first.name} has no place in common with {', '.join(one.name for one in apart)}: are they "
            "of one patient, and one part of the body? --combine none reconstructs each by itself"
        )
    for one in apart:
        left_out[one.name] = f"no place in common with {first.name} by the headers: is it of another patient or part?"
    return [first, *(one for n, one in enumerate(ours) if n in near and one is not first)], left_out


def check_series(series: Series, named: bool) -> None:
    """Raise ValueError unless a series is a whole scan; without names of files and UIDs unless they may be `named`."""
    try:
        check_stack(series)
    except ValueError:
        if named:
            raise
        raise ValueError("no whole scan: slices are missing, share a place, or do not lie on a line") from None


def _taken(member: Member, volume: MetaTensor, slices: ThroughPlaneSampling) -> Taken:
    shape, spacing = tuple(volume.shape[1:]), tuple(volume.pixdim.tolist())
    thick = slices.axis != "auto" or max(spacing) >= MIN_RATIO * sorted(spacing)[1]
    if thick:
        operator = slices.for_measurement(volume)
        axis, thickness = operator.axis, operator.thickness
    else:
        axis = int(np.argmax(np.round(spacing, 3)))
        thickness = spacing[axis]
    if (number := shape[axis]) < FEWEST:
        raise ValueError(f"{number} slices, and a stack has at least {FEWEST}")
    source = source_of(volume)
    stack = Stack(
        voxels=volume.as_tensor()[0].float(), affine=volume.affine.double(), axis=axis, thickness=thickness,
        profile=slices.profile, name=member.label, frame=member.frame or _frame(source),
    )  # fmt: skip
    return Taken(member, stack, source, thick, doubts_of(volume), acquired_of(volume))


def _frame(source: Source) -> str:
    """The space of a NIfTI header, by the code of the matrix that is used; "" for the scanner's, or where none is."""
    if source.nifti is None:
        return ""
    header = source.nifti.header
    code = int(header["sform_code"]) or int(header["qform_code"])
    return FRAMES.get(code, "")


def _best(ours: Sequence[Taken]) -> Taken:
    """The reference among stacks of one contrast."""
    finest = min(one.in_plane for one in ours)
    fine = [one for one in ours if one.in_plane < SAME * finest]
    most = max(one.covered for one in fine)
    return min((one for one in fine if SAME * one.covered > most), key=lambda one: one.name)


def _named(taken: Sequence[Taken], left_out: dict[str, str], reference: str | int, group: Group) -> Taken:
    """The scan that is called so, a DICOM series by its number, too; or has this number, from 1, or part of a name."""
    name, members = str(reference), group.members
    found = [m for m in members if m.is_called(name)]
    if not found and name.isdecimal():
        found = [m for n, m in enumerate(members, 1) if n == int(name)]
    elif not found:
        found = [m for m in members if name.lower() in m.label.lower()]
    if len(found) != 1:
        raise ValueError(
            f"the reference {name!r} is {'none' if not found else f'{len(found)}'} of its scans: name one, or its "
            "number:" + "".join(f"\n    {n}: {m.label}" for n, m in enumerate(members, 1) if m in found or not found)
        )
    one = next((one for one in taken if one.member is found[0]), None)
    if one is None:
        raise ValueError(f"the reference {found[0].label} cannot be used: {left_out[found[0].label]}")
    return one


def _same(one: Taken, other: Taken) -> bool:
    """Whether two scans have the same voxels: noise is never the same twice, wherever a header places them."""
    return one.stack.voxels.shape == other.stack.voxels.shape and torch.equal(one.stack.voxels, other.stack.voxels)


def _about(why: str, member: Member, named: bool = True) -> str:
    """A reason without the scan's own file and folder; of files beside it, too, unless they may be `named`."""
    path = member.__fspath__()
    for said, instead in ((f"{path}: ", ""), (path, member.label), (f"{member.folder}/", ""),
                          (Path(path).name, member.label)):  # fmt: skip
        why = why.replace(said, instead)
    if not named and member.folder.is_dir():
        for name in sorted(os.listdir(member.folder), key=len, reverse=True):
            why = why.replace(name, "a file of it")
    return why


def _lines(left_out: dict[str, str]) -> str:
    return "".join(f"\n    {name}: {why}" for name, why in left_out.items())
