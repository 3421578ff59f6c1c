"""Inputs by number: each is made, run and judged, and is the same whenever its kind, seed and number are."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import warnings
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scripts.fuzzing import scans
from scripts.fuzzing.child import MEMORY, SECONDS, Outcome, bundle_command, run_child
from scripts.fuzzing.damage.odd import pick
from scripts.fuzzing.damage.options import damaged_command_line
from scripts.fuzzing.damage.weights import damage_weights
from scripts.fuzzing.judge import FAILURES, judge
from scripts.fuzzing.kinds import ALL, KINDS, KSPACE, PROJECTIONS, SCAN, WEIGHTS, Kind
from scripts.fuzzing.known import SMALL, Known, configs_of, words_of
from scripts.fuzzing.place import Place, copy
from scripts.fuzzing.words import sentences

DATA = {
    "scan": SCAN, "projections": PROJECTIONS, "kspace": KSPACE, "truth": ("good.nii.gz", scans.write_truth),
}  # fmt: skip
"""Of command lines."""
TRAINING = {"train": "training", "adapt": "adaptation"}
BAD = r"\bbad\b"
"""By what a refusal has to call a damaged file."""


@dataclass(frozen=True)
class Prepared:
    """An input that is ready to be run.

    Attributes:
        what: was done to it.
        words: of the command line.
        name: by which a refusal has to call it, a pattern.
        reference: results of the good case beside it; None where there is none.
    """

    what: str
    words: list[str]
    name: str
    reference: dict[str, bytes] | None = None


@dataclass(frozen=True)
class Record:
    """One input and what became of it."""

    kind: str
    number: int
    what: str
    command: str
    verdict: str
    why: str
    seconds: float
    peak_mb: int

    @property
    def failed(self) -> bool:
        return self.verdict in FAILURES

    def to_json(self) -> dict:
        return asdict(self)


class Runs:
    """Runs inputs one after the other.

    Args:
        folder: to work in, emptied at first.
        root: of the bundle.
        seed: of all inputs.
        lenient: see `judge`.
        seconds, memory: limits of a run; bytes.
        keep: folder to which inputs that failed are copied.
    """

    def __init__(self, folder: Path, root: Path, seed: int = 0, lenient: bool = False, seconds: float = SECONDS,
                 memory: int = MEMORY, keep: Path | None = None) -> None:  # fmt: skip
        self.root, self.seed, self.lenient, self.keep = root, seed, lenient, keep
        self.limits = {"seconds": seconds, "memory": memory}
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "known").mkdir(parents=True)
        self.place = Place(folder / "place", root)
        self.known = Known(folder / "known", root, **self.limits)
        self.ours = sentences([root / "interslice", root / "scripts"])

    def run(self, kind: str, number: int) -> Record:
        """Make, run and judge input `number` of a kind."""
        rng = np.random.default_rng([self.seed, zlib.crc32(kind.encode()), number])
        prepare = {"options": self._options, "weights": self._weights}.get(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged numbers
            ready = self._beside(rng, KINDS[kind]) if prepare is None else prepare(rng)
        kept = None if self.keep is None else self._set_aside(kind, number)
        before = self.place.state()
        outcome = run_child(bundle_command(ready.words), self.place.here, **self.limits)
        found = self.place.examine(before, ready.reference, outcome.status)
        verdict, why = judge(outcome, found, ready.name, self.ours, self.lenient, **self.limits)
        command = "python -m monai.bundle " + shlex.join(ready.words)
        record = Record(kind, number, ready.what, command, verdict, why, round(outcome.seconds, 2), outcome.peak >> 20)
        if kept is not None:
            self._keep(kept, record, outcome)
        return record

    def _fill(self, template: Path | None, bad: int | None = None, name: str | None = None) -> None:
        """Put the good case, one that is to be damaged, good weights and older results into the place."""
        parts = [] if template is None else ["good", *([] if bad is None else [f"bad{bad}"])]
        inputs = [path for part in parts for path in sorted((template / part).iterdir())]
        self.place.fill(inputs, template and template / "old", name)
        copy(self.known.weights, self.place.here / "good.pt")

    def _beside(self, rng: np.random.Generator, kind: Kind) -> Prepared:
        """A damaged case beside a good one."""
        at, way = int(rng.integers(len(kind.bad))), pick(rng, kind.ways)
        name = kind.bad[at][0]
        self._fill(self.known.template(kind.configs, kind.ways[0], kind.good, kind.bad), at, name)
        what = f"{name}, {way}: {kind.damage(rng, self.place.inputs / name)}"
        return Prepared(what, words_of(kind.configs, way), BAD, self.known.alone(kind.configs, way, kind.good))

    def _weights(self, rng: np.random.Generator) -> Prepared:
        """Damaged weights for a good case."""
        self._fill(self.known.template((), "plain", SCAN))
        name, writer = pick(rng, WEIGHTS)
        writer(self.place.here / name, 0)
        what = damage_weights(rng, self.place.here / name)
        return Prepared(what, [*words_of(()), "--checkpoint", name], rf"{BAD}|\bcheckpoint\b")

    def _options(self, rng: np.random.Generator) -> Prepared:
        """An odd command line on a good case; of a training, on none, so that none begins."""
        line = damaged_command_line(rng, self.root)
        names = [line.name, re.split("#|::", line.name)[-1]]
        run, small = "inference", SMALL
        if line.data == "none":
            run = next(TRAINING[c] for c in reversed(line.configs) if c in TRAINING)
            small, names = ("--dataset_dir", "lost", "--output_dir", "out"), [*names, "lost"]
            self._fill(None)
        else:
            tasks = tuple(c for c in line.configs if c.startswith("task"))
            configs = (*tasks, "evaluate") if line.data == "truth" else tasks
            self._fill(self.known.template(configs, "plain", DATA[line.data]))
        words = ["run", run, "--config_file", configs_of(line.configs), *small, *line.words]
        return Prepared(str(line.words), words, rf"\b({'|'.join(map(re.escape, names))})\b")

    def _set_aside(self, kind: str, number: int) -> Path:
        """A copy of the inputs, before the run."""
        folder = self.keep / f"{kind}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self.place.here.iterdir():
            if not path.is_symlink() and path.name != "out":
                copy(path, folder / path.name)
        return folder

    def _keep(self, folder: Path, record: Record, outcome: Outcome) -> None:
        """Leave the inputs of a failure, what was said, and a line that makes it again."""
        if not record.failed:
            shutil.rmtree(folder)
            return
        (folder / "said.txt").write_text(outcome.text, encoding="utf-8")
        again = f"python -m scripts.fuzz --seed {self.seed} --kinds {record.kind} --only {record.number}"
        (folder / "again.txt").write_text(f"{again}\n{record.command}\n{record.what}\n{record.verdict}: {record.why}\n",
                                          encoding="utf-8")  # fmt: skip


def available() -> tuple[str, ...]:
    """Kinds that can be made here: ISMRMRD needs a package that the bundle itself does not."""
    try:
        import ismrmrd  # noqa: F401
    except ImportError:
        print("without ismrmrd, which is not installed", file=sys.stderr)
        return tuple(k for k in ALL if k != "ismrmrd")
    return ALL
