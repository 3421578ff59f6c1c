"""From a volume of the scene, or files, to new volumes of the scene: one reconstruction, start to end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from . import scene
from .installation import Found
from .job import MAPS, Job, Progress, Settings, command, environment, results

FARTHEST = 1.0
"""Voxels of the input that the boxes of input and result may differ by: an odd ratio leaves less."""

MOMENT = 3.0
"""Seconds that are waited for a cancelled process, which may still write, before its folder is removed."""


class Reconstruction:
    """One run. It holds the files that it needs in a folder of Slicer's temporary ones until `close`.

    Args:
        slicer: Slicer's module.
        found: the Python that runs it.
        settings: what is set.
        output_dir: where results are kept; empty: in the scene alone.
        base: environment of that Python.
        node: the input, a volume of the scene; or
        path: the input, a file or folder.

    Raises:
        RuntimeError: there is no input, or it cannot be written for the process.
    """

    def __init__(self, slicer, found: Found, settings: Settings, *, output_dir: str = "", base: dict | None = None,
                 node=None, path: str = "") -> None:  # fmt: skip
        if (node is None) == (not path):
            raise RuntimeError("choose what to reconstruct: a volume, or a file or folder")
        if path and not os.path.exists(path):
            raise RuntimeError(f"{path} does not exist")
        self.slicer, self.node, self.kept = slicer, node, bool(output_dir)
        self.folder = Path(tempfile.mkdtemp(prefix="interslice-", dir=slicer.app.temporaryPath))
        try:
            source = path or str(scene.export(slicer, node, self.folder))
            self.output_dir = Path(output_dir) if output_dir else self.folder / "results"
            self.before = {r.volume: r.volume.stat().st_mtime_ns for r in results(str(self.output_dir))}
            words = command(found.python, found.root, source, str(self.output_dir), settings)
            self.job = Job(words, environment(found.root, dict(os.environ) if base is None else base))
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def progress(self) -> Progress | None:
        """How far it is; None until it has begun to sample."""
        return self.job.progress

    def ended(self) -> bool:
        """Whether the process has ended, however it did."""
        return self.job.poll() is not None

    def cancel(self) -> None:
        """End it; what was finished before stays."""
        self.job.cancel()

    def failure(self) -> str:
        """Why there is nothing to load, in words; empty if it went well or was cancelled."""
        if self.job.poll() == 0 or self.job.cancelled:
            return ""
        return self.job.words() or f"the process ended with status {self.job.poll()}"

    def load(self) -> tuple[list, list[str]]:
        """Bring the results of this run into the scene: (nodes of the results, what to look at).

        Each result has the spread and what else was made beside it, with its name in front.
        """
        nodes, warnings = [], []
        new = [r for r in results(str(self.output_dir)) if r.volume.stat().st_mtime_ns != self.before.get(r.volume)]
        for result in new:
            name = self.node.GetName() if self.node is not None else result.case
            volume = scene.load(self.slicer, result.volume, f"{name} reconstructed", self.node, keep_file=self.kept)
            for kind, file in result.maps.items():
                scene.load(self.slicer, file, f"{name} {MAPS[kind]}", self.node, keep_file=self.kept)
            if self.node is not None:
                scene.take_window(self.node, volume)
                if (distance := scene.apart(self.slicer, self.node, volume)) > FARTHEST:
                    warnings.append(f"{volume.GetName()} lies {distance:.1f} voxels of the input away from it")
            nodes.append(volume)
        return nodes, warnings

    def close(self) -> None:
        """Remove the temporary files, once the process has ended; one that was cancelled has a moment for that."""
        if self.job.cancelled:
            self.job.wait(MOMENT)
        shutil.rmtree(self.folder, ignore_errors=True)
