"""Opens the page of this machine: `interslice page`, or `python -m interslice.page`.

    interslice page
    interslice page --port 8765 --no-browser --output results -- --device cuda --checkpoint model.pt

Uploads, and results without --output, lie in a temporary folder that goes when the page ends.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from interslice.files.last_words import plain_endings
from interslice.files.limits import MAX_GIGABYTES, Limits
from interslice.files.machine import GIGA
from interslice.page.guard import ADDRESS
from interslice.page.jobs import Desk
from interslice.page.server import Server
from interslice.usage import UsageError


def serve(port: int = 0, browser: bool = True, output: str | None = None, max_gigabytes: float = MAX_GIGABYTES,
          options: Sequence[str] = ()) -> None:  # fmt: skip
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        port: 0 for any that is free.
        browser: whether to open it.
        output: folder of the results; None for the temporary one.
        max_gigabytes: of an upload, and of a file that a run reads.
        options: of `interslice run`, for all runs.

    Raises:
        UsageError: the port is none, or is taken; another value makes no sense.
    """
    try:
        most = Limits(max_gigabytes).max_gigabytes * GIGA
    except ValueError as error:
        raise UsageError(str(error)) from None
    options = ["--max-gigabytes", f"{max_gigabytes:g}", *options]
    kept = None if output is None else Path(output).absolute()
    temporary = tempfile.TemporaryDirectory(prefix="interslice-page-", ignore_cleanup_errors=True)
    with _ended_by_signals(), temporary as made:
        desk = Desk(Path(made).resolve(), options, kept, most)
        with _server(desk, port) as server:
            print(f"the page is at {server.guard.url}\nit ends with Ctrl-C", flush=True)
            if browser:  # which may take as long as it runs
                threading.Thread(target=webbrowser.open, args=[server.guard.url_once], daemon=True).start()
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                where = "are removed" if kept is None else f"are removed, results are in {kept}"
                print(f"the page has ended; its files {where}", flush=True)
            finally:
                desk.close()


def _server(desk: Desk, port: int) -> Server:
    try:
        return Server(desk, port)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"port {port} of {ADDRESS} cannot be used ({error}): choose another, or leave --port out"
        ) from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Where a terminal that is closed would end the process at once, its files stay: let it end as by Ctrl-C."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def main(words: Sequence[str] | None = None) -> None:
    """Read a command line, and serve."""
    parser = argparse.ArgumentParser("interslice page", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="of this machine; by default any that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    parser.add_argument("-o", "--output", help="folder where results are kept; by default they go with the page")
    parser.add_argument("--max-gigabytes", type=float, default=MAX_GIGABYTES, help="of an upload; default: %(default)g")
    parser.add_argument("options", nargs="*", help="after --: options of `interslice run`, for all runs")
    asked = parser.parse_args(words)
    serve(asked.port, not asked.no_browser, asked.output, asked.max_gigabytes, asked.options)


if __name__ == "__main__":
    with plain_endings():
        main()
