"""Finds the stacks of slices in folders of DICOM files, and chooses the one to reconstruct.

Every file of a folder is accounted for: it belongs to a stack, or is left out with a reason. A series whose slices lie
in several folders, as on discs that hold so many files per folder, is put together.
"""

from __future__ import annotations

import filecmp
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from interslice.files.dicom_check import TOLERANCE, check_stack
from interslice.files.dicom_names import in_words, is_called, name_of
from interslice.files.dicom_slice import DISC_INDEX, Slice, is_dicom, slices_of
from interslice.files.dicom_stack import Stack, read_pixels
from interslice.files.dicom_time import time_stacks
from interslice.files.entries import NO_FILE, Kind, kind_of
from interslice.files.find import DICOM_SUFFIXES
from interslice.files.find import SUFFIXES as VOLUMES

MIN_SLICES = 3
MOST_NAMED = 3
COPY = "a copy of another"


@dataclass(eq=False)
class Search:
    """What the DICOM files directly inside of some folders hold.

    Attributes:
        sources: the folders, or one file.
        stacks: of slices.
        left_out: why -> files that are in no stack.
    """

    sources: list[Path]
    stacks: list[Stack] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def usable(self) -> list[Stack]:
        """Those that may be scans."""
        return [s for s in self.stacks if unusable(s) is None]

    def leave_out(self, path: Path, why: str) -> None:
        self.left_out.setdefault(why, []).append(path)

    def joined(self, other: Search) -> Search:
        """Both, with the parts of a stack put together."""
        stacks = list(self.stacks)
        for part in other.stacks:
            whole = next((k for k, s in enumerate(stacks) if complete_each_other(s, part)), None)
            if whole is None:
                stacks.append(part)
            else:
                copies = copied(part, stacks[whole])
                stacks[whole] = stacks[whole].joined([s for s in part.slices if s not in copies], part.header)
                for path in dict.fromkeys(s.path for s in copies):
                    other.leave_out(path, COPY)
        both = Search([*self.sources, *other.sources], stacks)
        for left_out in (self.left_out, other.left_out):
            for why, files in left_out.items():
                both.left_out.setdefault(why, []).extend(files)
        return both

    def __str__(self) -> str:
        return ", ".join(map(str, self.sources))


def search(source: str | Path) -> Search:
    """Find the stacks of MR and CT slices in the files directly inside of a folder, or in one file."""
    source = Path(source)
    files = [source] if os.path.isfile(source) else sorted(p for p in source.iterdir() if not p.name.startswith("."))
    result, groups, seen = Search([source]), [], {}
    for path in (p for p in files if not os.path.isdir(p)):
        try:
            found = dicom_slices(path)
        except (ValueError, OSError) as error:
            result.leave_out(path, getattr(error, "strerror", None) or str(error))
            continue
        for one in found:
            identity = one[0].instance and (one[0].instance, one[0].frame)
            if identity in seen and alike(seen[identity], one[0]):
                result.leave_out(path, COPY)
                break
            if identity:
                seen[identity] = one[0]
            group = next((g for g in groups if one[0].belongs_with(g[0][0])), None)
            if group is None:
                groups.append(group := [])
            group.append(one)
    result.stacks = [Stack.of(source, group) for group in groups]
    return result


def dicom_slices(path: Path) -> list[tuple]:
    """What `slices_of` gives of a file, nothing of a disc's index; ValueError, in a few words, where it holds none."""
    if path.name.upper() == DISC_INDEX:
        return []
    if (kind := kind_of(path)) is not Kind.FILE:
        raise ValueError("a link to nothing" if kind is Kind.NOTHING else NO_FILE)
    if is_dicom(path):
        return slices_of(path)
    if path.name.lower().endswith(DICOM_SUFFIXES):
        raise ValueError(
            "no DICOM, damaged perhaps" if path.stat().st_size else "empty, a copy that was cut off perhaps"
        )
    if path.name.lower().endswith(VOLUMES):
        raise ValueError("of another format beside a DICOM series; to reconstruct it, name the file itself")
    raise ValueError("no DICOM")


def alike(one: Slice, other: Slice) -> bool:
    """Whether two files that claim to be one image are; not if the pixels of one cannot be decoded."""
    if filecmp.cmp(one.path, other.path, shallow=False):
        return True
    if not np.array_equal(one.position, other.position) or one.rescale != other.rescale:
        return False
    try:
        return np.array_equal(read_pixels(one.path), read_pixels(other.path))
    except ValueError:
        return False


def complete_each_other(one: Stack, other: Stack) -> bool:
    """Whether two stacks are parts of one: of one series and kind, and with no place in common but by copies.

    Two whole scans that reach into each other are scans of their own, whatever their series.
    """
    if not one.slices[0].series or not one.slices[0].belongs_with(other.slices[0]):
        return False
    copies = copied(other, one)
    rest = [s for s in other.slices if s not in copies]
    if not rest:
        return False
    normal = one.slices[0].normal
    here, there = one.places, np.array([s.position @ normal for s in rest])
    apart = np.median(np.diff(np.sort(np.concatenate([here, there]))))
    if not np.abs(here[:, None] - there).min() > TOLERANCE * apart:  # nor of places that are not known
        return False
    overlap = here.min() < there.max() and there.min() < here.max()
    return not (overlap and is_whole(one) and is_whole(other))


def copied(part: Stack, other: Stack) -> list[Slice]:
    """The slices of a stack that are copies of slices of another."""
    if part.slices[0].series != other.slices[0].series:
        return []
    known = {(s.instance, s.frame): s for s in other.slices if s.instance}
    return [s for s in part.slices if (twin := known.get((s.instance, s.frame))) is not None and alike(twin, s)]


def is_whole(stack: Stack) -> bool:
    """Whether a stack is a scan by itself."""
    if len(stack.slices) < MIN_SLICES:
        return False
    try:
        check_stack(stack)
    except ValueError:
        return False
    return True


def linked(searches: Iterable[Search]) -> list[Search]:
    """Searches of several folders, with those put together that hold parts of one stack.

    A stack that is but a part of another, copied, is left out; copies of whole scans are scans of their own.
    """
    result: list[Search] = []
    for one in searches:
        parts = []
        for stack in one.stacks:
            part = next((s for s in result if any(complete_each_other(a, stack) for a in s.stacks)), None)
            if part is not None and part not in parts:
                parts.append(part)
        for part in parts:
            result.remove(part)
            one = part.joined(one)
        result.append(one)
    stacks = [stack for found in result for stack in found.stacks]
    for found in result:
        for stack in list(found.stacks):
            if any(len(copied(stack, o)) == len(stack.slices) < len(o.slices) for o in stacks if o is not stack):
                found.stacks.remove(stack)
                for path in dict.fromkeys(s.path for s in stack.slices):
                    found.leave_out(path, COPY)
    return result


def choose(found: Search, series: int | str | None = None, timed: bool = False) -> Stack:
    """The one stack that can be reconstructed; says on stderr what was left out.

    Args:
        found: what there is.
        series: of the one to take where there are several: SeriesNumber, SeriesInstanceUID, or SOPInstanceUID of one of
            its images; and after slashes what else tells it from others (interslice.files.dicom_names): "5/TE90".
        timed: it may hold several volumes (interslice.files.dicom_time).

    Raises:
        ValueError: there is none, there are several, or it is no whole scan (interslice.files.dicom_check).
    """
    named = [s for s in found.usable if series is None or is_called(s, str(series))]
    if not named:
        wanted = "" if series is None else f" number or UID {series}"
        raise NoStackError(
            f"{found}: no series{wanted} of at least {MIN_SLICES} parallel MR or CT slices"
            + (listed(found.stacks, "; found") if found.stacks else "")
            + files_listed(found.left_out)
        )
    if len(named) > 1:
        raise ValueError(
            f"{found}: holds {len(named)} stacks of slices; name one by --series, or keep one:"
            + "".join(f"\n  --series {name_of(s, named)}: {s}, {in_words(s)}" for s in named)
        )
    (stack,) = named
    others = [s for s in found.stacks if s is not stack]
    if others or found.left_out:
        text = f"{found}: reading {stack}; left out:" + listed(others, "") + files_listed(found.left_out)
        print(text, file=sys.stderr, flush=True)
    for part in time_stacks(stack) if timed else (stack,):
        check_stack(part)
    stated = stack.header.get("ImagesInAcquisition")
    if stated and stack.slices[0].frame is None and int(stated) > len(stack.slices) and len(found.stacks) == 1:
        text = f"{found}: {stack}, but its header speaks of {stated}: slices at the ends may be missing"
        print(text, file=sys.stderr, flush=True)
    return stack


class NoStackError(ValueError):
    """A folder holds nothing of what was asked for."""


def unusable(stack: Stack) -> str | None:
    """Why a stack is left out; None of one that is a scan."""
    kinds = stack.slices[0].image_type
    if "LOCALIZER" in kinds:
        return "a localiser"
    if "MOSAIC" in kinds:
        return "a mosaic, which packs the slices of a volume in one image: convert it first, for example by dcm2niix"
    return None if len(stack.slices) >= MIN_SLICES else f"fewer than {MIN_SLICES} images"


def listed(stacks: Sequence[Stack], before: str) -> str:
    """A line for each stack, and why it is none that could be read."""
    why = [unusable(s) for s in stacks]
    return before + "".join(
        f"\n  {s}, UID {s.slices[0].series or '?'}{f': {w}' if w else ''}" for s, w in zip(stacks, why)
    )


def files_listed(left_out: dict[str, list[Path]]) -> str:
    """A line for each reason."""
    lines = []
    for why, files in left_out.items():
        some = ", ".join(p.name for p in files[:MOST_NAMED])
        lines.append(
            f"\n  {len(files)} file{'s' * (len(files) > 1)}: {why} ({some}{', ...' * (len(files) > MOST_NAMED)})"
        )
    return "".join(lines)
