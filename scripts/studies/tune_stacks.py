"""Tune the reconstruction of several stacks, on people that no test looks at.

    python -m scripts.studies.tune_stacks --volumes FILES         docs/tuning_stacks.json

The middle of each volume at 1 mm, measured by an axial and a coronal stack of 5 mm that lie as the header says. By PSNR
in the mean over volumes and levels of noise: the weight of total variation over the noise that was found
(`TotalVariationByNoise`), then with it as the start the `error` of the data step (`NoiseAware`), where to start and how
many steps to take. Each is printed as it is found, and the best of all is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from bundle.files.find import case_name
from bundle.files.last_words import plain_endings
from bundle.files.whole import written_whole
from bundle.files.write import write_json
from bundle.physics.baselines import TotalVariationByNoise
from bundle.prior.diffusion import time_steps
from bundle.report.evaluation import DATA_RANGE
from bundle.report.metrics import psnr
from bundle.sampling import NoiseAware
from scripts.studies.bench import Bench
from scripts.studies.record import Record
from scripts.studies.tune_total_variation import middle

SIZE = (64, 64, 64)
NOISES = (0.02, 0.01)
MULTIPLES = (0.2, 0.35, 0.5)
ERRORS = (0.1, 0.15, 0.2, 0.3)
STARTS = ((0.02, 3), (0.05, 5), (0.2, 10), (0.4, 10))
"""Share of the schedule, and steps from there."""


class People:
    """Runs of the study: volume, noise, what is tuned, its value."""

    def __init__(self, files: dict[str, Path], size: tuple[int, ...], work_dir: Path, ids: dict) -> None:
        self.files, self.size, self.work_dir, self.ids = files, size, work_dir, ids
        self.kept: tuple = (None, None)

    def bench(self, name: str, noise: float) -> Bench:
        """The simulated measurement; the last one is kept."""
        if self.kept[0] != (name, noise):
            path = self.work_dir / f"{name}.nii.gz"
            if not path.exists():
                self.work_dir.mkdir(parents=True, exist_ok=True)
                volume = middle(self.files[name], self.size)
                with written_whole(path) as partial:
                    nib.save(nib.Nifti1Image(volume[0].numpy(), volume.affine.numpy()), partial)
            self.kept = (
                (name, noise),
                Bench(
                    ["task_stacks"], path, measurement_noise=noise, rounds=0, outliers=False, report=False, **self.ids
                ),
            )
        return self.kept[1]

    def run(self, key: tuple) -> dict:
        """PSNR of one setting."""
        name, noise, what, value = key
        bench = self.bench(name, noise)
        y, operator = bench.image.as_tensor()[0], bench.operator
        if what == "total_variation":
            x = TotalVariationByNoise(per_noise=float(value))(y, operator)
        else:
            error, start, steps = (float(v) for v in value.split(", "))
            sampler = bench.inferer
            sampler.data_consistency = NoiseAware(error=error, matters=0.0)
            sampler.timesteps = time_steps(len(sampler.alpha_bars), int(steps), start)
            sampler.num_steps, sampler.start_fraction = int(steps), start
            x = bench.sample()
        return {"psnr": round(psnr(x, bench.truth, DATA_RANGE), 3)}


def plan(names: list[str], noises: list[float]):
    """Keys of all runs."""
    for noise in noises:
        for name in names:
            yield from ((name, noise, "total_variation", multiple) for multiple in MULTIPLES)
            yield from (
                (name, noise, "sampler", f"{error}, {start}, {steps}") for error in ERRORS for start, steps in STARTS
            )


def best(record: Record) -> dict:
    """Of each kind the value with the highest mean PSNR, those means, and the sampler's lead over total variation."""
    found: dict = {}
    runs = [kinds for noises in record.content["results"].values() for kinds in noises.values()]
    for what in ("total_variation", "sampler"):
        means = {v: float(np.mean([run[what][v]["psnr"] for run in runs])) for v in runs[0][what]}
        found[what] = {"chosen": max(means, key=means.get), "mean_psnr": {v: round(m, 3) for v, m in means.items()}}
    leads = [max(r["psnr"] for r in run["total_variation"].values()) for run in runs]
    chosen = found["sampler"]["chosen"]
    found["lead"] = [round(run["sampler"][chosen]["psnr"] - lead, 3) for run, lead in zip(runs, leads)]
    return found


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--noises", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--size", type=int, nargs=3, default=list(SIZE))
    parser.add_argument("--work_dir", type=Path, default=Path("runs/tune_stacks"))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_stacks.json"))
    args = parser.parse_args(argv)
    files = {case_name(path): path for path in args.volumes}
    record = Record(args.output, {"size": args.size})
    runs = People(files, tuple(args.size), args.work_dir, others)
    record.fill(plan(list(files), args.noises), runs.run, "stacks")
    chosen = record.content["best"] = best(record)
    write_json(args.output, record.content)
    print("\n".join(f"{what}: {chosen[what]['chosen']}" for what in ("total_variation", "sampler")))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
