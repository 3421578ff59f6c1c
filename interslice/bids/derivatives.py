"""The derivatives data set that results go into: what it says of itself, and what it is refused for.

    dataset_description.json    Name, BIDSVersion, DatasetType, GeneratedBy, DatasetLinks, SourceDatasets
    README.md                   what is in it, for those who come upon it
    .bidsignore                 figures: pages for the browser, and what else is no volume

Source: Brain Imaging Data Structure 1.10, "Modality agnostic files" (derived data set and pipeline description).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from interslice.bids.dataset import DESCRIPTION, Dataset
from interslice.bids.options import NAME
from interslice.files.whole import written_whole
from interslice.files.write import write_json
from interslice.usage import UsageError

BIDS_VERSION = "1.10.0"
SOURCE = "raw"
"""What BIDS URIs of ours call the data set that was read."""
IGNORED = "figures\n"
README = """# Reconstructed volumes

Made by {name} {version} of the BIDS data set "{source}": volumes with thin slices, reconstructed from scans with
thick ones by a diffusion model. Research software, not for diagnosis: what lies between measured slices is filled in,
plausible and not measured.

| file | holds |
|---|---|
| `*_res-high_desc-{desc}_<contrast>.nii.gz` | the volume, where its scan lies, in the intensities of the scan |
| `*_desc-{desc}Std_*` | the standard deviation of the draws, where there was more than one |
| `*_desc-{desc}Filled_*`, `*_desc-{desc}Measured_*` | where asked for: what the prior filled in, what was measured |
| `*.json` | beside each: what it was made from (`Sources`); beside the volume the record of the run, `RunRecord` |
| `sub-*/[ses-*/]figures` | pages for the browser, and the poses of scans that were aligned |
"""


@dataclass(frozen=True)
class Derivatives:
    """A derivatives data set of a source.

    Attributes:
        root: its folder.
        source: the data set that was read.
        desc: label of `desc` of what this run writes.
        version: of this software.
    """

    root: Path
    source: Dataset
    desc: str
    version: str

    def check(self) -> None:
        """Raise UsageError where results of this run have no place: among the source's own files, or in another set."""
        root, source = (Path(os.path.realpath(p)) for p in (self.root, self.source.root))
        inside = root.relative_to(source).parts if root.is_relative_to(source) else None
        if inside is not None and inside[:1] != ("derivatives",):
            raise UsageError(
                f"output_dir {self.root} lies in the data set that is read, where it would be no BIDS: choose "
                f"{self.source.root / 'derivatives' / NAME}, or a folder outside"
            )
        if source.is_relative_to(root):
            raise UsageError(f"output_dir {self.root} holds the data set that is read: choose another folder")
        if (found := self._found()) is None:
            return
        makers = found.get("GeneratedBy")
        names = [m.get("Name") for m in makers if isinstance(m, dict)] if isinstance(makers, list) else []
        links = found.get("DatasetLinks")
        other = self.root / str(links.get(SOURCE)) if isinstance(links, dict) else self.root
        if (other / DESCRIPTION).is_file() and other.resolve() not in (root, source):
            raise UsageError(
                f"output_dir {self.root} holds results of {other}, another data set: choose another folder"
            )
        if found.get("DatasetType") != "derivative" or NAME not in names:
            raise UsageError(
                f"output_dir {self.root} is a data set of other origin ({found.get('Name', 'without a name')!s:.80}): "
                "choose another folder"
            )

    def begin(self) -> None:
        """Write what the data set says of itself; what it says already stays."""
        found = self._found() or {}
        makers = list(found.get("GeneratedBy", []))
        if {"Name": NAME, "Version": self.version} not in makers:
            makers.append({"Name": NAME, "Version": self.version})
        source = self.source.description
        described = {
            "Name": f"Reconstructed volumes of {source.get('Name', self.source.root.name)}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "DatasetLinks": {SOURCE: self._link()},
            "SourceDatasets": [self._origin()],
        }
        described = described | found | {"GeneratedBy": makers}
        described["DatasetLinks"] = found.get("DatasetLinks", {}) | {SOURCE: self._link()}
        if described != found:
            write_json(self.root / DESCRIPTION, described)
        name = str(source.get("Name", self.source.root.name))
        for file, text in (
            ("README.md", README.format(name=NAME, version=self.version, source=name, desc=self.desc)),
            (".bidsignore", IGNORED),
        ):
            if not (self.root / file).exists():
                with written_whole(self.root / file) as partial:
                    partial.write_text(text, encoding="utf-8")

    def uri(self, path: str | Path) -> str:
        """The BIDS URI of a file of the source."""
        return f"bids:{SOURCE}:{self.source.relative(path)}"

    def _link(self) -> str:
        """Where the source lies, seen from here: so it holds when both are moved together."""
        return Path(os.path.relpath(os.path.realpath(self.source.root), os.path.realpath(self.root))).as_posix()

    def _origin(self) -> dict[str, str]:
        """Of the source, for SourceDatasets."""
        doi = self.source.description.get("DatasetDOI")
        return {"DOI": doi} if isinstance(doi, str) and doi else {"URL": self._link()}

    def _found(self) -> dict | None:
        """What dataset_description.json of an earlier run holds; None where there is none."""
        path = self.root / DESCRIPTION
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} cannot be read ({error}): mend it, or choose another output_dir") from None
        return found if isinstance(found, dict) else {}
