"""Other programs for the same task: which there are, and how one is run.

A peer is a separate program in an environment of its own, found by its name. Nothing of it is imported here, and
nothing of it is part of this project, whatever its licence. `peers.json` beside this file lists them; a file of the
same form lists others.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from interslice.usage import UsageError

REGISTRY = Path(__file__).with_name("peers.json")
LAST_WORDS = 300
"""Characters of a program's output that are told when it fails."""


class PeerFailure(Exception):
    """A peer that gave no result; its message says why."""


@dataclass(frozen=True)
class Peer:
    """A program that makes a volume of thin slices from one of thick slices.

    Attributes:
        title: what it is called.
        program: name of the executable, or its path.
        arguments: its words; {input}, {folder}, {ratio}, {gpu}, {device} stand for the thick file, an empty folder for
            its results, the distance of slices in voxels, the number of the GPU, -1 for none, and torch's name of it.
        output: pattern of the result in that folder.
        version, licence, source: of the peer.
        install: a command that installs it, for people.
        gpu: its authors run it on a GPU.
        extra: words added to `arguments`; with them it is not what its authors run.
    """

    title: str
    program: str
    arguments: tuple[str, ...]
    output: str
    version: str = ""
    licence: str = ""
    source: str = ""
    install: str = ""
    gpu: bool = False
    extra: tuple[str, ...] = ()

    def executable(self, folder: Path | None = None) -> str | None:
        """Where the program is: in `folder`, or where the shell finds it; None if it is not installed."""
        places = None if folder is None else os.pathsep.join([str(folder), os.environ.get("PATH", "")])
        return shutil.which(self.program, path=places)

    def words(self, values: Mapping[str, object]) -> list[str]:
        """Its arguments, filled in."""
        return [word.format(**values) for word in self.arguments] + list(self.extra)

    def note(self, gpu: int) -> str:
        """What about a run is not as its authors meant it; empty if all is."""
        notes = ["on a CPU"] * (self.gpu and gpu < 0) + [" ".join(self.extra)] * bool(self.extra)
        return ", ".join(notes)

    def run(self, source: Path, folder: Path, ratio: float, gpu: int = -1, timeout: float | None = None,
            programs: Path | None = None) -> tuple[Path, float]:  # fmt: skip
        """Make the thin volume of a thick file; the file that the program wrote, and the seconds it took.

        Args:
            source: the thick file.
            folder: for what the program writes; emptied before. What it says goes into `log.txt` beside the folder.
            ratio, gpu: see `arguments`.
            timeout: in seconds; a program that takes longer is ended, with all that it started.
            programs: folder to look for the program in first.

        Raises:
            PeerFailure: it is not installed, failed, took too long, or wrote nothing.
        """
        executable = self.executable(programs)
        if executable is None:
            raise PeerFailure(f"{self.program} is not installed")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        values = {
            "input": source,
            "folder": folder,
            "ratio": f"{ratio:g}",
            "gpu": gpu,
            "device": "cpu" if gpu < 0 else f"cuda:{gpu}",
        }
        log, began = folder.with_name(f"{folder.name}_log.txt"), time.perf_counter()
        with log.open("w", encoding="utf-8") as said:
            process = subprocess.Popen(
                [executable, *self.words(values)], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise PeerFailure(f"{self.program} was ended after {timeout:g} s (--timeout)") from None
            finally:
                end(process)
        if status:
            last = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-LAST_WORDS:]
            raise PeerFailure(f"{self.program} ended with status {status}: {last or 'it said nothing'}")
        written = sorted(folder.rglob(self.output))
        if len(written) != 1:
            names = ", ".join(p.name for p in written) or "none"
            raise PeerFailure(f"{self.program} ended well, but of files called {self.output} it wrote {names}")
        return written[0], time.perf_counter() - began


def end(process: subprocess.Popen) -> None:
    """End a program that still runs, with what it started: all in one session of its own where the system has them."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def registered(path: Path = REGISTRY) -> dict[str, Peer]:
    """The peers of a file, by name.

    Raises:
        UsageError: the file is no list of peers.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {name: Peer(**entry | {"arguments": tuple(entry["arguments"])}) for name, entry in listed.items()}
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} lists no peers ({error}): {REGISTRY.name} shows the form") from None


def chosen(peers: Mapping[str, Peer], names: Sequence[str] | None, extra: Sequence[str] = ()) -> dict[str, Peer]:
    """Those that are asked for, with words of their own: `NAME=WORDS`.

    Raises:
        UsageError: a name that is not registered.
    """
    words = dict(text.partition("=")[::2] for text in extra)
    for name in [*(names or ()), *words]:
        if name not in peers:
            raise UsageError(f"no peer is called {name}: there are {', '.join(peers)}")
    return {
        name: replace(peer, extra=tuple(shlex.split(words.get(name, ""))))
        for name, peer in peers.items()
        if names is None or name in names
    }
