"""What it gains to follow noisy slices only as far as their noise allows, on people of the training side.

    python -m scripts.studies.tune_noise --archive_dir DIR

The crops of scripts/studies/tune_mri.py, with noise of each of LEVELS added to their thick slices, are sampled with the
exact data step and with `interslice.sampling.NoiseAware` for each of ERRORS, by the same draws. The level is estimated
from the slices, as in a run. Writes docs/tuning_noise.json: also the level that was added and the one that was found,
as shares of the intensity range. What is in the file already is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.report.evaluation import DATA_RANGE
from interslice.sampling.noise_aware import NoiseAware
from scripts.studies.tune_mri import BASE, PEOPLE, Prior, crop, found, judged, measured, read_record

LEVELS = (0.05, 0.02)
"""Shares of the volume's maximum, as `measurement_noise` counts."""
ERRORS = (0.2, 0.3, 0.4)
DRAWS = (2,)


def added(volume: torch.Tensor, noise: float, seed: int) -> float:
    """Standard deviation of the noise that `measured` adds, as a share of the intensity range of the noisy slices."""
    if not noise:
        return 0.0
    y, truth, operator = measured(volume, noise, seed)
    return float((y - operator.forward(truth)).std()) / DATA_RANGE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive_dir", type=Path, required=True, help="folder with the volumes of PEOPLE")
    parser.add_argument("--checkpoint", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--people", nargs="+", choices=PEOPLE, default=PEOPLE)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_noise.json"))
    args = parser.parse_args(argv)
    prior, record = Prior(args.checkpoint), read_record(args.output)
    record["setting"] = BASE
    done = {(r["person"], r["seed"], r["noise"], r["error"]) for r in record["runs"]}
    todo = [
        (person, seed, noise, error)
        for seed in range(args.seeds)
        for noise in LEVELS
        for error in (0.0, *ERRORS)
        for person in args.people
        if (person, seed, noise, error) not in done
    ]
    volumes = {person: crop(found(args.archive_dir, person)) for person in args.people}
    for person, seed, noise, error in tqdm(todo, desc="tuning", unit="run"):
        y, truth, operator = measured(volumes[person], noise, seed)
        level = operator.noise_deviation(y) / DATA_RANGE
        step = NoiseAware(level, error) if error else NoiseAware(0.0)
        draws = {
            str(count): judged(mean, truth, operator)
            for count, mean in prior.means(y, operator, BASE, seed, DRAWS, step)
        }
        levels = {"added": round(added(volumes[person], noise, seed), 4), "found": round(level, 4)}
        run = {"person": person, "seed": seed, "noise": noise, "error": error, **levels, "draws": draws}
        record["runs"].append(run)
        write_json(args.output, record)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("--output holds the runs that were done"):
        main()
