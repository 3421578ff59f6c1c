"""Real thick scans without a truth: which method predicts a second scan of the same head that it has not seen?

    python -m scripts.studies.real_pairs --data_dir FOLDER --crop         docs/real_pairs.json

Patients of the longitudinal data of Lesjak et al. (2016, CC BY) were scanned twice, with different slices and the head
turned by several degrees. One study is reconstructed; what the scanner of the other study would measure of the result
is compared with what it did measure:

    T       rigid, world of the unseen study -> world of the reconstructed one
    (interslice/physics/mutual_information.py) v(p)    the result at T p, for p on the fine grid of the unseen study:
    cubic B-spline, the same for every method y'      A v, with A the unseen study's own operator
    (interslice.physics.thick), where all that it sums is known fit     a y' + b by least squares: scanners' scales
    differ error   |a y' + b - y| / |y - mean of y| (NRMSE) over the brain; the correlation r says the same, NRMSE^2 = 1
    - r^2

T is found from the two scans alone, the same for all methods. Years of disease, another field of view and bias, noise
and what is left of T's error set a floor that no method can pass. Both directions. The JSON grows run by run, and the
same command goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import map_coordinates

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.physics.intensity import intensity_range
from interslice.physics.mutual_information import register
from interslice.physics.thick import ThroughPlane, ThroughPlaneSampling
from interslice.usage import UsageError
from scripts.studies.bench import Measured, baseline_names, defaults
from scripts.studies.evidence_grid import NOISES
from scripts.studies.people import priors_and_ids
from scripts.studies.record import Record
from scripts.studies.shown import brain, middle

PAIRS = {
    f"{patient}_{contrast}": [f"open_ms_{patient}_study{study}_{contrast}.nii.gz" for study in (1, 2)]
    for patient, contrast in (("p01", "FLAIR"), ("p01", "T1W"), ("p03", "FLAIR"))
}
CROP = (64, 96, 12)
"""Voxels of the thick scan that is reconstructed: slices last."""
KNOWN = 0.999
"""Least share of what a voxel of the unseen study sums that must lie in the reconstruction."""
FEWEST = 1000
"""Voxels of the brain that both must hold."""
FIELDS = ("independent", "identical", "slerp")
"""Each prior with each; "own" is the configs' own field."""


@dataclass(frozen=True)
class Unseen:
    """A study to be predicted.

    Attributes:
        scan: (X, Y, Z) as measured.
        affine: (4, 4) of the scan.
        operator: what its scanner does to a fine volume.
        brain: mask of the scan's grid.
        pose: T above.
    """

    scan: np.ndarray
    affine: np.ndarray
    operator: ThroughPlane
    brain: np.ndarray
    pose: np.ndarray


def unseen(image: nib.Nifti1Image, pose: np.ndarray) -> Unseen:
    """A study as it was measured, in RAS+ order."""
    voxels, spacing = np.asarray(image.dataobj, np.float32), [float(s) for s in image.header.get_zooms()]
    operator = ThroughPlaneSampling().for_scan(voxels.shape, tuple(spacing))
    return Unseen(voxels, image.affine, operator, brain(voxels, tuple(spacing), brain_only=False), pose)


def predict(volume: np.ndarray, affine: np.ndarray, study: Unseen) -> tuple[np.ndarray, np.ndarray]:
    """y' above, (X, Y, Z) of the unseen study, and the mask of where all that it sums lies in `volume`."""
    operator, shape = study.operator, study.operator.domain_shape
    fine = operator.domain_affine(torch.from_numpy(study.affine)).numpy()
    to_volume = np.linalg.inv(affine) @ study.pose @ fine
    # The box of the fine grid, across its slices, that the volume's corners span: the rest is not known anyway.
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape], [1], indexing="ij")).reshape(4, -1)
    places = np.linalg.inv(to_volume) @ corners
    box = [
        slice(0, n) if axis == operator.axis else slice(max(0, int(low)), min(n, int(high) + 2))
        for axis, (n, low, high) in enumerate(zip(shape, places.min(1), places.max(1)))
    ]
    if any(s.stop <= s.start for s in box):
        raise UsageError("the two studies have no place in common: was the registration wrong, or the part too small?")
    grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1)
    where = np.moveaxis(grid @ to_volume[:3, :3].T + to_volume[:3, 3], -1, 0)
    inside = np.all([(w >= 0) & (w <= n - 1) for w, n in zip(where, volume.shape)], axis=0)
    values = map_coordinates(volume, where, order=3, mode="nearest", output=np.float32)
    part = operator.on(tuple(box))
    predicted, known = np.zeros(study.scan.shape, np.float32), np.zeros(study.scan.shape, bool)
    thick = operator.range_box(tuple(box))
    predicted[thick] = part.forward(torch.from_numpy(values)).numpy()
    known[thick] = part.forward(torch.from_numpy(inside.astype(np.float32))).numpy() >= KNOWN
    return predicted, known


def compare(predicted: np.ndarray, known: np.ndarray, study: Unseen) -> dict[str, float]:
    """NRMSE, correlation, and PSNR over the study's intensity range, after the fit, over the brain where it is known.

    Raises:
        UsageError: hardly anything of the brain is known.
    """
    mask = known & study.brain
    if mask.sum() < FEWEST:
        raise UsageError(
            f"{int(mask.sum())} voxels of brain are in both studies, fewer than {FEWEST}: take a larger part"
        )
    x, y = predicted[mask].astype(np.float64), study.scan[mask].astype(np.float64)
    slope, offset = np.polyfit(x, y, 1)
    rms = float(np.sqrt(np.mean((slope * x + offset - y) ** 2)))
    lower, upper = intensity_range(torch.from_numpy(study.scan))
    found = {
        "nrmse": rms / float(y.std()), "correlation": float(np.corrcoef(x, y)[0, 1]),
        "psnr": float(20 * np.log10((upper - lower) / rms)),
    }  # fmt: skip
    return {name: float(f"{value:.5g}") for name, value in found.items()} | {"voxels": int(mask.sum())}


class Pairs:
    """Runs of the study: pair, direction, prior, noise."""

    def __init__(self, folder: Path, size, priors: dict[str, str], work_dir: Path, ids: dict) -> None:
        self.folder, self.size, self.priors, self.work_dir, self.ids = folder, size, priors, work_dir, ids
        self.bench = lru_cache(maxsize=1)(self._bench)
        self.study = lru_cache(maxsize=1)(self._study)

    def images(self, pair: str, direction: str) -> list[nib.Nifti1Image]:
        """The study that is reconstructed, and the unseen one, in RAS+ order."""
        known, other = (int(n) - 1 for n in direction.split(" to "))
        return [nib.as_closest_canonical(nib.load(self.folder / PAIRS[pair][k])) for k in (known, other)]

    def _study(self, pair: str, direction: str) -> tuple[Unseen, float]:
        known, other = self.images(pair, direction)
        kept = self.work_dir / "poses" / f"{pair}_{direction.replace(' ', '_')}.npz"
        if not kept.exists():
            pose, information = register(other, known)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(kept) as partial:
                np.savez(partial, pose=pose, information=information)
        with np.load(kept) as found:
            return unseen(other, found["pose"]), float(found["information"])

    def _bench(self, pair: str, direction: str, prior: str) -> Measured:
        known, _ = self.images(pair, direction)
        voxels = np.asarray(known.dataobj, np.float32)
        path = self.work_dir / "volumes" / f"{pair}_{direction.split(' ')[0]}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            whole = nib.Nifti1Image(voxels, known.affine)
            nib.save(whole.slicer[middle(voxels.shape, self.size or voxels.shape)], partial)
        lower, upper = intensity_range(torch.from_numpy(voxels))
        limits = {"a_min": lower, "a_max": upper, "b_min": -1.0, "b_max": 1.0, "allow_missing_keys": True}
        scale = {"_target_": "ScaleIntensityRanged", "keys": ["image", "label"], **limits}
        return Measured(["inference"], path, scale=scale, checkpoint=self.priors[prior], report=False, **self.ids)

    def run(self, key: tuple) -> dict:
        """Figures of one prior and noise field, of a baseline, or of the registration."""
        pair, direction, prior, noise = key
        study, information = self.study(pair, direction)
        if prior == "registration":
            turn = np.degrees(np.arccos(np.clip((np.trace(study.pose[:3, :3]) - 1) / 2, -1, 1)))
            return {"mutual_information": round(information, 4), "turned_degrees": round(float(turn), 2)}
        if prior in baseline_names():
            bench = self.bench(pair, direction, next(iter(self.priors)))
            x = bench.reconstruct(prior)
        else:
            bench = self.bench(pair, direction, prior)
            x = bench.sample(None if noise == "own" else NOISES[noise])
        return compare(*predict(x.numpy(), np.asarray(bench.affine), study), study)


def plan(pairs: list[str], priors: list[str], noises: list[str]):
    """Keys of all runs: what needs no network first."""
    ways = [(pair, direction) for direction in ("1 to 2", "2 to 1") for pair in pairs]
    yield from ((*way, kind, "none") for way in ways for kind in ("registration", *baseline_names()))
    for prior in priors:
        yield from ((*way, prior, noise) for way in ways for noise in noises)


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the scans")
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--priors", nargs="+", default=["shipped=models/model.pt"], metavar="NAME=FILE")
    parser.add_argument("--noises", nargs="+", default=list(FIELDS), choices=["own", *NOISES])
    parser.add_argument("--ids", nargs="+", default=[], metavar="ID=VALUE", help="other ids of configs/inference.json")
    parser.add_argument("--crop", type=int, nargs="*", metavar="N", help=f"the middle alone, of {CROP} thick voxels")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/real_pairs"))
    parser.add_argument("--output", type=Path, default=Path("docs/real_pairs.json"))
    args = parser.parse_args(argv)
    priors, ids, digests = priors_and_ids(args, parser)
    missing = [name for pair in args.pairs for name in PAIRS[pair] if not (args.data_dir / name).exists()]
    if missing:
        raise UsageError(
            f"{args.data_dir} does not hold {', '.join(missing)}: leave out the pair with --pairs, or fetch it"
        )
    size = None if args.crop is None else tuple(args.crop) or CROP
    record = Record(args.output, {"size": size, "ids": ids, "defaults": defaults()}, digests)
    runs = Pairs(args.data_dir, size, priors, args.work_dir, ids | others)
    record.fill(plan(args.pairs, list(priors), args.noises), runs.run, "pairs")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
