"""Choices about guides, made on synthetic heads in several contrasts, and on people that no test looks at.

    python -m scripts.studies.tune_guide --data_dir data --people FILES       write docs/tuning_guide.json

`--data_dir` is what scripts.prepare_data wrote; heads are drawn of seeds that no prior was trained on. Tried are

    edge      EDGE of interslice/physics/variation.py: PSNR of guided total variation, slices of 5 mm
    steps     start_fraction and num_steps with a guide (`with_guide` of configs/inference.json): PSNR of the diffusion
    error     `data_consistency#error` with a guide: PSNR of the diffusion, slices with noise
    shared    SHARED of interslice/physics/guide.py: edges that two contrasts of one head share, and that two heads, or
              two of the people, share after registration
"""

from __future__ import annotations

import argparse
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from interslice.files.last_words import plain_endings
from interslice.noise import named_noise
from interslice.physics.baselines import ConsistentTotalVariation, Interpolation
from interslice.physics.guide import pose_of
from interslice.physics.intensity import intensity_range
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.thick import ThroughPlaneSampling
from interslice.physics.total_variation import minimise_with_proximal_step
from interslice.physics.variation import Variation
from interslice.prior import SlicePrior
from interslice.prior.network import network_for
from interslice.prior.weights import Weights, load_weights, scheduler_for
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import psnr
from interslice.sampling import DiffusionInverseInferer, NoiseAware
from scripts.prepare_data import head_synthesiser
from scripts.studies.record import Record, sha256
from scripts.studies.shown import middle
from scripts.studies.tables import fill, table

SEEDS = (2001, 2002)
PAIRS = (("T2", "T1"), ("FLAIR", "T1"), ("T1", "T2"))
"""Scan, guide."""
SIZE = (64, 64, 60)
"""Voxels of 1 mm of each head's middle, for all but the edges that are shared."""
EDGES = (0.03, 0.05, 0.1, 0.2, 0.3)
STEPS = ((0.01, 1), (0.02, 1), (0.02, 2), (0.02, 5), (0.05, 1), (0.05, 5), (0.2, 10))
"""start_fraction and num_steps; two draws."""

ERRORS, NOISES = (0.05, 0.1, 0.15, 0.3), (0.03, 0.06)
"""Prior's units; shares of the intensity range."""


def in_range(image: nib.Nifti1Image) -> MetaTensor:
    """(1, X, Y, Z) in RAS+, in a range of 2, as a guide is read."""
    image = nib.as_closest_canonical(image)
    voxels = torch.from_numpy(np.ascontiguousarray(np.asarray(image.dataobj, np.float32)))
    lower, upper = intensity_range(voxels)
    return MetaTensor((voxels[None] - lower) * (2 / (upper - lower)) - 1, affine=torch.from_numpy(image.affine))


def thick(volume: MetaTensor) -> tuple[torch.Tensor, LinearOperator, torch.Tensor]:
    """Measurement, operator and truth."""
    operator = ThroughPlaneSampling(axis=2).for_grid(tuple(volume.shape[1:]), tuple(volume.pixdim.tolist()))
    truth = volume.as_tensor()[0][tuple(slice(0, n) for n in operator.domain_shape)].contiguous()
    return operator.forward(truth), operator, truth


class Tuning:
    """Runs of the study: kind and what it is of."""

    def __init__(self, data_dir: Path, people: list[Path], checkpoint: str) -> None:
        self.synthesise, self.affine = head_synthesiser(data_dir)
        self.people = {path.name.split(".")[0]: path for path in people}
        weights = Weights(path=checkpoint, kind="percentiles")
        self.network = load_weights(network_for(weights=weights), checkpoint).eval()
        self.prior = SlicePrior(scheduler_for(weights).alphas_cumprod, multiple=self.network.multiple)
        self._heads: dict[int, dict[str, MetaTensor]] = {}

    def head(self, seed: int) -> dict[str, MetaTensor]:
        """Scans of a head by contrast."""
        if seed not in self._heads:
            names = sorted({name for pair in PAIRS for name in pair})
            scans, _ = self.synthesise.contrasts(seed, names)
            images = (nib.Nifti1Image(scan.numpy(), self.affine) for scan in scans)
            self._heads[seed] = {name: in_range(image) for name, image in zip(names, images, strict=True)}
        return self._heads[seed]

    def part(self, seed: int, pair: tuple[str, str]) -> tuple[torch.Tensor, LinearOperator, torch.Tensor]:
        """Measurement of the middle, its operator with the guide, and the truth."""
        scan, guide = (self.head(seed)[name][:, *middle(self.synthesise.shape, SIZE)] for name in pair)
        y, operator, truth = thick(scan)
        return y, operator.with_guide(guide.as_tensor()[0].contiguous()), truth

    def run(self, key: tuple) -> dict:
        kind, name, pair = key
        if kind == "shared":
            return self.shared(name, pair)
        y, operator, truth = self.part(int(name), tuple(pair.split(" by ")))

        def score(x: torch.Tensor) -> float:
            return round(float(psnr(x, truth, DATA_RANGE)), 3)

        if kind == "error":
            start, found = ConsistentTotalVariation(noise="auto"), {str(error): [] for error in ERRORS}
            for noise in NOISES:
                draw = torch.Generator().manual_seed(0)
                noisy = y + DATA_RANGE * noise * torch.randn(y.shape, generator=draw)
                for error in ERRORS:
                    found[str(error)].append(
                        score(self.sample(noisy, operator, start, 0.01, 1, NoiseAware(error=error)))
                    )
            return {what: round(float(np.mean(scores)), 3) for what, scores in found.items()}
        if kind == "edge":
            start, plain = operator.linear_reconstruction(y), operator.with_guide(None)
            found = {"cubic_consistent": Interpolation(3, True)(y, operator)}
            found["total_variation"] = ConsistentTotalVariation()(y, plain)
            for edge in EDGES:
                variation = Variation(operator.gains, operator.guide, edge)
                found[str(edge)] = minimise_with_proximal_step(
                    lambda z, t: operator.pseudo_inverse(y, z), start, 100, variation=variation
                )
            return {what: score(x) for what, x in found.items()}
        found = {"without a guide": self.sample(y, operator.with_guide(None), Interpolation(3, True), 0.2, 10)}
        found |= {f"{f} {n}": self.sample(y, operator, ConsistentTotalVariation(), f, n) for f, n in STEPS}
        return {what: score(x) for what, x in found.items()}

    def sample(self, y: torch.Tensor, operator: LinearOperator, start, fraction: float, steps: int,
               data_step: NoiseAware | None = None) -> torch.Tensor:  # fmt: skip
        """The diffusion's result, mean of two draws."""
        measurement = MetaTensor(y[None, None], affine=torch.eye(4, dtype=torch.float64))
        measurement.meta["operator"] = operator
        inferer = DiffusionInverseInferer(
            self.prior, data_step or NoiseAware(), named_noise("slerp"), steps, fraction, start=start, progress=False
        )
        return inferer(measurement, self.network).as_tensor()[0, 0]

    def shared(self, name: str, pair: str) -> dict:
        """What two scans share, in the place where they share most."""
        scan, guide = (self.scan(what) for what in pair.split(" by "))
        y, operator, _ = thick(scan)
        pose = pose_of(guide, y, operator, scan.affine.numpy(), registered=True)
        return {"shared": round(pose.shared, 4), "covered": round(pose.covered, 4)}

    def scan(self, what: str) -> MetaTensor:
        """A person's, or that of a head, "2001 T1"."""
        if what in self.people:
            return in_range(nib.load(self.people[what]))
        seed, contrast = what.split()
        return self.head(int(seed))[contrast]


def plan(people: list[str], seeds: list[int]):
    """Keys of all runs: kind, head or kind of pair, pair."""
    for kind in ("edge", "steps"):
        yield from ((kind, seed, " by ".join(pair)) for seed in seeds for pair in PAIRS)
    yield from (("shared", "one head", f"{seed} {a} by {seed} {b}") for seed in seeds for a, b in PAIRS)
    two = list(permutations(seeds, 2))
    yield from (("shared", "two heads", f"{s} {a} by {t} {b}") for (s, t), (a, b) in zip(two, PAIRS * len(two)))
    yield from (("shared", "two people", " by ".join(pair)) for pair in permutations(people, 2))
    yield from (("error", seed, " by ".join(pair)) for seed in seeds for pair in PAIRS)


def chosen(results: dict) -> dict:
    """Means of what was tried, the best, and the ends of what is shared."""
    found: dict = {}
    for kind in ("edge", "steps", "error"):
        runs = [run for pairs in results.get(kind, {}).values() for run in pairs.values()]
        if runs:
            found[kind] = {what: round(float(np.mean([run[what] for run in runs])), 3) for what in runs[0]}
            tried = {what: value for what, value in found[kind].items() if what[0].isdigit()}
            found[f"best {kind}"] = max(tried, key=tried.get)
    for what, pairs in results.get("shared", {}).items():
        values = [run["shared"] for run in pairs.values()]
        found[f"shared by {what}"] = {"least": min(values), "most": max(values), "pairs": len(values)}
    return found


def choices_text(record: dict) -> str:
    """Tables of what was tried, in the mean, and of what is shared."""
    found = record["results"]["chosen"]
    size = " x ".join(map(str, record["settings"]["size"]))
    parts = [
        f"Synthetic heads, the middle {size} voxels of 1 mm, slices of 5 mm; made by `scripts.studies.tune_guide`."
    ]
    for kind, head in (
        ("edge", "EDGE, guided total variation"),
        ("steps", "start_fraction and num_steps, diffusion"),
        ("error", "`data_consistency#error`, noise of 0.03 and 0.06"),
    ):
        rows = [[what, f"{value:.2f}"] for what, value in found.get(kind, {}).items()]
        parts += [table([head, "PSNR (dB)"], rows)] if rows else []
    shared = [
        [what.removeprefix("shared by "), str(v["pairs"]), f"{v['least']:.2f} to {v['most']:.2f}"]
        for what, v in found.items() if what.startswith("shared")
    ]  # fmt: skip
    parts += [table(["edges shared by two scans of", "pairs", "share"], shared)] if shared else []
    return "\n\n".join(parts)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="what scripts.prepare_data wrote")
    parser.add_argument("--people", type=Path, nargs="+", default=[], metavar="FILE", help="scans of different people")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--checkpoint", default="models/model.pt")
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_guide.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/how_to/guide.md"), help="whose tables are filled")
    args = parser.parse_args(argv)
    tuning = Tuning(args.data_dir, args.people, args.checkpoint)
    record = Record(args.output, {"size": SIZE}, {"checkpoint": sha256(Path(args.checkpoint))})
    record.fill(plan(list(tuning.people), args.seeds), tuning.run, "guides")
    record.add(("chosen",), chosen(record.content["results"]))
    if args.page.exists():
        fill(args.page, "guide choices", choices_text(record.content))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
