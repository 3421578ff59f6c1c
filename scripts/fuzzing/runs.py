"""Inputs by number: each is made, run and judged, and is the same whenever its kind, seed and number are."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from scripts.fuzzing import scans
from scripts.fuzzing.child import MEMORY, SECONDS, Outcome, bundle_command, run_child
from scripts.fuzzing.damage.odd import pick
from scripts.fuzzing.damage.options import damaged_command_line
from scripts.fuzzing.damage.weights import damage_weights
from scripts.fuzzing.judge import ACCEPTED, PLAIN, judge
from scripts.fuzzing.kinds import ALL, KINDS, KSPACE, PROJECTIONS, SCAN, WAYS, WEIGHTS, Kind
from scripts.fuzzing.place import Place, contents, copy
from scripts.fuzzing.words import sentences

SMALL = (
    "--dataset_dir", "in", "--output_dir", "out", "--checkpoint", "good.pt", "--device", "$torch.device('cpu')",
    "--num_steps", "1", "--num_draws", "1", "--report", "False", "--sampler#progress", "False",
)  # fmt: skip
EARLIER = ("--seed", "1", "--num_draws", "2")
"""Of the run whose results lie there before."""
DATA = {
    "scan": SCAN, "projections": PROJECTIONS, "kspace": KSPACE, "truth": ("good.nii.gz", scans.write_truth),
}  # fmt: skip
TRAINING = {"train": "training", "adapt": "adaptation"}


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
        return self.verdict not in (PLAIN, ACCEPTED)

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
        self.place = Place(folder / "place", root)
        self.made = folder / "made"
        shutil.rmtree(self.made, ignore_errors=True)
        self.ours = sentences([root / "bundle", root / "scripts"])
        self.weights = scans.write_weights(self.made_folder("weights") / "good.pt")
        self.template, self.reference = cache(self._template), cache(self._reference)

    def made_folder(self, *names: str) -> Path:
        folder = self.made.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, kind: str, number: int) -> Record:
        """Make, run and judge input `number` of a kind."""
        rng = np.random.default_rng([self.seed, zlib.crc32(kind.encode()), number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged numbers
            if kind == "options":
                what, words, name, reference = self._options(rng)
            elif kind == "weights":
                what, words, name, reference = self._weights(rng)
            else:
                what, words, name, reference = self._beside(rng, KINDS[kind])
        kept = None if self.keep is None else self._set_aside(kind, number)
        before = self.place.state()
        outcome = self._start(words)
        found = self.place.examine(before, reference, outcome.status)
        verdict, why = judge(outcome, found, name, self.ours, self.lenient, **self.limits)
        command = "python -m monai.bundle " + shlex.join(words)
        record = Record(kind, number, what, command, verdict, why, round(outcome.seconds, 2), outcome.peak >> 20)
        if kept is not None:
            self._keep(kept, record, outcome)
        return record

    def _beside(self, rng: np.random.Generator, kind: Kind):
        """A damaged case beside a good one."""
        at, way = int(rng.integers(len(kind.bad))), pick(rng, kind.ways)
        template = self.template(kind.configs, kind.good, kind.bad)
        name = kind.bad[at][0]
        self.place.fill([*sorted((template / "good").iterdir()), *sorted((template / f"bad{at}").iterdir())],
                        template / "old", name)  # fmt: skip
        copy(self.weights, self.place.here / "good.pt")
        what = f"{name}, {way}: {kind.damage(rng, self.place.inputs / name)}"
        reference = self.reference(kind.configs, kind.good, way)
        return what, self._words(kind.configs, way), r"\bbad\b", reference

    def _weights(self, rng: np.random.Generator):
        """Damaged weights for a good case."""
        template = self.template((), SCAN, ())
        self.place.fill(sorted((template / "good").iterdir()), template / "old")
        name, writer = pick(rng, WEIGHTS)
        writer(self.place.here / name, 0)
        what = damage_weights(rng, self.place.here / name)
        return what, [*self._words(()), "--checkpoint", name], r"\bbad\b", None

    def _options(self, rng: np.random.Generator):
        """An odd command line on a good case."""
        line = damaged_command_line(rng, self.root)
        copied = self.weights
        if line.data == "none":
            self.place.fill([])
            run = next(TRAINING[c] for c in reversed(line.configs) if c in TRAINING)
            words = [
                "run",
                run,
                "--config_file",
                configs_of(line.configs),
                "--dataset_dir",
                "lost",
                "--output_dir",
                "out",
            ]
        else:
            template = self.template(tuple(c for c in line.configs if c.startswith("task")), DATA[line.data], ())
            self.place.fill(sorted((template / "good").iterdir()), template / "old")
            words = ["run", "inference", "--config_file", configs_of(line.configs), *SMALL]
        copy(copied, self.place.here / "good.pt")
        last = re.split("#|::", line.name)[-1]
        name = (
            rf"\b({re.escape(line.name)}|{re.escape(last)}|lost)\b"
            if line.data == "none"
            else rf"\b{re.escape(last)}\b"
        )
        return f"{line.words}", [*words, *line.words], name, None

    def _words(self, configs: Sequence[str], way: str = "plain") -> list[str]:
        more, options = WAYS[way]
        return ["run", "inference", "--config_file", configs_of(("inference", *configs, *more)), *SMALL, *options]

    def _template(self, configs: tuple[str, ...], good: tuple, bad: tuple) -> Path:
        """A folder with the good case, the others as they were written, and the results of an earlier run of them."""
        folder = self.made_folder(f"template{len(list(self.made.iterdir()))}")
        good[1](self.made_folder(folder.name, "good") / good[0], 0)
        for n, (name, writer) in enumerate(bad):
            beside = self.made_folder(folder.name, f"bad{n}")
            if "." not in name:
                (beside / name).mkdir()
            writer(beside / name, 3)
        truth = good[1] is scans.write_truth
        way = "evaluate" if truth and not configs else "plain"
        first = sorted((folder / "bad0").iterdir()) if bad else []
        self.place.fill([*sorted((folder / "good").iterdir()), *first])
        words = [*self._words((*configs, "evaluate") if truth else configs, way if not truth else "plain"), *EARLIER]
        self._run_well([*words, *WAYS["torch"][1]] if "task_svct" in configs and bad else words)
        copy(self.place.results, folder / "old")
        return folder

    def _reference(self, configs: tuple[str, ...], good: tuple, way: str) -> dict[str, bytes]:
        """The results of the good case alone."""
        folder = self.made_folder(f"alone{len(list(self.made.iterdir()))}")
        good[1](folder / good[0], 0)
        inputs, results = self.place.inputs, self.place.results
        aside = self.place.here.with_name("aside")
        self.place.here.rename(aside)  # the damaged case is made already
        try:
            self.place.here.mkdir()
            for link in (p for p in aside.iterdir() if p.is_symlink()):
                link.rename(self.place.here / link.name)
            self.place.inputs.mkdir()
            for path in folder.iterdir():
                copy(path, inputs / path.name)
            self._run_well(self._words(configs, way))
            return contents(results)
        finally:
            for link in (p for p in self.place.here.iterdir() if p.is_symlink()):
                link.rename(aside / link.name)
            shutil.rmtree(self.place.here)
            aside.rename(self.place.here)

    def _run_well(self, words: Sequence[str]) -> None:
        copy(self.weights, self.place.here / "good.pt")
        outcome = self._start(words)
        if outcome.status != 0:
            raise RuntimeError(f"an input that is well was not taken: {shlex.join(words)}\n{outcome.text[-3000:]}")

    def _start(self, words: Sequence[str]) -> Outcome:
        return run_child(bundle_command(words), self.place.here, **self.limits)

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


def configs_of(names: Sequence[str]) -> str:
    """Configs as an option."""
    return str([f"configs/{name}.json" for name in names])


def available() -> tuple[str, ...]:
    """Kinds that can be made here: ISMRMRD needs a package that the bundle itself does not."""
    try:
        import ismrmrd  # noqa: F401
    except ImportError:
        print("without ismrmrd, which is not installed", file=sys.stderr)
        return tuple(k for k in ALL if k != "ismrmrd")
    return ALL
