"""Work that is handed over: done at once, or in a thread of its own while the caller goes on.

At most one piece of work waits or is under way: the next hand-over waits for the one before, so that what it holds in
memory is bounded. What comes of it is asked for by the caller (`ended`), in the thread that handed it over: there alone
anything is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor


class Handover:
    """One piece of work at a time.

    Args:
        beside: do it in a thread; else at once, so that what goes wrong is raised where it is handed over.
    """

    def __init__(self, beside: bool) -> None:
        self.beside = beside
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: tuple[Hashable, Future] | None = None
        self._ended: list[tuple[Hashable, BaseException | None]] = []

    def give(self, name: Hashable, work: Callable[[], object]) -> None:
        """Do this work, once the one before has ended. Python waits for it, too, before it ends the process."""
        if not self.beside:
            work()
            self._ended.append((name, None))
            return
        self.wait()
        self._thread = self._thread or ThreadPoolExecutor(1, "handover")
        self._under_way = (name, self._thread.submit(work))

    def wait(self) -> None:
        """Wait for what is under way, however it ends; can be interrupted, and asked again."""
        if self._under_way is not None:
            name, future = self._under_way
            self._ended.append((name, future.exception()))
            self._under_way = None

    def ended(self) -> list[tuple[Hashable, BaseException | None]]:
        """(name, what went wrong or None) of what has ended since the last call; does not wait."""
        if self._under_way is not None and self._under_way[1].done():
            self.wait()
        ended, self._ended = self._ended, []
        return ended
