"""Scans of one patient that become one case: a group, and its members.

A group stands in the place of a path ("image" of an item of a run): as a path it is that of its first member.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from interslice.files.bids_names import bids_name, own_ids
from interslice.files.carried import carried
from interslice.files.contrast import WORDS, Contrast, contrast_of_file, contrast_of_series
from interslice.files.dicom_names import is_called, name_of
from interslice.files.dicom_stack import Stack
from interslice.files.find import case_name


@carried
@dataclass(frozen=True, eq=False)
class Member:
    """One scan of a group.

    Attributes:
        data: what `interslice.files.read.LoadVolumed` reads: the path of a volume, or the stack that was found of
        DICOM.
        contrast: what is known of it.
        label: what it is called in messages and records.
    """

    data: str | Stack
    contrast: Contrast
    label: str

    @classmethod
    def of_file(cls, path: str | Path) -> Member:
        """Of the file of a volume."""
        return cls(str(path), contrast_of_file(Path(path)), Path(path).name)

    @classmethod
    def of_series(cls, stack: Stack, several: list[Stack]) -> Member:
        """Of a stack of DICOM images, one of `several` of the patient."""
        described = str(stack.header.get("SeriesDescription", ""))
        name = f"series {name_of(stack, several)}" + (f" {described!r}" if described else "")
        return cls(stack, contrast_of_series(stack), name)

    def __fspath__(self) -> str:
        """The file of a volume, or the first image of a series: folders may hold several."""
        return str(self.data.slices[0].path) if isinstance(self.data, Stack) else self.data

    @property
    def folder(self) -> Path:
        """In which its files lie."""
        return Path(self.__fspath__()).parent

    @property
    def frame(self) -> str:
        """FrameOfReferenceUID of DICOM; "" where none is stated."""
        return str(self.data.header.get("FrameOfReferenceUID", "")) if isinstance(self.data, Stack) else ""

    @property
    def whose(self) -> str:
        """What its header, or its name, says of the patient and the day; "" where it says nothing."""
        if isinstance(self.data, Stack):
            return " ".join(str(self.data.header.get(k) or "") for k in ("PatientID", "PatientName")).strip()
        name = bids_name(self.data)
        return name.of_patient if name is not None else " ".join(own_ids(self.data)).lower()

    def is_called(self, name: str) -> bool:
        """Whether this is a name of it: its label, its file's name with or without suffix, a DICOM series' number."""
        if name in (self.label, Path(self.__fspath__()).name):
            return True
        return is_called(self.data, name) if isinstance(self.data, Stack) else name == case_name(self.data)


@carried
@dataclass(frozen=True, eq=False)
class Group:
    """Scans that become one case, at least one, by name.

    Attributes:
        members: in order.
        combine: by what they belong together: "auto", "folder", "all", "none".
        named: whether files and people may be named in records.
    """

    members: tuple[Member, ...]
    combine: str = "auto"
    named: bool = True

    def __fspath__(self) -> str:
        return self.members[0].__fspath__()

    def nameless(self) -> Group:
        """The same with members that are called by their number, as names may be the patient's, and BIDS suffixes."""
        names = [member.contrast.name for member in self.members]
        members = []
        for n, member in enumerate(self.members, 1):
            contrast = member.contrast
            if contrast.name not in (None, *WORDS):
                contrast = replace(contrast, name=f"that of stack {1 + names.index(contrast.name)}")
            members.append(replace(member, label=f"stack {n}", contrast=contrast))
        return replace(self, members=tuple(members), named=False)


def paths_of(data: str | Path | Stack | Group) -> list[str]:
    """The path of a measurement, or those of all members of a group."""
    return [os.fspath(part) for part in (data.members if isinstance(data, Group) else [data])]
