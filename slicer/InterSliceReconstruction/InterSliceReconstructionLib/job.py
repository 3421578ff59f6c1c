"""A reconstruction in a process of its own: its command line, how far it is, its end, and the files that it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

TASKS = {
    "thick": ("Thick slices (MRI)", ()),
    "stacks": ("Several stacks of one patient (MRI)", ("task_stacks",)),
    "ct": ("Few views (CT projections)", ("task_svct",)),
    "kspace": ("Undersampled k-space (MRI)", ("task_csmri",)),
}
"""Name, as of `interslice run --task` -> what it is called, and the configs that it adds."""
PRESETS = ("best", "fast", "sharp")
NOISES = ("slerp", "auto", "matern", "ou", "piecewise", "mixed", "identical", "independent")
MAPS = {"std": "spread", "measured": "measured", "filled": "filled in"}
"""What may lie beside the result, and what its node is called."""
BAR = re.compile(
    r"(?P<what>[^|]*?):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)\s+\[[\d:]+<(?P<left>[\d:]+|\?),"
)  # of tqdm
GRACE = 10
"""Seconds that a process has to end by itself."""
KEPT = 200
"""Lines of output that are kept."""


@dataclass(frozen=True)
class Settings:
    """What is set in the panel.

    Attributes:
        device: `cpu`, `cuda`, ...; empty: the GPU if there is one.
    """

    task: str = "thick"
    preset: str = "best"
    noise: str = "slerp"
    seed: int = 0
    device: str = ""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("task", self.task, TASKS), ("preset", self.preset, PRESETS), ("noise", self.noise, NOISES)
        ):  # fmt: skip
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be a whole number from 0, got {self.seed}")

    def options(self) -> list[str]:
        """As options of `run inference`."""
        device = ["--device", self.device] if self.device else []
        return ["--preset", self.preset, "--noise", self.noise, "--seed", str(self.seed), *device]


def command(python: str, root: str, source: str, output_dir: str, settings: Settings) -> list[str]:
    """The words that start a reconstruction of `source`, a file or folder, into `output_dir`."""
    configs = [str(Path(root) / "configs" / f"{name}.json") for name in ("inference", *TASKS[settings.task][1])]
    return [
        python, "-m", "monai.bundle", "run", "inference",
        "--config_file", configs[0] if len(configs) == 1 else repr(configs),
        "--bundle_root", root, "--dataset_dir", source, "--output_dir", output_dir, "--report", "no",
        *settings.options(),
    ]  # fmt: skip


def environment(root: str, given: dict) -> dict:
    """The environment of the process: that which is given, with the package on Python's path."""
    paths = [root, *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


@dataclass(frozen=True)
class Progress:
    """How far a step of the work is.

    Attributes:
        what: is being done.
        share: of it that is done, 0 to 1.
        left: seconds, None while that is not known.
    """

    what: str
    share: float
    left: float | None

    def __str__(self) -> str:
        if self.left is None:
            return f"{self.what}: {self.share:.0%}"
        minutes, seconds = divmod(round(self.left), 60)
        return f"{self.what}: {self.share:.0%}, {minutes}:{seconds:02d} left"


def progress_of(line: str) -> Progress | None:
    """What a line of output says of the progress; None if it is no bar."""
    match = BAR.search(line)
    if match is None or int(match["total"]) == 0:
        return None
    left = None
    if match["left"] != "?":
        left = 0.0
        for part in match["left"].split(":"):
            left = 60 * left + int(part)
    return Progress(match["what"].strip(), int(match["done"]) / int(match["total"]), left)


class Job:
    """One reconstruction. Nothing here waits but `wait`: ask `poll` now and then.

    Args:
        command: its words.
        environment: its variables.
    """

    def __init__(self, command: list[str], environment: dict) -> None:
        self.lines: list[str] = []
        self.progress: Progress | None = None
        self.cancelled = False
        group = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
            if os.name == "nt"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **group,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take in what the process says, in a thread; a bar at once, as it has no end before the next one begins."""
        rest = b""
        while chunk := self._process.stdout.read1(4096):
            *whole, rest = re.split(rb"[\r\n]", rest + chunk)
            for line in whole:
                self._take(line)
            self.progress = progress_of(rest.decode("utf-8", "replace")) or self.progress
        self._take(rest)
        self._process.stdout.close()

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        progress = progress_of(text)
        if progress is not None:
            self.progress = progress
        elif text:
            self.lines = [*self.lines, text][-KEPT:]

    def poll(self) -> int | None:
        """The status of the process once it has ended and all of its words are read; None before."""
        status = self._process.poll()
        if status is None:
            return None
        self._reader.join(GRACE)
        return status

    def cancel(self) -> None:
        """Ask the process to end, with all that it started: Slicer's own Python is started by a launcher."""
        self.cancelled = True
        if self._process.poll() is not None:
            return
        if os.name == "nt":
            subprocess.run(["taskkill", "/PID", str(self._process.pid), "/T", "/F"], capture_output=True, check=False)
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        timer = threading.Timer(GRACE, self._kill)
        timer.daemon = True
        timer.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the process to end; returns whether it has."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def words(self) -> str:
        """Why it failed, as its last lines say; they begin with `error:`."""
        said = [n for n, line in enumerate(self.lines) if line.startswith(("error:", "this is a fault of the program"))]
        return "\n".join(self.lines[said[-1] :] if said else self.lines[-5:])


@dataclass(frozen=True)
class Results:
    """What a case has left.

    Attributes:
        maps: kind of MAPS -> file.
        record: run.json.
    """

    case: str
    volume: Path
    maps: dict[str, Path]
    record: dict


def results(output_dir: str) -> list[Results]:
    """The finished cases in a folder of results; a case without run.json is not whole."""
    found = []
    for path in sorted(Path(output_dir).glob("*/run.json")):
        case = path.parent.name
        volume = path.parent / f"{case}_recon.nii.gz"
        if volume.is_file():
            maps = {kind: path.parent / f"{case}_{kind}.nii.gz" for kind in MAPS}
            maps = {kind: file for kind, file in maps.items() if file.is_file()}
            found.append(Results(case, volume, maps, json.loads(path.read_text(encoding="utf-8"))))
    return found
