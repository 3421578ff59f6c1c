"""Feeds the bundle thousands of malformed inputs, each in a process of its own, and says what became of them.

    python -m scripts.fuzz                                   # 300 inputs, some minutes
    python -m scripts.fuzz --count 5000 --output docs/fuzz.json
    python -m scripts.fuzz --kinds dicom nifti --count 500 --keep failures
    python -m scripts.fuzz --seed 0 --kinds dicom --only 137

Each lies beside a good one, whose result must be the same bit for bit, over results of an earlier run, which must stay
or be replaced as one. What counts as what is in scripts/fuzzing/judge.py. With --output docs/fuzz.json the table in
docs/explanation/reliability.md is made, too. Status 1 if any input failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: after a fork, a parent's threads are gone
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import itk
import torch
from tqdm import tqdm

from interslice import __version__
from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from scripts.fuzzing import scans
from scripts.fuzzing.child import MEMORY, SECONDS, threads
from scripts.fuzzing.report import read, summary, write_table
from scripts.fuzzing.runs import Record, Runs, available
from scripts.studies.tables import page_of

ROOT = Path(__file__).parents[1]
NEEDED = (
    "monai.bundle", "monai.engines", "monai.handlers", "interslice.files.options", "interslice.files.save_results",
    "interslice.files.run_record", "interslice.files.restore", "interslice.physics.thick", "interslice.physics.ct",
    "interslice.physics.kspace", "interslice.physics.baselines", "interslice.sampling", "interslice.noise",
    "interslice.prior.training", "interslice.report.page.write", "interslice.report.write",
    "interslice.report.evaluation", "skimage.filters", "skimage.restoration", "scipy.ndimage",
    "matplotlib.figure", "ismrmrd", "gdcm",
)  # fmt: skip
"""Imported once, by the parent, so that no child has to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    options = parser().parse_args(arguments)
    kinds = [k for k in available() if k in (options.kinds or available())]
    numbers = options.only if options.only is not None else range(options.count)
    before = None if options.again is None else read(options.again)
    if before is not None:
        options.seed = before["seed"]
        inputs = [(f["kind"], f["number"]) for f in before["failures"]]
    elif options.only is None:
        inputs = [(kinds[n % len(kinds)], n) for n in numbers]
    else:
        inputs = [(k, n) for k in kinds for n in numbers]
    if options.keep is not None:
        options.keep = options.keep.absolute()
        options.keep.mkdir(parents=True, exist_ok=True)
    import_all()
    records: list[Record] = []
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for record in tqdm(spread(inputs, options, Path(folder)), total=len(inputs), unit="input", smoothing=0.02):
                records.append(record)
                if record.failed and options.verbose:
                    tqdm.write(f"{record.kind} {record.number}: {record.verdict}: {record.what}: {record.why[:400]}")
    finally:  # what was found before an interruption is not lost
        if records and (before is None or len(records) == len(inputs)):
            conclude(records, options, before)
    return int(any(r.failed for r in records))


def conclude(records: list[Record], options: argparse.Namespace, before: dict | None) -> None:
    """Print the table, and write it and the counts where that is asked for."""
    records.sort(key=lambda r: (r.kind, r.number))
    content = summary(records, options.seed, __version__, before)
    print(content["table"])
    if options.output is not None:
        with written_whole(options.output) as partial:
            partial.write_text(json.dumps(content["record"], indent=1) + "\n", encoding="utf-8")
        page = page_of(options.output.parent, "reliability.md")
        if page.exists():
            write_table(page, content["record"])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("--count", type=int, default=300, help="inputs, of the kinds in turn")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--kinds", nargs="+", choices=available(), help="by default all")
    made.add_argument("--only", type=int, nargs="+", help="numbers of inputs, of each of the kinds")
    made.add_argument("--again", type=Path, help="JSON of a campaign: run its failures again, for their verdicts now")
    made.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes side by side")
    made.add_argument("--seconds", type=float, default=SECONDS, help="limit of a run")
    made.add_argument("--memory", type=float, default=MEMORY / 2**30, help="limit of a run, in GB")
    made.add_argument("--lenient", action="store_true", help="take a plain sentence that is not in the last lines")
    made.add_argument("--keep", type=Path, help="folder for the inputs that failed")
    made.add_argument("--output", type=Path, help="JSON of the counts")
    made.add_argument("--verbose", action="store_true", help="say each failure as it comes")
    return made


def import_all() -> None:
    """Import what runs need, with one thread."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(ROOT))
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    with tempfile.TemporaryDirectory() as folder:  # ITK loads its parts when they are first used
        itk.imread(str(scans.write_metaimage(Path(folder) / "a.mha")))
    if threads() > 1:
        print(f"{threads()} threads are running: a fork has but one, and may wait for the others", file=sys.stderr)


def spread(inputs: Sequence[tuple[str, int]], options: argparse.Namespace, folder: Path) -> Iterator[Record]:
    """Records of inputs, from several processes, as they come."""
    connections: list[Connection] = []
    workers: dict[Connection, int] = {}
    for job in range(max(1, options.jobs)):
        receive, send = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            work(inputs[job :: options.jobs], options, folder / str(job), send)
        send.close()
        connections.append(receive)
        workers[receive] = pid
    while connections:
        for connection in wait(connections):
            try:
                received = connection.recv()
            except EOFError:
                connections.remove(connection)
                _, status = os.waitpid(workers.pop(connection), 0)
                if status:
                    raise RuntimeError(
                        f"a process that makes inputs ended with {os.waitstatus_to_exitcode(status)}"
                    ) from None
                continue
            if isinstance(received, str):
                raise RuntimeError(received)
            yield received


def work(inputs: Sequence[tuple[str, int]], options: argparse.Namespace, folder: Path, send: Connection) -> None:
    """In a process of its own: run some inputs; never returns."""
    status = 1
    try:
        folder.mkdir()
        runs = Runs(
            folder, ROOT, options.seed, options.lenient, options.seconds, int(options.memory * 2**30), options.keep
        )
        for kind, number in inputs:
            send.send(runs.run(kind, number))
        status = 0
    except BaseException as error:  # noqa: BLE001 - the parent says it
        import traceback

        send.send("".join(traceback.format_exception(error)))
    finally:
        send.close()
        os._exit(status)


if __name__ == "__main__":
    with plain_endings():
        sys.exit(main())
