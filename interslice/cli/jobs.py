"""What a command asks MONAI's bundle runner to do: configs, ids with their values, and the id that is run.

The runner is the same that `python -m monai.bundle run` calls, with the same configs, so results are the same.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from interslice.cli.options import options_of
from interslice.cli.values import REFERENCE, anything, inert, value_of
from interslice.files.listed import as_list
from interslice.home import home
from interslice.usage import UsageError

TASKS = {"thick": None, "stacks": "task_stacks", "ct": "task_svct", "kspace": "task_csmri"}
"""Tasks of `--task`, and the config that each adds to that of inference."""
RUN_IDS = {"run": "inference", "evaluate": "inference", "train": "training", "adapt": "adaptation"}
OUTPUT = {"run": "eval", "evaluate": "eval", "train": "runs/prior", "adapt": "eval"}
"""Where results go, in the folder that a command is given in."""
FILES = ("path", "source", "folder", "log_dir")
"""Arguments of parts that name files."""


@dataclass
class Job:
    """A run of the bundle.

    Attributes:
        command: run, evaluate, train or adapt.
        task: of TASKS.
        configs: files, in the order in which they are merged.
        own: whether all of them came with the bundle.
        values: id -> value, as the configs take it.
        said: id -> text, as it was given.
    """

    command: str
    task: str
    configs: list[str]
    own: bool = True
    values: dict[str, object] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return RUN_IDS[self.command]

    def give(self, name: str, value: object, text: object) -> None:
        """Set an id; `text` is what a message shows of it."""
        self.values[name], self.said[name] = value, str(text)

    def words(self) -> list[str]:
        """The options as words, for the last lines of a run that cannot go on."""
        return [word for name, text in self.said.items() for word in (f"--{name}", text)]

    def arguments(self) -> dict[str, object]:
        """What MONAI's `run` and `ConfigWorkflow` are given, besides the run id."""
        there = home()
        root = "." if there == Path.cwd() else inert(str(there))
        files = {name: str(there / "configs" / file) for name, file in SETTINGS.items()}
        return {"config_file": self.configs, "bundle_root": root, **files, **self.values}


SETTINGS = {"meta_file": "metadata.json", "logging_file": "logging.conf"}


def job_of(command: str, task: str = "thick", solver: str | None = None, configs: Sequence[str] = ()) -> Job:
    """The job of a command, with the configs that its task and its solver choose, and those that it is given besides.

    Raises:
        UsageError: the task has no such command, or a config is not there.
    """
    if command in ("run", "evaluate"):
        names = ["inference", TASKS[task], "evaluate" if command == "evaluate" else None]
    elif task not in ("thick", "ct") or (command, task) == ("adapt", "ct"):
        raise UsageError(
            f"there is no `{command}` for --task {task}: a prior is trained on thick or on ct, adapted on thick"
        )
    else:
        names = ["train", "train_ct" if task == "ct" else None, "adapt" if command == "adapt" else None]
    names.append(f"solver_{solver}" if solver else None)
    files = [str(home() / "configs" / f"{name}.json") for name in names if name]
    more = [config_file(name) for name in configs]
    own = all(Path(file).parent == home() / "configs" for file in more)
    return Job(command, task, files + more, own)


def config_file(name: str) -> str:
    """The file of a config: a path, or the name of one that came with the bundle."""
    shipped = home() / "configs"
    for path in (Path(name), shipped / name, shipped / f"{name}.json"):
        if path.is_file():
            return str(path)
    known = sorted(p.stem for p in shipped.glob("*.json") if p.stem != "metadata")
    raise UsageError(f"--config {name}: there is no such file; configs of the bundle are {', '.join(known)}")


def give_options(job: Job, given: Mapping[str, str]) -> None:
    """Set ids of `options_of` to what was given for them: text, or True and False of switches.

    Raises:
        UsageError: a value is none for its option, or another task's.
    """
    every, here = options_of(job.command), options_of(job.command, job.task)
    for name, text in given.items():
        if name not in here:
            tasks = sorted(task for task in TASKS if name in options_of(job.command, task))
            raise UsageError(f"--{every[name].word} is an option of --task {' and '.join(tasks)}, not of {job.task}")
        kind = here[name].kind
        job.give(name, text if kind == ("switch",) else value_of(name, kind, text), text)


def give_part(job: Job, assignment: str) -> None:
    """Set an id, or a part of one, that is no option of its own: `operator#gap=1.0`.

    Raises:
        UsageError: it is no assignment, or Python, which is not run from here.
    """
    name, equals, text = assignment.partition("=")
    name = name.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*((#|::)\w+)*", name):
        raise UsageError(f"--set {assignment}: write a name, = and a value, such as operator#gap=1.0")
    if any(part.startswith("_") for part in re.split("#|::", name)):
        raise UsageError(f"--set {assignment}: what a part is made of is set in a file for --config alone")
    if text.startswith("$"):
        raise UsageError(
            f"--set {assignment}: what begins with $ is not run from here; write it into a file for --config"
        )
    known = options_of(job.command, job.task).get(name)
    if name.split("#")[-1] in FILES or name in ("dataset_dir", "output_dir"):
        value = inert(text)
    elif known is not None and known.kind != ("switch",):
        value = value_of(name, known.kind, text)
    else:
        value = text if REFERENCE.fullmatch(text) else "$None" if text == "none" else anything(name, text)
    job.give(name, value, text)


@contextmanager
def one_source(paths: Sequence[str]) -> Iterator[str | None]:
    """What `dataset_dir` is for the scans of a command line: the path, or a list of them while it lasts."""
    if len(paths) < 2:
        yield paths[0] if paths else None
        return
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{path} does not exist")
    with tempfile.TemporaryDirectory(prefix="interslice-") as folder:
        file = Path(folder) / "scans.txt"
        file.write_bytes(as_list(paths))
        yield str(file)


def prepare(job: Job) -> None:
    """Check the ids of a job, and keep MONAI from talking of configs that came with the bundle."""
    from interslice.files.options import check_ids

    check_ids(job.configs, job.values)
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # of configs that lie in two folders
    if job.own:
        warnings.filterwarnings("ignore", message="parsing config_file")


def run_job(job: Job) -> None:
    """Run a job to its end, as the command line of MONAI does."""
    from monai.bundle import run

    prepare(job)
    run(job.run_id, **job.arguments())
