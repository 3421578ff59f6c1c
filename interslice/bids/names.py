"""Names in a BIDS derivatives data set: those of the scans that a result was made from, with `res` and `desc`.

    sub-01/ses-2/anat/sub-01_ses-2_acq-cor_run-1_T2w.nii.gz
    sub-01/ses-2/anat/sub-01_ses-2_acq-cor_run-1_res-high_desc-interslice_T2w.nii.gz

Of several scans that become one volume, the entities on which they agree. There is no `space`: a result lies where its
scan lies, on finer slices. Source: Brain Imaging Data Structure 1.10, "Common data types and metadata" of derivatives,
and its appendix on entities, of which ORDER is the order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from interslice.files.bids_names import bids_name
from interslice.usage import UsageError

ORDER = (
    "sub", "tpl", "ses", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec",
    "dir", "run", "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk",
    "atlas", "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip
RESOLUTION = "high"
"""Label of the grid of results."""
MAPS = {"recon": "", "std": "Std", "filled": "Filled", "measured": "Measured"}
"""Kinds of the volumes of a case -> what is added to `desc`."""


@dataclass(frozen=True)
class Derivative:
    """What the results of a case are called.

    Attributes:
        folder: in the data set: sub-01/ses-2/anat.
        entities: key -> label, in the order of BIDS, `desc` last.
        suffix: T2w.
    """

    folder: PurePosixPath
    entities: Mapping[str, str]
    suffix: str

    def named(self, kind: str = "recon") -> str:
        """The name of a kind of volume, without what comes after the dot; kinds are those of MAPS, and "mask"."""
        desc = self.entities["desc"]
        # A mask has its own suffix: what contrast it belongs to goes into the label, or masks of two would collide.
        desc, suffix = (desc + self.suffix, "mask") if kind == "mask" else (desc + MAPS[kind], self.suffix)
        entities = {**self.entities, "desc": desc}
        return "_".join([*(f"{key}-{label}" for key, label in entities.items()), suffix])

    def path(self, kind: str = "recon", end: str = ".nii.gz") -> PurePosixPath:
        """Of a file, in the data set."""
        return self.folder / f"{self.named(kind)}{end}"

    @property
    def figures(self) -> PurePosixPath:
        """The folder for what is no data: pages and pictures."""
        return self.folder.parent / "figures"


def derivative_of(paths: Sequence[str | Path], desc: str) -> Derivative:
    """Of one scan, or of several of a subject and session.

    Raises:
        ValueError: their names are none of BIDS, or of several subjects or contrasts.
    """
    names = [bids_name(path) for path in paths]
    if not names or None in names or len({(n.of_patient, n.suffix) for n in names}) > 1:
        raise ValueError(f"{', '.join(Path(p).name for p in paths)}: not of one subject, session and contrast by BIDS")
    first = names[0]
    shared = {k: v for k, v in first.entities.items() if all(n.entities.get(k) == v for n in names)}
    shared |= {"res": RESOLUTION, "desc": desc}
    known = {key: shared[key] for key in sorted(shared, key=_place)}
    folder = PurePosixPath(*first.of_patient.split("_"), "anat")
    return Derivative(folder, known, first.suffix)


def _place(key: str) -> tuple[int, str]:
    return (ORDER.index(key), key) if key in ORDER else (ORDER.index("res"), key)


def check_desc(desc: str) -> str:
    """A label of `desc`. UsageError for what is no word of letters and digits."""
    if not re.fullmatch("[A-Za-z0-9]+", desc):
        raise UsageError(f"desc must be a word of letters and digits, got {desc!r}")
    return desc
