"""What is known of a scan's contrast: from its name, the file beside it, or its DICOM header.

Scans of one patient may be joined where nothing says that their contrasts differ:

    name          T1w, T2w, FLAIR, ... by the words of a BIDS suffix, a series description or a file's name
    echo time     one is not more than ECHO times the other, and ECHO_MS longer
    inversion     both have an inversion time, or neither; not asked of two that are called alike
    agent         both were taken with a contrast agent, or neither; a scan of a known contrast that does not state one
                  was taken without

What one of two does not state is not held against the other. Repetition times differ with the number of slices, and
are not asked. Sources: BIDS 1.10, "Anatomy imaging data" (names of contrasts); DICOM PS3.3, C.8.3 (MR Image).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

from interslice.files.bids_names import bids_name
from interslice.files.dicom_stack import Stack
from interslice.files.find import case_name
from interslice.files.sidecar import fields_of

ECHO, ECHO_MS = 1.5, 10.0
"""Times, and ms, by which the echo times of one contrast may differ."""
WORDS = {
    "STIR": r"stir|tirm",
    "FLAIR": r"flair|dark[\W_]?fluid",
    "T2starw": r"t2[\W_]?star(w)?|t2\*|swi|swan",
    "DWI": r"dwi|adc|trace|dti|diff(usion)?",
    "bold": r"bold|fmri",
    "angio": r"angio|tof|mra",
    "PDw": r"pd(w)?|proton",
    "T2w": r"t2(w|wi)?|haste|t2[\W_]?tse",
    "T1w": r"t1(w|wi)?|t1c|t1gd|t1ce|mp2?rage|bravo|spgr|fspgr|vibe",
    "CT": r"ct",
}  # fmt: skip
"""Name of a contrast -> words that say it, in the order in which they are looked for: T2 FLAIR is FLAIR."""
AGENT = r"gd|ce|post|km|t1c|t1gd|t1ce|gadolinium"
"""Words that say that a contrast agent was given."""


@dataclass(frozen=True)
class Contrast:
    """What is known of a contrast; None for what is not.

    Attributes:
        name: one of WORDS, or a BIDS suffix as it is.
        agent: whether an agent was given.
        echo: echo time in ms.
        inversion: inversion time in ms, 0 where there is none.
    """

    name: str | None = None
    agent: bool | None = None
    echo: float | None = None
    inversion: float | None = None

    @property
    def known(self) -> int:
        """How much is known."""
        return sum(getattr(self, field.name) is not None for field in fields(self))

    def differs(self, other: Contrast) -> str | None:
        """Why the two are not one contrast, in words; None where nothing says so."""
        if None not in (self.name, other.name) and self.name.lower() != other.name.lower():
            return f"{self.name}, not {other.name}"
        if None not in (self.agent, other.agent) and self.agent != other.agent:
            return f"{'with' if self.agent else 'without'} a contrast agent, unlike the other"
        if None not in (self.echo, other.echo):
            short, long = sorted((self.echo, other.echo))
            if long > ECHO * short and long - short > ECHO_MS:
                return f"echo time {self.echo:g} ms, not {other.echo:g} ms"
        inverted = [None if c.inversion is None else c.inversion > 0 for c in (self, other)]
        if None not in inverted and inverted[0] != inverted[1] and None in (self.name, other.name):
            return f"{'with' if self.inversion > 0 else 'without'} an inversion pulse, unlike the other"
        return None

    def __str__(self) -> str:
        told = [self.name or "contrast not stated"]
        told += ["with agent"] if self.agent else []
        told += [f"TE {self.echo:g} ms"] if self.echo is not None else []
        return ", ".join(told)


def named_contrast(text: str) -> str | None:
    """The contrast that a text names, a series description or the name of a file; None where it names none."""
    found = [name for name, words in WORDS.items() if says(text, words)]
    if found[:1] == ["FLAIR"] and "T1w" in found and "T2w" not in found:  # T1 FLAIR has the contrast of T1
        return "T1w"
    return found[0] if found else None


def says(text: str, words: str) -> bool:
    """Whether one of some words stands by itself in a text; "_" and digits of other words end one."""
    return re.search(rf"(?<![A-Za-z0-9])({words})(?![A-Za-z0-9])", text, re.IGNORECASE) is not None


def contrast_of_file(path: Path) -> Contrast:
    """Of a volume: what its sidecar says, and its name; of two words for the contrast, that of a BIDS suffix counts."""
    fields_beside, bids = fields_of(path), bids_name(path)
    description = " ".join(str(fields_beside.get(k, "")) for k in ("SeriesDescription", "ProtocolName"))
    if bids is not None:
        name, agent = bids.suffix, "ce" in bids.entities
    else:
        name = named_contrast(description) or named_contrast(case_name(path))
        agent = says(f"{description} {case_name(path)}", AGENT) or (None if name is None else False)
    if fields_beside.get("ContrastBolusAgent"):
        agent = True
    echo, inversion = (_milliseconds(fields_beside.get(k), 1000) for k in ("EchoTime", "InversionTime"))
    if echo is not None and inversion is None:
        inversion = 0.0  # a converter that states the one states the other
    return Contrast(name, agent, echo, inversion)


def contrast_of_series(stack: Stack) -> Contrast:
    """Of a series of DICOM images, by its header."""
    header = stack.header
    description = " ".join(str(header.get(k, "")) for k in ("SeriesDescription", "ProtocolName"))
    modality = str(header.get("Modality", ""))
    name = "CT" if modality == "CT" else named_contrast(description)
    agent = bool(header.get("ContrastBolusAgent")) or says(description, AGENT) or (None if name is None else False)
    echo = stack.slices[0].echo_time
    inversion = _milliseconds(header.get("InversionTime"), 1)
    if not math.isnan(echo) and inversion is None:
        inversion = 0.0
    return Contrast(name, agent, None if math.isnan(echo) else echo, inversion)


def _milliseconds(value: object, factor: float) -> float | None:
    """A time that is stated in seconds (factor 1000) or milliseconds (1); None for what is none."""
    try:
        time = float(value) * factor
    except (TypeError, ValueError):
        return None
    return time if math.isfinite(time) and time >= 0 else None
