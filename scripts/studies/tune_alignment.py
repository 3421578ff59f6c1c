"""How well stacks are brought to each other, on people that no test looks at.

    python -m scripts.studies.tune_alignment --volumes FILES         docs/tuning_alignment.json

The middle of each volume at 1 mm, measured by an axial stack and a coronal one of 5 mm that was turned by up to 8
degrees about each axis and moved by up to 5 mm along it, with 2 percent of noise; the simulation interpolates by cubic
splines, the registration linearly. The middles of all heads lie in one place.

    errors    of the pose that was found: mean and largest distance of where it puts the volume's places from where they
              belong, mm, and the angle between the two, degrees; by the registration on the operator ("operator"), and
              by ITK's mutual information of the quick volume and the stack ("mutual information")
    people    the similarity (interslice/physics/stacks/similarity.py) that is reached with the same person's stack, and
              with the stack of each other person: the limit below which a stack is left out lies between
    slices    how many slices of whole stacks count less, of which none should, and the weight of one that lost 60
              percent of its signal
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.find import case_name
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.measurement import Measured, operator_of
from interslice.physics.mutual_information import register as by_mutual_information
from interslice.physics.stacks import ScaleStacksd, SimulateStacksd, Stacks
from interslice.physics.stacks.motion import angle_of
from interslice.physics.stacks.others import Others
from interslice.physics.stacks.outliers import slice_weights_of
from interslice.physics.stacks.register import register
from interslice.physics.stacks.stacked import StackedSlices
from scripts.studies.record import Record
from scripts.studies.tune_total_variation import middle

SIZE = (80, 80, 80)
NOISE = 0.02
TURN, SHIFT = 8.0, 5.0
SEEDS = (1, 2, 3)
LOST = 0.4
"""Share of the signal that is left of the bad slice."""


class Runs:
    """Runs of the study: what is measured, volume, and the rest of the key."""

    def __init__(self, files: dict[str, Path], size: tuple[int, ...]) -> None:
        self.files, self.size = files, size

    def stacks(self, name: str, seed: int) -> tuple[StackedSlices, torch.Tensor]:
        """The operator of the stacks as their headers place them, and the true pose (4, 4) of the second."""
        scanner = Stacks(turn=TURN, shift=SHIFT, motion_known=False, seed=seed)
        volume = middle(self.files[name], self.size)
        volume.meta["filename_or_obj"] = name
        middle_mm = volume.affine[:3, :3] @ (torch.tensor(volume.shape[1:], dtype=torch.float64) - 1) / 2
        volume.affine[:3, 3] = -middle_mm  # all heads lie in one place
        item = SimulateStacksd("image", scanner, NOISE, seed)({"image": volume})
        item = ScaleStacksd("image")(Measured("image", scanner)(item))
        return operator_of(item["image"]), scanner.for_volume(volume).stacks[1].poses[0]

    def run(self, key: tuple) -> dict:
        return getattr(self, key[0])(*key[1:])

    def errors(self, name: str, seed: int, method: str) -> dict:
        operator, true = self.stacks(name, seed)
        first, second = operator.stacks
        others, began = Others.of(operator, [first]), time.perf_counter()
        if method == "operator":
            pose = register(others, second).pose
        else:
            fixed = nib.Nifti1Image(others.x.numpy(), others.affine.numpy())
            found, _ = by_mutual_information(fixed, nib.Nifti1Image(second.voxels.numpy(), second.affine.numpy()))
            pose = torch.linalg.inv(torch.from_numpy(found))  # it maps the volume's places to the header's
        seconds = time.perf_counter() - began
        return errors_of(pose, true, operator) | {"seconds": round(seconds, 1)}

    def people(self, name: str, other: str) -> dict:
        (operator, _), (strange, _) = self.stacks(name, 1), self.stacks(other, 1)
        found = register(Others.of(operator, operator.stacks[:1]), strange.stacks[1])
        return {"similarity": round(found.similarity, 3), "overlap": round(found.overlap, 2)}

    def slices(self, name: str, seed: int) -> dict:
        operator, true = self.stacks(name, seed)
        first, second = operator.stacks
        second, lost = second.moved(poses=true.expand_as(second.poses)), second.count // 2
        voxels = second.voxels.clone()
        voxels[:, lost] = LOST * (voxels[:, lost] - operator.background) + operator.background
        bad = slice_weights_of(Others.of(operator, [first]), second.moved(voxels=voxels))
        weights = [slice_weights_of(Others.of(operator, [b]), a) for a, b in itertools.permutations((first, second))]
        return {
            "whole": sum(len(w) for w in weights),
            "whole_that_count_less": sum(int((w < 1).sum()) for w in weights),
            "lost": round(float(bad[lost]), 3),
        }


def errors_of(pose: torch.Tensor, true: torch.Tensor, operator: StackedSlices) -> dict:
    """Distances over a grid of places of the volume, and the angle."""
    index = torch.cartesian_prod(*[torch.linspace(0, n - 1, 5, dtype=torch.float64) for n in operator.domain_shape])
    places = index @ operator.affine[:3, :3].mT + operator.affine[:3, 3]
    apart = pose @ torch.linalg.inv(true)
    distances = (places @ apart[:3, :3].mT + apart[:3, 3] - places).norm(dim=1)
    return {
        "mm": round(float(distances.mean()), 3),
        "mm_largest": round(float(distances.max()), 3),
        "degrees": round(angle_of(apart), 3),
    }


def plan(names: list[str], seeds: list[int]):
    """Keys of all runs."""
    yield from itertools.product(["errors"], names, seeds, ["operator", "mutual information"])
    yield from itertools.product(["people"], names, names)
    yield from itertools.product(["slices"], names, seeds)


def summary(results: dict) -> dict:
    """Means of the errors of each method, and what similarities tell apart."""
    found: dict = {}
    for method in ("operator", "mutual information"):
        runs = [run[method] for seeds in results["errors"].values() for run in seeds.values()]
        found[method] = {
            "mm": round(float(np.mean([run["mm"] for run in runs])), 3),
            "mm_worst": max(run["mm"] for run in runs),
            "degrees": round(float(np.mean([run["degrees"] for run in runs])), 3),
            "degrees_worst": max(run["degrees"] for run in runs),
            "seconds": round(float(np.mean([run["seconds"] for run in runs])), 1),
        }
    pairs = [(a == b, pair["similarity"]) for a, row in results["people"].items() for b, pair in row.items()]
    slices = [run for seeds in results["slices"].values() for run in seeds.values()]
    return found | {
        "least_similarity_of_one_person": min(s for same, s in pairs if same),
        "largest_similarity_of_two": max((s for same, s in pairs if not same), default=None),
        "slices_of_whole_stacks": sum(run["whole"] for run in slices),
        "of_them_count_less": sum(run["whole_that_count_less"] for run in slices),
        "largest_weight_of_a_lost_slice": max(run["lost"] for run in slices),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--size", type=int, nargs=3, default=list(SIZE))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_alignment.json"))
    args = parser.parse_args(argv)
    files = {case_name(path): path for path in args.volumes}
    settings = {"size": args.size, "noise": NOISE, "turn_degrees": TURN, "shift_mm": SHIFT}
    record, runs = Record(args.output, settings), Runs(files, tuple(args.size))
    record.fill(plan(list(files), args.seeds), runs.run, "alignment")
    record.content["summary"] = summary(record.content["results"])
    write_json(args.output, record.content)
    print("\n".join(f"{what}: {said}" for what, said in record.content["summary"].items()))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
