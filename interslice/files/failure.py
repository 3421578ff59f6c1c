"""What an exception means for the person before the screen: what is wrong, where, what to do, and the exit status.

    status   what it was
    1        a file, weights, the disk, the memory, the network, or a fault of the program
    2        usage: an option, its value, or a word of the command line
    130      Ctrl-C; 143: ended by SIGTERM

Known to be the user's is what the project's own code raises on purpose, and what the system and the config's parser
say. Anything else is a fault of the program, and is called one.
"""

from __future__ import annotations

import errno
import linecache
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from interslice.files.command_line import becomes, parse
from interslice.files.root_cause import innermost, root_cause, sent
from interslice.home import is_installed
from interslice.usage import UsageError

ROOT = Path(__file__).resolve().parents[2]
OWN = tuple(str(ROOT / room) + os.sep for room in ("interslice", "scripts"))
RUNS = ("run", "inference", "training", "adaptation", "evaluate")
"""Ids that do the work; all others are parts that are built for it."""
ELSEWHERE = "choose another --output_dir"
FIXES = {
    errno.ENOSPC: f"make room there, or {ELSEWHERE}",
    errno.EACCES: f"change its permissions, or {ELSEWHERE}",
    errno.EPERM: f"change its permissions, or {ELSEWHERE}",
    errno.EROFS: ELSEWHERE,
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --num_workers",
}
"""What helps where the system refuses a file. EDQUOT, which Windows lacks, is added below."""
if hasattr(errno, "EDQUOT"):
    FIXES[errno.EDQUOT] = FIXES[errno.ENOSPC]
NO_MEMORY = re.compile("(?i)out of memory|can't allocate memory|not enough memory|cannot allocate memory")
LESS = "lower --slice_batch_size (in training --batch_size), take a smaller volume, or a machine with more"
MONAI_BUNDLE, NO_TARGET = os.path.join("monai", "bundle") + os.sep, "Cannot locate class"
OLD_NAME = f"{NO_TARGET} or function path: 'bundle."
"""Of overlays that were written for version 0.10 and older."""
CIRCLE = re.compile("detected circular references '(.+?)' for id='(.+?)'")
"""MONAI's words for an id that needs itself."""
RANK_LOST = re.compile(r"gloo/transport/|NCCL.*remote process|Connection was likely closed|recvBytes")
"""What torch says where another rank, or torchrun, has ended."""
WORKER_ENDED = re.compile(r"DataLoader worker \(pid")


UNREADABLE = (
    "ImageFileError", "HeaderDataError", "BadZipFile", "ReadError", "JSONDecodeError", "InvalidDicomError", "EOFError",
    "UnpicklingError", "UnicodeDecodeError", "ParseError",
)  # fmt: skip
"""Exceptions by which nibabel, pydicom and Python refuse a damaged file."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as by `docker stop` or a scheduler."""


@dataclass(frozen=True)
class Failure:
    """How a program ends.

    Attributes:
        status: of the process.
        said: the last lines on the screen; empty where nobody reads them.
        fault: whether it is one of the program, so that its traceback is worth keeping.
    """

    status: int
    said: str
    fault: bool = False


def failure_of(error: BaseException, words: Sequence[str] = (), go_on: str = "") -> Failure:
    """What ended the program.

    Args:
        error: as it was caught, with what it was raised from.
        words: the command line after the program, whose options are named where their values are refused.
        go_on: what to do after Ctrl-C, unless the exception says it.
    """
    if isinstance(error, KeyboardInterrupt):
        said = str(error) or "files that were written before are whole" + (f"; {go_on}" if go_on else "")
        return Failure(143 if isinstance(error, Terminated) else 130, f"interrupted: {said}")
    cause, remote = innermost(error), sent(innermost(error))
    if isinstance(cause, BrokenPipeError) and not _raised_in(cause, "multiprocessing"):  # `| head` has read enough
        return Failure(1, "")
    kind, message = remote.kind if remote else type(cause).__name__, root_cause(error)
    if isinstance(cause, KeyError) and not remote:
        message = str(cause.args[0]) if cause.args else kind
    frames = list(_frames(error))
    built = _built(frames)
    if circle := CIRCLE.match(message):
        name, of = circle.groups()
        given = _refers(name, words) or _refers(of, words)
        return Failure(2, f"error: {of} refers to @{name}, which needs it itself: give a value{given}")
    if isinstance(cause, UsageError) or _of_config(cause):
        now = ": until version 0.10 the package was called so, now it is interslice" if OLD_NAME in message else ""
        return Failure(2, f"error: {message}{_asked(built, words, message)}{now}")
    if isinstance(cause, OSError):
        return Failure(1, f"error: {_system(cause) if not remote else message}")
    if isinstance(cause, MemoryError) or NO_MEMORY.search(message):
        return Failure(1, f"error: memory ran out ({message.splitlines()[0]}): {LESS}")
    if isinstance(cause, ImportError):
        fix = "-r requirements.txt, and requirements-dev.txt for studies"
        if is_installed():
            fix = '".[all]" in the folder of the repository, or the wheel again with its extra [all]'
        return Failure(1, f"error: {message}: pip install {fix}")
    if RANK_LOST.search(message):
        return Failure(
            1,
            "error: another process of this run has ended, and cannot be reached. Files that were written before are "
            "whole: go on with --skip_finished True, of a training with --resume True",
        )
    if WORKER_ENDED.search(message):
        return Failure(1, f"error: a process that reads data ended ({message.splitlines()[0]}): lower --num_workers")
    if kind in UNREADABLE or "zlib" in type(cause).__module__:
        file = _file(frames)
        return Failure(1, f"error: {file}cannot be read, is it damaged? ({kind}: {message})")
    if _on_purpose(cause):
        return Failure(1, f"error: {message}")
    if built and (name := _unknown_id(frames)):
        return Failure(2, f"error: {_id(built)} refers to @{name}, and no id is called that{_refers(name, words)}")
    if built and re.split("::|#", built[0])[0] not in RUNS and not _own_after(frames):
        return Failure(2, f"error: {_id(built)} cannot be made: {kind}: {message}{_given(built, words)}")
    where = next((f"{p}:{n}" for p, n in reversed(_places(error)) if p), "outside of the project's code")
    return Failure(1, f"this is a fault of the program, please report it: {kind} at {where}: {message}", fault=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Frames and lines on the way from the outermost call to where the first exception was raised."""
    for raised in _chain(error):
        yield from traceback.walk_tb(raised.__traceback__)


def _is_own(path: str) -> bool:
    return os.path.realpath(path).startswith(OWN)


def _own_after(frames: Sequence[tuple[FrameType, int]]) -> bool:
    """Whether code of the project ran after MONAI began to build the last part."""
    last = max((i for i, (frame, _) in enumerate(frames) if _is_resolver(frame)), default=-1)
    return any(_is_own(frame.f_code.co_filename) for frame, _ in frames[last + 1 :])


def _places(error: BaseException) -> list[tuple[str, int]]:
    """Lines of the project's own code on the way, (path in the project, line)."""
    places = [(frame.f_code.co_filename, line) for frame, line in _frames(error)]
    remote = sent(innermost(error))
    places += [(path, line) for path, line, _ in remote.frames] if remote else []
    return [(Path(os.path.realpath(p)).relative_to(ROOT).as_posix(), n) for p, n in places if _is_own(p)]


def _on_purpose(cause: BaseException) -> bool:
    """Whether a `raise` of the project's own code made the exception."""
    remote = sent(cause)
    if remote is not None:
        path, _, code = remote.frames[-1] if remote.frames else ("", 0, "")
    else:
        frames = list(traceback.walk_tb(cause.__traceback__))
        if not frames:
            return False
        frame, line = frames[-1]
        path = frame.f_code.co_filename
        code = linecache.getline(path, line).strip()
    return _is_own(path) and code.startswith("raise ")


def _of_config(cause: BaseException) -> bool:
    """Whether MONAI's parser of configs raised the exception, or an expression in a config did."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(cause.__traceback__)]
    expression = frames[-1:] == ["<string>"] and MONAI_BUNDLE in "".join(frames[-2:-1])
    refused = _raised_in(cause, MONAI_BUNDLE) or isinstance(cause, SyntaxError) or NO_TARGET in str(cause)
    return expression or refused


def _raised_in(cause: BaseException, folder: str) -> bool:
    """Whether the code that raised an exception lies in a folder of this name."""
    frames = list(traceback.walk_tb(cause.__traceback__))
    return bool(frames) and folder in frames[-1][0].f_code.co_filename


def _system(error: OSError) -> str:
    """What the system refused: the file, the reason, what helps; or the words of who raised it."""
    if error.errno is None or error.strerror is None:
        return str(error) or type(error).__name__
    name = next((os.fspath(n) for n in (error.filename2, error.filename) if isinstance(n, (str, os.PathLike))), "")
    said = ": ".join(part for part in (name, error.strerror) if part)
    return f"{said}: {FIXES[error.errno]}" if error.errno in FIXES else said


def _file(frames: Sequence[tuple[FrameType, int]]) -> str:
    """The file that was being read, by what the innermost call with a path calls it."""
    for frame, _ in reversed(frames):
        for name in ("path", "filename", "file_map", "filepath"):
            if isinstance(path := frame.f_locals.get(name), (str, os.PathLike)) and str(path):
                return f"{path} "
    return "a file "


def _is_resolver(frame: FrameType) -> bool:
    return frame.f_code.co_name == "_resolve_one_item" and "reference_resolver" in frame.f_code.co_filename


def _built(frames: Sequence[tuple[FrameType, int]]) -> tuple[str, str] | None:
    """The part of the config that was being built, and what the config says of it."""
    for frame, _ in reversed(frames):
        if _is_resolver(frame):
            return str(frame.f_locals.get("id", "")), str(frame.f_locals.get("item_config", ""))
    return None


def _unknown_id(frames: Sequence[tuple[FrameType, int]]) -> str | None:
    """The id that a config refers to and does not have."""
    for (caller, _), (frame, _) in zip(frames, frames[1:]):
        if _is_resolver(caller) and frame.f_code.co_name == "look_up_option":
            return str(frame.f_locals.get("opt_str", ""))
    return None


def _refers(name: str, words: Sequence[str]) -> str:
    """In brackets, the options that refer to an id."""
    given = [f"--{key} {text}" for key, text in parse(words)[1].items() if re.search(rf"@{re.escape(name)}\b", text)]
    return f" ({', '.join(given)})" if given else ""


def _id(built: tuple[str, str]) -> str:
    """The id of a part as a person writes it."""
    return built[0].replace("::", "#")


def _is_in(option: str, part: str) -> bool:
    """Whether an option is of a part of the config, or of one that holds it."""
    return f"{option}#".startswith(f"{part}#") or part.startswith(f"{option}#")


def _given(built: tuple[str, str], words: Sequence[str]) -> str:
    """In brackets, the options that are of a part."""
    options = ((key.replace("::", "#"), text) for key, text in parse(words)[1].items())
    given = [f"--{option} {text}" for option, text in options if _is_in(option, _id(built))]
    return f" ({', '.join(given)})" if given else ""


def _asked(built: tuple[str, str] | None, words: Sequence[str], message: str) -> str:
    """In brackets, the option whose value was refused, or the part that was being built."""
    if built is None:
        return ""
    part, config = _id(built), built[1]
    refused = message.rpartition("got ")[2]
    found = []
    for key, text in parse(words)[1].items():
        option = key.replace("::", "#")
        reaches = _is_in(option, part) or re.search(rf"@{re.escape(key)}\b", config)
        values = "|".join(re.escape(value) for value in (text, str(becomes(text))))
        if reaches and re.search(rf"(?<![\w.-])({values})(?![\w.])", refused):
            found.append((option, text))
    found = [o for o in found if re.search(rf"\b{re.escape(o[0].split('#')[-1])}\b", message)] or found
    if found:
        return f" ({', '.join(f'--{option} {text}' for option, text in found)})"
    return "" if part.split("#")[0] in (*RUNS, "initialize", "command_line") else f" (in {part})"
