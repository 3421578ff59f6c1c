"""How a program of this project ends that cannot go on: with plain last lines, and a traceback only where asked for.

Runs of `python -m monai.bundle` begin it from their configs (`begin`), scripts wrap their main (`plain_endings`):

    if __name__ == "__main__":
        with plain_endings():
            main()

With `--debug true` the traceback comes before the last lines. One of a fault of the program is kept in a file.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from interslice.files.command_line import is_option, is_run, parse
from interslice.files.failure import Terminated, failure_of
from interslice.files.rank_voice import let_first_speak
from interslice.files.switch import is_on

REPEATED = ("ignite.engine.engine.SupervisedTrainer", "ignite.engine.engine.SupervisedEvaluator",
            "monai.handlers.StatsHandler")  # fmt: skip
"""Loggers that tell of an exception, some with its traceback, before it reaches us."""


_debugging = False
"""Whether tracebacks are asked for."""


def begin(words: Sequence[str], debug: bool | str = False, go_on: str = "") -> None:
    """From here on, this process ends plainly, if it is a command line `monai.bundle run`.

    Python users, label servers and tests keep their own ways.

    Args:
        words: sys.argv.
        debug: a switch: show tracebacks, and all that libraries say.
        go_on: how to go on after Ctrl-C.

    Raises:
        UsageError: the switch is neither on nor off.
    """
    global _debugging
    on = False
    try:
        on = _debugging = is_on(debug, "debug")
    finally:
        if is_run(words):
            _hook(words[2:], go_on, on)


def _hook(words: Sequence[str], go_on: str, debug: bool) -> None:
    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        let_first_speak(error)
        raise SystemExit(tell(error, words, go_on, debug))

    def end_of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            tell(args.exc_value, words, go_on, debug)

    sys.excepthook, threading.excepthook = end, end_of_thread
    _prepare(debug)


@contextmanager
def plain_endings(go_on: str = "", words: Sequence[str] | None = None) -> Iterator[bool]:
    """For a script's main: ends the process with the status of `failure_of` and its words. Gives the switch `--debug`.

    Args:
        go_on: how to go on after Ctrl-C, and what is written by then.
        words: the options as they are to be named; by default those of the command line.
    """
    debug = False
    try:
        debug = _without_debug(sys.argv)
        _prepare(debug)
        yield debug
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        raise SystemExit(tell(error, sys.argv[1:] if words is None else words, go_on, debug)) from None


def _without_debug(words: list[str]) -> bool:
    """Take the switch `--debug` from a command line, and return it: so it is the same for every script."""
    for i, word in enumerate(words):
        if word.split("=")[0] == "--debug":
            rest = words[i : i + 2] if "=" not in word else [word]
            debug = is_on(parse(rest)[1]["debug"], "--debug")
            del words[i : i + (1 if len(rest) < 2 or is_option(rest[1]) else 2)]
            return debug
    return False


def reason_of(error: Exception) -> str:
    """In words, why one case has failed while the run goes on; its traceback comes before, where that is asked for."""
    if _debugging:
        traceback.print_exception(type(error), error, error.__traceback__)
    return failure_of(error).said.removeprefix("error: ")


def tell(error: BaseException, words: Sequence[str] = (), go_on: str = "", debug: bool = False) -> int:
    """Say on stderr how the program ends, and return its status."""
    failure = failure_of(error, words, go_on)
    _flush()
    if debug:
        traceback.print_exception(type(error), error, error.__traceback__)
    said = failure.said
    if failure.fault and not debug:
        said += f"\n{_keep(error)}"
    if said:
        print(said, file=sys.stderr, flush=True)
    return failure.status


def _keep(error: BaseException) -> str:
    """Write the traceback into a file of its own, and say where it is."""
    shown = "--debug true shows the traceback"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="traceback-", suffix=".txt", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.writelines(traceback.format_exception(type(error), error, error.__traceback__))
    except OSError:
        return shown
    return f"the traceback is in {file.name}; {shown}"


def _prepare(debug: bool) -> None:
    """Let SIGTERM end a program as Ctrl-C does, and keep libraries from talking over the last lines.

    What the screen cannot show is escaped: a name with a letter that it lacks is no reason to end.
    """
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    atexit.register(_flush)
    known = logging.root.manager.loggerDict  # MONAI gives its loggers a handler only where they are not there yet
    for logger in (logging.getLogger(name) for name in REPEATED if name in known or not name.startswith("monai")):
        logger.removeFilter(_is_news)
        if not debug:
            logger.addFilter(_is_news)
    if not debug:
        logging.raiseExceptions = False  # of a closed pipe
        warnings.formatwarning = _plain_warning
        warnings.simplefilter("ignore", FutureWarning)


def _terminate(number: int, frame) -> None:
    raise Terminated


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info or "is terminating due to exception" in record.getMessage())


def _plain_warning(message: Warning | str, category: type[Warning], *_) -> str:
    return f"warning: {str(message).strip()}\n"


def _flush() -> None:
    """Write what is waiting; where nobody reads it any more, leave it, or Python would complain when it ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
