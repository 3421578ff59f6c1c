"""Simulated scans of the shown people: every prior against interpolation, for slices of 3, 5 and 8 mm.

    python -m scripts.studies.people --data_dir FOLDER                    docs/people.json, whole volumes
    python -m scripts.studies.people --data_dir FOLDER --crop             the middle of each alone: much quicker
    python -m scripts.studies.people --data_dir FOLDER --priors "0.4.0=old.pt" "large=models/large/model.pt"
    python -m scripts.studies.people --data_dir FOLDER --adapt            and each prior adapted to each thick scan
    python -m scripts.studies.people --data_dir FOLDER --ids num_steps=6 start_fraction=0.4

Settings are those of configs/inference.json, unless --ids says otherwise; a seed is the key of the sampling noise.
Every baseline of the configs is measured once. Adapting (configs/adapt.json) sees the simulated thick scan alone; it
takes the scale of the scan that it is given and is therefore for whole volumes. The JSON grows run by run, and the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.physics.thick import ThroughPlaneSampling
from scripts.studies.bench import Bench, baseline_names, defaults
from scripts.studies.record import Record, sha256
from scripts.studies.shown import CROP, PEOPLE, find_people, prepare

THICKNESSES = (5.0, 3.0, 8.0)
"""In mm."""
ADAPTED = ", adapted"


def measured(volume: Path, ratio: float, target: Path) -> Path:
    """Write the thick scan of a volume to `target`, unless it is there."""
    if not target.exists():
        image = nib.load(volume)
        operator = ThroughPlaneSampling(axis=2, ratio=ratio).for_grid(image.shape, image.header.get_zooms())
        truth = torch.from_numpy(np.asarray(image.dataobj, np.float32))[..., : operator.domain_shape[2]]
        affine = operator.range_affine(torch.from_numpy(image.affine)).numpy()
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as partial:
            nib.save(nib.Nifti1Image(operator.forward(truth).numpy(), affine), partial)
    return target


def adapt(scan: Path, checkpoint: str, folder: Path, **others) -> Path:
    """The weights that configs/adapt.json makes of a thick scan, unless they are there."""
    name = scan.name.removesuffix(".gz").removesuffix(".nii")
    weights = folder / name / f"{name}_prior.pt"
    if not weights.exists():
        workflow = ConfigWorkflow(
            ["configs/train.json", "configs/adapt.json"], workflow_type="training", logging_file=False,
            dataset_dir=str(scan), output_dir=str(folder), checkpoint=checkpoint, **others,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return weights


class Scans:
    """Runs of the study: thickness, person, method, seed."""

    def __init__(self, files: dict[str, Path], size, priors: dict[str, str], work_dir: Path, ids: dict,
                 adapting: dict) -> None:  # fmt: skip
        self.files, self.size, self.priors, self.work_dir = files, size, priors, work_dir
        self.ids, self.adapting = ids, adapting
        self.bench = lru_cache(maxsize=1)(self._bench)

    def _bench(self, thickness: float, person: str, method: str) -> Bench:
        path, scale = prepare(self.files[person], person, PEOPLE[person].brain_only, self.size, self.work_dir)
        ratio = thickness / float(nib.load(path).header.get_zooms()[2])
        name = method.removesuffix(ADAPTED)
        checkpoint = self.priors[name]
        if name != method:
            scan = measured(path, ratio, self.work_dir / "thick" / f"{person}_{thickness:g}mm.nii.gz")
            checkpoint = str(adapt(scan, checkpoint, self.work_dir / "adapted" / name, **self.adapting))
        ids = {"checkpoint": checkpoint, "displayable_configs#ratio": ratio, "report": False}
        return Bench([], path, **scale, **ids, **self.ids)

    def run(self, key: tuple) -> dict:
        """Metrics of one result."""
        thickness, person, method, seed = key
        if method in baseline_names():
            bench = self.bench(thickness, person, next(iter(self.priors)))
            return bench.measure(bench.reconstruct(method))
        bench = self.bench(thickness, person, method)
        return bench.measure(bench.sample(seed=seed))


def plan(people: list[str], thicknesses: list[float], methods: list[str], seeds: int):
    """Keys of all runs; one thickness after the other, seed after seed."""
    for thickness in thicknesses:
        yield from ((thickness, person, name, 0) for person in people for name in baseline_names())
        for seed in range(seeds):
            yield from ((thickness, person, method, seed) for method in methods for person in people)


def pairs_of(words: list[str]) -> dict[str, str]:
    """NAME=VALUE words as a dictionary."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (_, sign, value) in zip(words, pairs) if not (sign and value)]:
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {wrong[0]}")
    return {name: value for name, _, value in pairs}


def value_of(word: str):
    """A number, list or word as it stands in a config."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        return word


def priors_and_ids(args: argparse.Namespace, parser: argparse.ArgumentParser
                   ) -> tuple[dict[str, str], dict, dict[str, str]]:  # fmt: skip
    """What --priors and --ids name: files, values, and the SHA-256 of each file."""
    try:
        priors, words = pairs_of(args.priors), pairs_of(args.ids)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    digests = {name: sha256(Path(path)) for name, path in priors.items()}
    return priors, {name: value_of(word) for name, word in words.items()}, digests


def main(argv: list[str] | None = None, adapting: dict | None = None, **others) -> None:
    """`adapting` and `others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the volumes of the shown people")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE), choices=list(PEOPLE))
    parser.add_argument("--thicknesses", type=float, nargs="+", default=list(THICKNESSES), help="of slices, in mm")
    parser.add_argument("--priors", nargs="+", default=["shipped=models/model.pt"], metavar="NAME=FILE")
    parser.add_argument("--adapt", action="store_true", help="also adapt each prior to each scan")
    parser.add_argument("--ids", nargs="+", default=[], metavar="ID=VALUE", help="other ids of configs/inference.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--crop", type=int, nargs="*", metavar="N", help=f"the middle alone, of {CROP} voxels")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/people"))
    parser.add_argument("--output", type=Path, default=Path("docs/people.json"))
    args = parser.parse_args(argv)
    priors, ids, digests = priors_and_ids(args, parser)
    size = None if args.crop is None else tuple(args.crop) or CROP
    if args.adapt and size:
        parser.error("--adapt takes the intensity scale of the scan that it is given: leave out --crop")
    files = find_people(args.data_dir, args.people)
    methods = [name + end for name in priors for end in ("", ADAPTED)[: 1 + args.adapt]]
    scans = Scans(files, size, priors, args.work_dir, ids | others, adapting or {})
    record = Record(args.output, {"size": size, "ids": ids, "defaults": defaults()}, digests)
    record.fill(plan(args.people, args.thicknesses, methods, args.seeds), scans.run, "people")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
