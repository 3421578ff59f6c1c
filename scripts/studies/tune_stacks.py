"""Tune the reconstruction of several stacks, on people that no test looks at.

    python -m scripts.studies.tune_stacks --volumes FILES         docs/tuning_stacks.json

The middle of each volume, scanned as in scripts/studies/stacks.py by an axial and a coronal stack that moved between,
and aligned from the files. By PSNR in the mean over volumes: the weight of total variation over the noise that was
found (`TotalVariationByNoise`), and with the shipped one as the start the `error` of the data step (`NoiseAware`),
where to start and how many steps to take.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from interslice.files.find import case_name
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.baselines import TotalVariationByNoise
from interslice.prior.diffusion import time_steps
from interslice.sampling import NoiseAware
from scripts.studies.record import Record
from scripts.studies.stacks import Heads

SIZE = (72, 72, 72)
CASE = "two"
MULTIPLES = (0.2, 0.35, 0.5)
ERRORS = (0.05, 0.1, 0.2)
STARTS = ((0.02, 3), (0.05, 5), (0.2, 10))
"""Share of the schedule, and steps from there."""


def run_of(heads: Heads, key: tuple) -> dict:
    """PSNR of one setting: person, what is tuned, its value."""
    person, what, value = key
    bench = heads.bench(person, CASE)
    if what == "total_variation":
        x = TotalVariationByNoise(per_noise=float(value))(bench.image.as_tensor()[0], bench.operator)
    else:
        error, start, steps = (float(v) for v in value.split(", "))
        sampler = bench.inferer
        sampler.data_consistency = NoiseAware(error=error, matters=0.0)
        sampler.timesteps = time_steps(len(sampler.alpha_bars), int(steps), start)
        sampler.num_steps, sampler.start_fraction = int(steps), start
        x = bench.sample()
    return {"psnr": heads.compared(person, bench, x)["psnr"]}


def plan(people: list[str]):
    """Keys of all runs."""
    for person in people:
        yield from ((person, "total_variation", multiple) for multiple in MULTIPLES)
        yield from ((person, "sampler", f"{error}, {start}, {steps}") for error in ERRORS for start, steps in STARTS)


def best(record: Record) -> dict:
    """Of each kind the value with the highest mean PSNR, those means, and the sampler's lead over total variation."""
    found: dict = {}
    runs = list(record.content["results"].values())
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
    parser.add_argument("--size", type=int, nargs=3, default=list(SIZE))
    parser.add_argument("--work_dir", type=Path, default=Path("runs/tune_stacks"))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_stacks.json"))
    args = parser.parse_args(argv)
    files = {case_name(path): path for path in args.volumes}
    record = Record(args.output, {"size": args.size})
    heads = Heads(files, tuple(args.size), args.work_dir, others, order=files)
    record.fill(plan(list(files)), partial(run_of, heads), "stacks")
    chosen = record.content["best"] = best(record)
    write_json(args.output, record.content)
    print("\n".join(f"{what}: {chosen[what]['chosen']}" for what in ("total_variation", "sampler")))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
