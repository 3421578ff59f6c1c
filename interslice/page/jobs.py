"""Runs that the page starts: `interslice run`, each a process of its own, one at a time."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from interslice.files.machine import GIGA
from interslice.files.scan import Refusal
from interslice.home import PACKAGE, is_installed
from interslice.page.progress import Heard
from interslice.page.uploads import check_sizes, pieces, source_of, unpack

TASKS = ("thick", "ct", "kspace", "stacks")
PRESETS = ("fast", "best", "sharp")
PATIENCE = 10.0
"""Seconds that a run has to end by itself when it is cancelled."""
REPORT = "report.html"
PROGRAM = (sys.executable, "-P", "-m", "interslice")
"""-P: Python imports nothing from the folder that it is started in."""


class Busy(Refusal):
    """One run at a time."""


class Run:
    """One upload and its reconstruction.

    Attributes:
        state: "uploading", "running", "finished", "failed" or "cancelled".
        names: of the files, as they are kept.
    """

    def __init__(self, number: int, folder: Path, results: Path, task: str, preset: str,
                 names: Sequence[str] = (), sizes: Sequence[int] = (), most: float = GIGA) -> None:  # fmt: skip
        self.number, self.folder, self.results, self.task, self.preset = number, folder, results, task, preset
        self.files = folder / "scan"  # which names the case of files that have no folder of their own
        self.most = most
        self.names, self.sizes = check_sizes(names, sizes, most, folder.parent), [*sizes]
        self.state, self.command = "uploading", ""
        self.heard = Heard({f"{self.files}{os.sep}": "", str(self.files): "the files", f"{folder}{os.sep}": ""})
        self._arrived: set[int] = set()
        self._process: subprocess.Popen | None = None
        self._cancelled = False
        self.files.mkdir(parents=True)

    def receive(self, index: int, stream, size: int) -> None:
        """Take a file of the upload from a stream.

        Raises:
            Refusal: it is none that was announced, or of another size.
        """
        if self.state != "uploading" or not 0 <= index < len(self.names) or size != self.sizes[index]:
            raise Refusal("this file was not announced, or has changed: choose the files again")
        path = self.files / self.names[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in pieces(stream, size):
                file.write(piece)
        self._arrived.add(index)

    def start(self, options: Sequence[str]) -> None:
        """Begin to reconstruct what was uploaded; without a file, the scan that comes with the bundle.

        Args:
            options: of `interslice run`, before those of the page.

        Raises:
            Refusal: files are missing, or cannot be unpacked.
        """
        if self.state != "uploading" or len(self._arrived) < len(self.names):
            raise Refusal(f"{len(self._arrived)} of {len(self.names)} files have arrived: choose them again")
        source = []
        if self.names:
            for path in [self.files / name for name in self.names]:
                if path.name.lower().endswith(".zip"):
                    unpack(path, self.most)
            source = ["--", str(source_of(self.files))]
        asked = [*options, "--task", self.task, "--preset", self.preset]
        words = [*asked, "--save-minutes", "none", "-o", str(self.results), *source]
        self.command = shlex.join(["interslice", "run", *(Path(s).name for s in source[1:]), *asked])
        self._process = subprocess.Popen(  # in the folder of the page's program, from where options name files
            [*PROGRAM, "run", *words], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.state = "running"
        threading.Thread(target=self._follow, args=[self._process], daemon=True).start()

    def _follow(self, process: subprocess.Popen) -> None:
        with process.stdout as output:
            while content := output.read1(1 << 16):
                self.heard.hear(content)
        self.heard.hear(b"", final=True)
        status = process.wait()
        self.heard.bars.clear()
        shutil.rmtree(self.files, ignore_errors=True)  # only results are of use now
        self.state = "cancelled" if self._cancelled else "failed" if status else "finished"

    def cancel(self) -> None:
        """End the run, and wait until it has ended; a second call, or one after its end, changes nothing."""
        self._cancelled = True
        if self._process is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.state = "cancelled"
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def written(self) -> dict[str, Path]:
        """The files of the results: relative name -> path. None while they are being written."""
        if self.state in ("uploading", "running"):
            return {}
        paths = [p for p in self.results.rglob("*") if p.is_file() and not p.is_symlink()]
        names = {p.relative_to(self.results).as_posix(): p for p in sorted(paths)}
        return {name: path for name, path in names.items() if not any(part[0] == "." for part in name.split("/"))}

    def told(self) -> dict:
        """What the page shows of it."""
        return {
            "number": self.number, "state": self.state, "task": self.task, "preset": self.preset,
            "files": [str(name) for name in self.names[:3]], "count": len(self.names), "command": self.command,
            "bars": [{"what": what, **bar} for what, bar in dict(self.heard.bars).items()],
            "worked": self.heard.worked, "lines": [*self.heard.lines],
            "last": self.heard.last_words() if self.state == "failed" else [],
            "results": [{"name": name, "bytes": path.stat().st_size} for name, path in self.written().items()],
        }  # fmt: skip


class Desk:
    """The runs of a page.

    Args:
        folder: for uploads, and for results unless `output` is given.
        options: of `interslice run`, for all runs.
        output: where results are kept; each run has a folder of its own there.
        most: bytes of an upload.
    """

    def __init__(self, folder: Path, options: Sequence[str] = (), output: Path | None = None,
                 most: float = GIGA) -> None:  # fmt: skip
        self.folder, self.options, self.output, self.most = folder, [*options], output, most
        self.runs: dict[int, Run] = {}
        self._lock = threading.Lock()

    def announce(self, task: str, preset: str, names: Sequence[str] = (), sizes: Sequence[int] = ()) -> Run:
        """A run whose files are about to come; it takes the place of one that was announced before and not started.

        Raises:
            Refusal: a run is going, or the files cannot be taken.
        """
        if task not in TASKS or preset not in PRESETS:
            raise Refusal(f"the task is one of {', '.join(TASKS)}, the preset of {', '.join(PRESETS)}")
        with self._lock:
            self._check_idle()
            for waiting in [run for run in self.runs.values() if run.state == "uploading"]:
                waiting.cancel()
            number = len(self.runs) + 1
            folder = self.folder / f"run-{number}"
            results = folder / "results" if self.output is None else new_folder(self.output)
            run = Run(number, folder, results, task, preset, names, sizes, self.most)
            self.runs[number] = run
            return run

    def start(self, run: Run) -> None:
        """Start a run whose files are here.

        Raises:
            Refusal: as `Run.start`; another one is going.
        """
        with self._lock:
            self._check_idle()
            run.start(self.options)

    def _check_idle(self) -> None:
        if going := [run.number for run in self.runs.values() if run.state == "running"]:
            raise Busy(f"run {going[0]} is going, and there is one at a time: wait for its end, or cancel it")

    def close(self) -> None:
        """End what is going."""
        with self._lock:
            for run in self.runs.values():
                with suppress(OSError):
                    run.cancel()


def environment() -> dict[str, str]:
    """That of a run: its output comes at once and in UTF-8, its bars are as they are, and it finds this package."""
    found = {k: v for k, v in os.environ.items() if not k.startswith("TQDM_")}
    if not is_installed():
        paths = [str(PACKAGE.parent), found.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return found | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def new_folder(parent: Path) -> Path:
    """A folder for a run, `run-1` or the next that is not there; made by the run itself."""
    n = 1
    while (parent / f"run-{n}").exists():
        n += 1
    return parent / f"run-{n}"
