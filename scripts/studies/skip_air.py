"""What the network need not see: whole heads with and without boxes around the subject (interslice.sampling.subject).

    python -m scripts.studies.skip_air --data_dir FOLDER          docs/skip_air.json; preset fast, bfloat16

The whole heads of people who are shown, which trained nothing, in slices of 5 mm. The subject, of which there is a PSNR
of its own, is where the truth is no air. Seconds are those of the processor, in one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from interslice.files.last_words import plain_endings
from interslice.report.evaluation import DATA_RANGE
from interslice.sampling import SubjectBoxes
from scripts.studies.bench import Bench
from scripts.studies.precision import psnr
from scripts.studies.record import Record, sha256
from scripts.studies.shown import PEOPLE, find_people

AIR = -0.8
"""Of the prior's range; the truth is subject above it."""


def run(volume: Path, others: dict) -> dict:
    """By whether air is skipped: PSNR of all and of the subject, SSIM, seconds; and how far apart the results are."""
    found, volumes = {}, {}
    for skip in (False, True):
        bench = Bench([], volume, **{"skip_air": skip, "report": False} | others)
        begin = time.process_time()
        x = volumes[skip] = bench.sample()
        seconds = time.process_time() - begin
        subject = bench.truth > AIR
        found["with" if skip else "without"] = {
            "psnr": psnr(x, bench.truth),
            "psnr_subject": psnr(x[subject], bench.truth[subject]),
            "ssim": bench.measure(x)["ssim"],
            "seconds": seconds,
        }
    found["with"]["to_without"] = psnr(volumes[True], volumes[False])
    return {name: {k: float(f"{v:.5g}") for k, v in part.items()} for name, part in found.items()}


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the volumes of the shown people")
    parser.add_argument("--people", nargs="+", default=["colin27", "t1_stroke"], choices=PEOPLE)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--output", type=Path, default=Path("docs/skip_air.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    people = find_people(args.data_dir, args.people)
    ids = {"preset": args.preset, "precision": args.precision}
    record = Record(args.output, ids | {"range": DATA_RANGE}, {name: sha256(path) for name, path in people.items()})
    margin = SubjectBoxes().margin
    record.fill([(name, f"margin {margin}") for name in people], lambda key: run(people[key[0]], ids | others), "heads")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
