"""What lies beside the scans of a run and goes with them, by their names: masks, and guides.

    a file       goes with the one scan of the run
    a folder     holds for each scan a file of the same name, or <case>.nii.gz; that is the name, too, of DICOM, of
                 several scans that make one case, and of a scan that a list calls otherwise

With --deidentify cases are called anew: their companions keep the name that the case would have had.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from interslice.files.dicom_read import is_dicom_source
from interslice.files.member import Group
from interslice.files.paths import path_of
from interslice.usage import UsageError


@dataclass(frozen=True)
class Companions:
    """Files for the scans of a run.

    Attributes:
        key: of their paths in an item of the run.
        option: what they were named by.
        path: a folder or a file.
    """

    key: str
    option: str
    path: Path

    @classmethod
    def given(cls, region_dir: str | None = None, mask_dir: str | None = None, guide: str | None = None
              ) -> list[Companions]:  # fmt: skip
        """Those that are given; `region_dir` may be missing. UsageError where masks or a guide are not there."""
        options = {"region": ("region_dir", region_dir), "mask": ("mask_dir", mask_dir), "guide": ("guide", guide)}
        found = [cls(key, option, path_of(option, path)) for key, (option, path) in options.items() if path is not None]
        for one in found:
            if one.key != "region" and not one.path.exists():
                raise UsageError(
                    f"{one.option} {one.path} does not exist: name a folder with a file for each scan, or one file"
                )
        return found

    @property
    def is_one(self) -> bool:
        """Whether it is that of a single scan."""
        return self.path.is_file() or is_dicom_source(self.path)

    def check(self, scans: int) -> None:
        """Raise UsageError for one mask and several scans; a guide may be that of several contrasts of a patient."""
        if self.is_one and scans > 1 and self.key != "guide":
            raise UsageError(
                f"{self.option} {self.path} is one file, and there are {scans} scans: name a folder that holds a file "
                "for each, called as the scan"
            )

    def of(self, item: Mapping) -> str | None:
        """The path for an item of a run; None where there is none, which is said of masks."""
        if self.is_one:
            return str(self.path)
        names = names_of(item)
        found = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if found is None and self.key == "mask":
            print(f"{item['case']} has no mask: {self.path} holds no {' or '.join(names)}", file=sys.stderr, flush=True)
        return None if found is None else str(found)


def names_of(item: Mapping) -> list[str]:
    """What a companion of an item of a run is called, of which "named" is the name that its case would have had."""
    data, named = item["image"], item.get("named", item["case"])
    path = Path(os.fspath(data))
    several = isinstance(data, Group) and len(data.members) > 1
    own = [path.name] if path.is_file() and path.name.startswith(named) and not several else []
    return list(dict.fromkeys([*own, f"{named}.nii.gz"]))
