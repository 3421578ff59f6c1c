"""Killing a process before each of the steps that it takes on the disk."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the killed process is a fork")
STEPS = ("open", "os.", "shutil.", "ctypes.call_function")


def killed_before_each_step(work: Callable[[], object]) -> Iterator[int]:
    """Runs `work` in forks: the n-th is killed, as by the kernel, before the n-th step on the disk.

    Yields after each, with the number of steps taken; the last one ends by itself, and well.
    """
    for count in range(10_000):
        process = multiprocessing.get_context("fork").Process(target=_work_until, args=(work, count))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            yield count
            return
        assert process.exitcode == -signal.SIGKILL, process.exitcode
        yield count


def _work_until(work: Callable[[], object], count: int) -> None:
    left = [count]

    def kill(event: str, _) -> None:
        if event.startswith(STEPS) and event != "os.kill":
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(kill)
    work()
    left[0] = -1  # what the interpreter does at its end is no step
