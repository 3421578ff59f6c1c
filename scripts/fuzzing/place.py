"""Where one input after the other is run: a folder with the bundle, the inputs and the results, and what it holds then.

in/good*    a case that is well, whose results must be those that it has alone, bit for bit
in/bad*     the case that is damaged
out/        results of an earlier run of both, which stay or are replaced as one
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.fuzzing.damage.weights import MARK
from scripts.fuzzing.judge import Found

LINKED = ("configs", "interslice", "models", "sample_data")
COMPARED = (".nii.gz", "metrics.json")
"""Ends of the names of files that are the same in each run; others hold times and random identities."""


class Place:
    """A folder `<folder>/run/here` that runs start in, as in the root of the bundle.

    Args:
        folder: made, and emptied.
        root: of the bundle.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.here = folder / "run" / "here"
        self.here.mkdir(parents=True)
        for name in LINKED:
            (self.here / name).symlink_to(root / name, target_is_directory=True)
        self.inputs, self.results = self.here / "in", self.here / "out"

    def clear(self) -> None:
        """Leave the links alone, here and in the folder above, where an option may have put results."""
        for path in (*self.here.iterdir(), *self.here.parent.iterdir()):
            if path == self.here or path.name in LINKED:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def fill(self, inputs: Iterable[Path], old: Path | None = None, case: str | None = None) -> None:
        """Copy inputs and results of an earlier run, whose case `bad` shall come from the input of this name."""
        self.clear()
        self.inputs.mkdir()
        for path in inputs:
            copy(path, self.inputs / path.name)
        if old is None:
            return
        copy(old, self.results)
        if case is not None:
            record = self.results / "bad" / "run.json"
            content = json.loads(record.read_text(encoding="utf-8"))
            content["source"] = f"in/{case}"
            record.write_text(json.dumps(content), encoding="utf-8")

    def state(self) -> dict[str, bytes]:
        """Contents of the result files by their paths."""
        return contents(self.results)

    def examine(self, before: dict[str, bytes], reference: dict[str, bytes] | None, status: int | None) -> Found:
        """What a run has left.

        Args:
            before: the state before the run.
            reference: files of the good case alone; None if none need be there.
            status: of the run's exit.
        """
        after, lost, mixed = self.state(), [], []
        if reference is not None:
            good = {name: content for name, content in after.items() if name.startswith("good/")}
            lost += [f"{name} is missing" for name in reference if name not in good]
            lost += [
                f"{name} differs" for name, c in reference.items() if name.endswith(COMPARED) and good.get(name, c) != c
            ]
            mixed += [f"{name} is of an older run" for name in good if name not in reference]
        judged = {n for n in {*before, *after} if reference is None or not n.startswith("good/")}
        new = {n for n in judged if n in after and before.get(n) != after[n]}
        if status != 0:
            lost += [f"{n} is gone or changed" for n in sorted(judged) if n in before and before[n] != after.get(n)]
        elif new:
            mixed += [f"{n} is of an older run" for n in sorted(judged - new) if n in after and n.split("/")[0] in
                      {other.split("/")[0] for other in new}]  # fmt: skip
        everywhere = [p for p in self.here.parent.rglob("*") if not any(n in p.parts for n in LINKED)]
        lost += [f"{p.name} is left" for p in everywhere if p.name.startswith(".") and "in" not in p.parts]
        made = [
            p
            for p in everywhere
            if p.name.endswith("_recon.nii.gz") and p.relative_to(self.here.parent).parts[:2] != ("here", "out")
        ]
        volumes = [self.results / n for n in new if n.endswith("_recon.nii.gz")] + made
        written = bool(volumes) and all(is_finite(p) for p in volumes)
        return Found(tuple(lost), tuple(mixed), written, any(p.name == MARK for p in everywhere))


def contents(folder: Path) -> dict[str, bytes]:
    """Files by their paths inside of a folder; of compressed ones what they hold."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): unpacked(p) for p in files}


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error):
        return content


def is_finite(path: Path) -> bool:
    """Whether a volume can be read, and holds numbers alone."""
    try:
        return bool(np.isfinite(nib.load(path).get_fdata()).all())
    except Exception:  # noqa: BLE001 - whatever it is, it is no result
        return False


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)
