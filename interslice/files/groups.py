"""Which scans are of one patient, and become one case.

    auto     files named by BIDS: the same subject, session and contrast (interslice.files.bids_names); DICOM: the same
             patient, study and contrast, by the headers; other files: the same folder, the same words such as "p01" or
             "study2" in their names, and contrasts that nothing tells apart (interslice.files.contrast)
    folder   each folder directly inside of the source is one patient, with all that is in it at any depth
    all      everything is one patient
    none     each scan is a case

By `auto` a case has one contrast, and a patient as many cases as contrasts. By `folder` and `all` a patient is one
case, and of which contrast is decided when all are read (interslice.physics.stacks.read).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from interslice.files.bids_names import COMPLEX_PARTS, NO_SCAN, bids_name, bids_root, own_ids
from interslice.files.contrast import Contrast
from interslice.files.deidentify import patient_of
from interslice.files.dicom_names import is_called
from interslice.files.dicom_search import Search, unusable
from interslice.files.dicom_slice import DISC_INDEX
from interslice.files.dicom_stack import Stack
from interslice.files.find import case_name
from interslice.files.listed import is_list, read_list, told_apart
from interslice.files.member import Group, Member

COMBINE = ("auto", "folder", "all", "none")
MADE = ("MPR", "CSA MPR", "CSAMPR", "CSAPARALLEL", "REFORMATTED", "PROJECTION IMAGE", "MIP", "SUBTRACTION", "ADC")
"""Words of ImageType for series that a workstation made of others: a second look at the same data adds nothing."""
COMPONENTS = ("P", "R", "I", "PHASE", "REAL", "IMAGINARY")
"""Third words of ImageType for parts of complex images."""


def no_scan(path: str | Path) -> str | None:
    """Why a file is no scan to combine, by its BIDS name; None of any other."""
    name = bids_name(path)
    if name is None:
        return None
    if name.suffix in NO_SCAN:
        return f"a {name.suffix} by its name, and no scan"
    part = name.entities.get("part")
    return f"the {part} of complex images by its name: only magnitudes are combined" if part in COMPLEX_PARTS else None


def roots_of(source: str | Path) -> list[Path]:
    """The folders and files that were asked for: the source of a run, or what its list names."""
    source = Path(source)
    if is_list(source):
        return read_list(source)
    return [source.parent] if source.name.upper() == DISC_INDEX else [source]


def usable_stacks(found: Search, series: int | str | Sequence | None = None) -> tuple[list[Stack], dict[str, str]]:
    """The stacks of DICOM folders that may be members, and path -> why of all else; that they are whole is not asked.

    Args:
        found: what there is.
        series: of those to take: numbers or UIDs (interslice.files.dicom_search.choose), a list or with commas between
            them; all by default.
    """
    several = series if isinstance(series, (list, tuple)) else str(series).split(",")
    wanted = None if series is None else [str(word).strip() for word in several]
    stacks, left_out = [], {}
    for stack in found.stacks:
        why = unusable(stack)
        if why is None and wanted is not None and not any(is_called(stack, word) for word in wanted):
            why = f"no series {series}"
        if why := why or not_acquired(stack):
            left_out[f"{stack.slices[0].path} ({stack})"] = why
        else:
            stacks.append(stack)
    for why, files in found.left_out.items():  # of a disc, hundreds
        others = len(files) - 1
        left_out[str(files[0])] = why + (f"; and {others} other file{'s' * (others > 1)}" if others else "")
    return stacks, left_out


def not_acquired(stack: Stack) -> str | None:
    """Why a series is no scan to combine, by its ImageType: one made of another, or no magnitude; None of a scan."""
    kinds = [str(kind).upper() for kind in stack.slices[0].image_type]
    if made := [kind for kind in kinds if kind in MADE]:
        return f"made of other images ({made[0]} by its ImageType), which are combined themselves"
    if len(kinds) > 2 and kinds[2] in COMPONENTS:
        return f"{kinds[2]} by its ImageType: only magnitudes are combined"
    return None


def grouped(members: Sequence[Member], combine: str, roots: Sequence[Path]) -> list[dict]:
    """[{"image": Group, "case": name}, ...] of the scans that were found.

    Args:
        members: in order.
        combine: one of COMBINE.
        roots: the source of a run, or what its list names: files and folders.
    """
    gathered: dict[Hashable, list[Member]] = {}
    for member in members:
        gathered.setdefault(_key(member, combine, roots), []).append(member)
    named: list[tuple[Group, str]] = []
    for together in gathered.values():
        parts = by_contrast(together) if combine == "auto" else [together]
        named += zip((Group(called_apart(part), combine) for part in parts), _names(parts, combine, roots), strict=True)
    cases = told_apart({os.fspath(group): case for group, case in named})
    return with_own_names([{"image": group, "case": cases[os.fspath(group)]} for group, _ in named])


def with_own_names(items: list[dict]) -> list[dict]:
    """The same, with dates of studies, and numbers, in the names of cases that share one: of a folder full of DICOM."""
    for told in (_study_date, lambda _, n: str(n)):
        taken, met = Counter(item["case"] for item in items), Counter()
        for item in items:
            if taken[case := item["case"]] > 1:
                met[case] += 1
                item["case"] = "_".join(filter(None, (case, told(item["image"].members[0], met[case]))))
    return items


def _study_date(member: Member, _: int) -> str:
    date = str(member.data.header.get("StudyDate", "")) if isinstance(member.data, Stack) else ""
    return date if date.isdecimal() else ""


def called_apart(members: Sequence[Member]) -> tuple[Member, ...]:
    """The same, with the folder, and if need be a number, in the names of those that share one."""
    for name in (lambda m, n: f"{m.folder.name}/{m.label}", lambda m, n: f"{m.label} ({n})"):
        taken = Counter(member.label for member in members)
        members = [replace(m, label=name(m, n)) if taken[m.label] > 1 else m for n, m in enumerate(members, 1)]
    return tuple(members)


def by_contrast(members: Iterable[Member]) -> list[list[Member]]:
    """Scans of one patient, those together that nothing tells apart; one that fits several kinds is of its own.

    What is known best founds a kind, so that the order of the scans does not matter.
    """
    kinds: list[list[Member]] = []
    several: list[Member] = []
    members = list(members)
    for member in sorted(members, key=lambda m: (-m.contrast.known, m.label)):
        fitting = [kind for kind in kinds if not any(member.contrast.differs(one.contrast) for one in kind)]
        if len(fitting) > 1 and member.contrast.name is None:
            several.append(member)
        elif fitting:
            fitting[0].append(member)
        else:
            kinds.append([member])
    kinds += [several] if several else []
    place = {id(member): n for n, member in enumerate(members)}
    ordered = [sorted(kind, key=lambda m: place[id(m)]) for kind in kinds]
    return sorted(ordered, key=lambda kind: place[id(kind[0])])


def _key(member: Member, combine: str, roots: Sequence[Path]) -> Hashable:
    """What scans of one patient have in common."""
    if combine == "none":
        return id(member)
    if combine == "all":
        return "all"
    if combine == "folder":
        return _patient_folder(member, roots)
    if isinstance(member.data, Stack):
        header = member.data.header
        return "DICOM", patient_of(header), str(header.get("StudyInstanceUID", ""))
    if (name := bids_name(member.data)) is not None:
        return "BIDS", bids_root(Path(member.data)), name.shared
    return "files", member.folder, tuple(word.lower() for word in own_ids(member.data))


def _patient_folder(member: Member, roots: Sequence[Path]) -> Path:
    """The folder directly inside of a root in which a scan lies, or the root itself."""
    for root in roots:
        if root == member.folder or root in member.folder.parents:
            inside = member.folder.relative_to(root).parts
            return root / inside[0] if inside else root
    return member.folder


def _names(parts: Sequence[Sequence[Member]], combine: str, roots: Sequence[Path]) -> list[str]:
    """Names of the cases of one patient, which differ."""
    base = _base(parts[0] if len(parts) == 1 else [m for part in parts for m in part], combine, roots)
    bids = [isinstance(part[0].data, str) and bids_name(part[0].data) for part in parts]
    if combine != "auto" or (len(parts) == 1 and (bids[0] or _is_file(roots))):
        return [base] * len(parts)
    known = [max((m.contrast for m in part), key=lambda c: c.known) for part in parts]
    words = [_words(contrast, bool(name), 0) for contrast, name in zip(known, bids)]
    for more in (1, 2):
        if len(set(words)) < len(words):
            words = [_words(contrast, bool(name), more) for contrast, name in zip(known, bids)]
    if len(set(words)) < len(words):
        words = [f"{word}{n}" for n, word in enumerate(words, 1)]
    return ["_".join(filter(None, (base, word))) for word in words]


def _words(contrast: Contrast, named: bool, more: int) -> str:
    """What tells a contrast from others, in so many words; `named`: its name is in the name already."""
    told = [] if named or contrast.name is None else [contrast.name]
    told += [f"TE{contrast.echo:g}"] if more > 0 and contrast.echo is not None else []
    told += ["agent"] if more > 1 and contrast.agent else []
    return "_".join(told)


def _base(members: Sequence[Member], combine: str, roots: Sequence[Path]) -> str:
    """What the cases of one patient are called, without the contrast."""
    first = members[0]
    if combine == "none" or _is_file(roots):
        return _own_name(first)
    if combine == "auto" and isinstance(first.data, str):
        name, ids = bids_name(first.data), own_ids(first.data)
        if name is not None or ids:
            return name.shared if name is not None else "_".join(ids)
    if combine == "folder":
        return case_name(_patient_folder(first, roots))
    return case_name(os.path.commonpath([os.path.abspath(member.folder) for member in members])) or "patient"


def _own_name(member: Member) -> str:
    """Of one scan by itself."""
    if isinstance(member.data, str):
        return case_name(member.data)
    number = member.data.header.get("SeriesNumber")
    return case_name(member.folder) + ("" if number is None else f"_{number}")


def _is_file(roots: Sequence[Path]) -> bool:
    """Whether one file was asked for."""
    return len(roots) == 1 and roots[0].is_file()
