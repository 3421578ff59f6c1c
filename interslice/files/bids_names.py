"""What the name of a file says of the patient, by BIDS, or by the words that people use.

    sub-01_ses-2_acq-cor_run-1_T2w.nii.gz        entities key-value, joined by "_", and a suffix at the end

Source: Brain Imaging Data Structure 1.10, "File name structure". Of a BIDS name, `acq`, `run`, `dir`, `part` and
`chunk` tell scans of one patient, session and contrast apart; all other entities (`ses`, `ce`, `echo`, `inv`, ...) say
that it is another patient, another day or another contrast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from interslice.files.find import case_name

VARYING = ("acq", "run", "dir", "part", "chunk")
"""Entities by which the stacks of one patient and contrast differ."""
NO_SCAN = ("mask", "dseg", "probseg")
"""Suffixes of what was drawn on a scan."""
COMPLEX_PARTS = ("phase", "real", "imag")
"""Values of `part` that are no magnitude."""
BIDS = re.compile(r"sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+")
OWN_IDS = re.compile(
    r"(?:^|(?<=[\W_]))(p\d\d+|(?:pat|patient|sub|subj|subject|case|id|study|ses|session|visit|tp|timepoint)-?\d+)"
    r"(?=[\W_]|$)",
    re.IGNORECASE,
)
"""Words of other names that say whose, or of which day: p01, patient7, study2, visit-3. A scanner's p2 is none."""


@dataclass(frozen=True)
class BidsName:
    """A name by BIDS.

    Attributes:
        entities: key -> value, in the order of the name.
        suffix: of the contrast: "T2w", "FLAIR".
    """

    entities: Mapping[str, str]
    suffix: str

    @property
    def shared(self) -> str:
        """The name without what varies within a group, which names the group: "sub-01_ses-2_T2w"."""
        kept = [f"{key}-{value}" for key, value in self.entities.items() if key not in VARYING]
        return "_".join([*kept, self.suffix])

    @property
    def of_patient(self) -> str:
        """Patient and session: "sub-01_ses-2"."""
        return "_".join(f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities)

    def __str__(self) -> str:
        return "_".join([*(f"{key}-{value}" for key, value in self.entities.items()), self.suffix])


def bids_name(path: str | Path) -> BidsName | None:
    """What the name of a file says by BIDS; None of another name, or of one that states an entity twice."""
    name = case_name(path)
    if not BIDS.fullmatch(name):
        return None
    *parts, suffix = name.split("_")
    pairs = [part.split("-", 1) for part in parts]
    entities = dict(pairs)
    return BidsName(entities, suffix) if len(entities) == len(pairs) else None


def own_ids(path: str | Path) -> tuple[str, ...]:
    """Words of a name without BIDS that say whose it is, or of which day, in its order: ("p01", "study2")."""
    return tuple(OWN_IDS.findall(case_name(path)))


def bids_root(path: Path) -> Path:
    """The data set in which a file named by BIDS lies: without the folders of its subject, session and kind."""
    folder = path.parent
    if folder.name in ("anat", "ct", "dwi", "func", "fmap", "perf", "pet"):
        folder = folder.parent
    for start in ("ses-", "sub-"):
        if folder.name.startswith(start):
            folder = folder.parent
    return folder
