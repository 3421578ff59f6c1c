"""What became of the scans of one patient that make a case: for the record of the case, run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monai.data import MetaTensor

from interslice.files.carried import carried

NAMING = ("file", "frame")
"""What is said of a stack that leads to its file, or to the patient's other scans."""


@carried
@dataclass(frozen=True)
class Combined:
    """Kept in the metadata of a measurement that several scans make, as "combined".

    Attributes:
        combine: by what they belong together (interslice.files.groups).
        stacks: of each, the reference first, what run.json says; "file" is a path.
        left_out: name -> why, of those that are not in the result.
    """

    combine: str
    stacks: tuple[Mapping, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def record(self, named: bool) -> dict:
        """For run.json; without what leads to files and scanners unless they are to be `named`."""
        stacks = [{k: v for k, v in stack.items() if named or k not in NAMING} for stack in self.stacks]
        return {"combine": self.combine, "stacks": stacks, "stacks_left_out": dict(self.left_out)}


def record_of_combined(measurement: MetaTensor, named: bool) -> dict:
    """What a measurement says of the scans that make it; nothing of one that is one scan."""
    combined = measurement.meta.get("combined")
    return {} if combined is None else combined.record(named)
