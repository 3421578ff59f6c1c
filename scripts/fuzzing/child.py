"""One run of the bundle in a process of its own, within limits of time and memory.

To start Python with torch and MONAI takes longer than a run on a tiny volume. So the parent imports what a run needs
and forks; the child does what `python -m monai.bundle` does, from the parsing of its words to its exit status. The
parent has one thread, as after a fork only one goes on.
"""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

GIGABYTE = 1 << 30
MEMORY = 4 * GIGABYTE
"""Bytes that a child may take, besides what it shares with its parent."""
SECONDS = 60.0
LARGEST_FILE = GIGABYTE


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: of the exit; None where a signal ended it.
        signal: by which it was ended, or None.
        seconds: from the fork to the end.
        peak: of the resident memory, in bytes.
        text: what was said, stdout and stderr as they came.
    """

    status: int | None
    signal: int | None
    seconds: float
    peak: int
    text: str


def bundle_command(words: Sequence[str]) -> Callable[[], None]:
    """What `python -m monai.bundle WORDS` runs, from the current folder."""

    def command() -> None:
        sys.argv = ["monai.bundle", *words]
        sys.path.insert(0, os.getcwd())
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)

    return command


def run_child(command: Callable[[], None], folder: Path, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run `command` in a fork, in `folder`; what it says goes into <folder>/said.txt."""
    said = folder / "said.txt"
    sys.stdout.flush(), sys.stderr.flush()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_child(command, folder, said, seconds, memory)
    _, ended, usage = os.wait4(pid, 0)
    with contextlib.suppress(ProcessLookupError):  # what it started, too
        os.killpg(pid, signal.SIGKILL)
    return Outcome(
        os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else None,
        os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else None,
        time.monotonic() - start,
        usage.ru_maxrss * 1024,
        said.read_text(encoding="utf-8", errors="replace"),
    )


def _be_child(command: Callable[[], None], folder: Path, said: Path, seconds: float, memory: int) -> None:
    """Never returns: ends with the status that Python itself would give."""
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(output, 1), os.dup2(output, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - until the end
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
        memory += address_space()
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        status = _status_of(command)
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(status)


def _status_of(command: Callable[[], None]) -> int:
    """The exit status of Python after `command`, whose uncaught exceptions are printed as Python does."""
    try:
        command()
    except SystemExit as error:
        return _exit(error)
    except BaseException as error:  # noqa: BLE001 - all that Python would print
        try:
            sys.excepthook(type(error), error, _without(error.__traceback__, __file__))
        except SystemExit as ended:
            return _exit(ended)
        return 1
    return 0


def _exit(error: SystemExit) -> int:
    """The status that SystemExit asks for, whose text is printed."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _without(frames: TracebackType | None, file: str) -> TracebackType | None:
    """A traceback less the frames of this module, which the command line does not have."""
    while frames is not None and frames.tb_frame.f_code.co_filename == file:
        frames = frames.tb_next
    return frames


def address_space() -> int:
    """Bytes of this process's virtual memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def threads() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/task"))
