"""Cases that their inputs do not name: the name of a file or folder may be the patient's.

A case is called by the fingerprint of its data, so that the same data have the same name in every run. Nothing can be
read from it, but who has the data can tell that they are these.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from interslice.files.dicom_stack import Stack
from interslice.files.fingerprint import fingerprint
from interslice.files.member import Group


def nameless_case(data: Path | str | Stack | Group) -> str:
    """`case_` and the fingerprint of a file, a stack or a group.

    Data that cannot be read have none, and are refused later.
    """
    return f"case_{fingerprint(data) or 'unreadable'}"


def nameless(items: Sequence[Mapping]) -> list[dict]:
    """Items of a run under names without meaning, which is said on stderr; "named" is what each was called.

    Copies of one file are told apart by their number, in order.
    """
    renamed, met = [], Counter()
    for item in items:
        case = nameless_case(item["image"])
        met[case] += 1
        case += f"_{met[case]}" if met[case] > 1 else ""
        print(f"{os.fspath(item['image'])} is called {case}", file=sys.stderr, flush=True)
        renamed.append({**item, "case": case, "named": item["case"]})
        if isinstance(group := item["image"], Group):
            renamed[-1]["image"] = group.nameless()
            for member, called in zip(group.members, renamed[-1]["image"].members, strict=True):
                print(f"  {member.label} is called {called.label}", file=sys.stderr, flush=True)
    return renamed


def without_paths(settings: Mapping) -> dict:
    """Settings with the fingerprint of a file that is there in the place of its path; of a folder that it is one."""
    return {k: without_path(value) for k, value in settings.items()}


def without_path(value: object) -> object:
    """A setting, and in the place of a path that is there what does not name it."""
    if not isinstance(value, (str, os.PathLike)):
        return value
    if os.path.isfile(value):
        return fingerprint(value) or "a file"
    return "a folder" if os.path.isabs(value) and os.path.isdir(value) else value
