"""What stacks of slices are called, so that one of several can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from interslice.files.dicom_stack import Stack

PLANES = ("sagittal", "coronal", "axial")
"""By the axis that is nearest to the normal."""
MOST_WORDS = 2
"""Of a name, besides the series."""


def traits(stack: Stack) -> list[str]:
    """Words that may tell a stack from others: "TE90", "M", "5mm", "256x192" (columns x rows), "axial"."""
    s = stack.slices[0]
    plane = PLANES[int(np.abs(s.normal).argmax())]
    echo = [] if np.isnan(s.echo_time) else [f"TE{s.echo_time:g}"]
    thick = [f"{s.thickness:g}mm"] if s.thickness else []
    return [*echo, *s.image_type, *thick, f"{s.size[1]}x{s.size[0]}", plane]


def is_called(stack: Stack, name: str) -> bool:
    """Whether this is a name of a stack; see `choose`."""
    first, *more = name.split("/")
    own = {word.lower() for word in traits(stack)}
    ids = {
        str(stack.header.get("SeriesNumber")),
        *(s.series for s in stack.slices),
        *(s.instance for s in stack.slices),
    }
    return first in ids - {""} and all(word.lower() in own for word in more)


def name_of(stack: Stack, others: Sequence[Stack]) -> str:
    """The shortest name that this stack alone has."""
    s = stack.slices[0]
    starts = [str(n) for n in (stack.header.get("SeriesNumber"),) if n is not None] + ([s.series] if s.series else [])
    for count in range(MOST_WORDS + 1):
        for start in starts:
            for words in combinations(traits(stack), count):
                name = "/".join([start, *words])
                if [other for other in others if is_called(other, name)] == [stack]:
                    return name
    return s.instance or str(s.path)


def in_words(stack: Stack) -> str:
    """What may tell a stack from others of its series, for those who choose."""
    s = stack.slices[0]
    echo = "" if np.isnan(s.echo_time) else f"TE {s.echo_time:g} ms, "
    return (
        f"{echo}{s.size[1]} x {s.size[0]}, {f'{s.thickness:g} mm thick, ' if s.thickness else ''}UID {s.series or '?'}"
    )
