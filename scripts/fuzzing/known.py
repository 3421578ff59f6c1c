"""What is known before an input is damaged: cases that are well, the results that they have alone, and older ones.

Made when first asked for, by runs of the bundle itself, in a place of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from scripts.fuzzing import scans
from scripts.fuzzing.child import bundle_command, run_child
from scripts.fuzzing.kinds import WAYS, Writer
from scripts.fuzzing.place import Place, contents, copy

SMALL = (
    "--dataset_dir", "in", "--output_dir", "out", "--checkpoint", "good.pt", "--device", "$torch.device('cpu')",
    "--num_steps", "1", "--num_draws", "1", "--report", "False", "--sampler#progress", "False",
)  # fmt: skip
EARLIER = ("--seed", "1", "--num_draws", "2")
"""Of the run whose results lie there before."""
Named = tuple[str, Writer]


def words_of(configs: Sequence[str], way: str = "plain") -> list[str]:
    """A small run of inference with more configs, in one of WAYS."""
    more, options = WAYS[way]
    return ["run", "inference", "--config_file", configs_of(("inference", *configs, *more)), *SMALL, *options]


def configs_of(names: Sequence[str]) -> str:
    """Configs as an option."""
    return str([f"configs/{name}.json" for name in names])


class Known:
    """Cases that are well.

    Args:
        folder: to work in; empty.
        root: of the bundle.
        limits: seconds and memory of a run.
    """

    def __init__(self, folder: Path, root: Path, **limits: float) -> None:
        self.folder, self.limits = folder, limits
        self.place = Place(folder / "place", root)
        self.weights = scans.write_weights(self._new() / "good.pt")
        self.template, self.alone = cache(self._template), cache(self._alone)

    def _new(self) -> Path:
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        return folder

    def _template(self, configs: tuple[str, ...], way: str, good: Named, bad: tuple[Named, ...] = ()) -> Path:
        """A folder with good/, bad0/, bad1/, ... as they were written, and old/, results of an earlier run."""
        folder = self._new()
        for part, seed, (name, writer) in (("good", 0, good), *((f"bad{n}", 3, one) for n, one in enumerate(bad))):
            (folder / part).mkdir()
            if "." not in name:
                (folder / part / name).mkdir()
            writer(folder / part / name, seed)
        parts = ["good", "bad0"] if bad else ["good"]
        self._run(configs, way, [p for part in parts for p in sorted((folder / part).iterdir())], EARLIER)
        copy(self.place.results, folder / "old")
        return folder

    def _alone(self, configs: tuple[str, ...], way: str, good: Named) -> dict[str, bytes]:
        """The results of the good case alone."""
        folder = self._new()
        good[1](folder / good[0], 0)
        self._run(configs, way, sorted(folder.iterdir()))
        return contents(self.place.results)

    def _run(self, configs: tuple[str, ...], way: str, inputs: Sequence[Path], more: Sequence[str] = ()) -> None:
        """RuntimeError if what is well is not taken: then nothing can be told of what is damaged."""
        self.place.fill(inputs)
        copy(self.weights, self.place.here / "good.pt")
        words = [*words_of(configs, way), *more]
        outcome = run_child(bundle_command(words), self.place.here, **self.limits)
        if outcome.status != 0:
            raise RuntimeError(f"an input that is well was not taken: {shlex.join(words)}\n{outcome.text[-3000:]}")
