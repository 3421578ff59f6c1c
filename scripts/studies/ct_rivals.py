"""The CT reconstruction beside statistical reconstruction by another program, mbirtorch, on the same simulated scans.

    pip install mbirtorch==0.2.0                    (BSD; for this study alone)
    python -m scripts.studies.ct_rivals --tuning_volume data_ct/bodies/totalsegmentator_thorax.nii.gz
                                                    docs/ct_rivals.json, and its table in docs/how_to/ct.md

The embedded chest, 30 parallel views, counts of PHOTONS: the configs' baselines, our default run, and mbirtorch's
q-generalised Gaussian Markov random field with its weights for transmission (`gen_weights`: exp(-y)). Its `sharpness`
is the one of SHARPNESS with the best PSNR on slices of another person (scripts.studies.tune_ct), for each count of
photons; all else of it is as it comes. Both projectors agree on the chest to PROJECTORS_AGREE, which is checked.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.report.titles import TITLES
from interslice.usage import UsageError
from scripts.studies.bench import Bench
from scripts.studies.record import Record
from scripts.studies.tables import cell, fill, table
from scripts.studies.tune_ct import write_slab

CHEST = Path("sample_data/ct/truth/lidc_idri_0001.nii.gz")
PHOTONS = (1e5, 1e4)
SHARPNESS = (-1.0, 0.0, 0.5, 1.0)
ITERATIONS = 20
PROJECTORS_AGREE = 0.999
"""Correlation of two sinograms of one volume."""
RIVAL, OURS = "mbirtorch", "ours"
BASELINES = ("input", "total_variation")
TITLE = {OURS: "this project, default", RIVAL: "mbirtorch 0.2.0, q-GGMRF", "input": "Filtered back-projection"}


class Rival:
    """mbirtorch on the measurement of a bench.

    Its angles turn the other way, and its volumes are (Y, X, Z), in voxels.
    """

    def __init__(self, bench: Bench, water: float) -> None:
        try:
            import mbirtorch
        except ImportError:
            raise UsageError("mbirtorch is not installed: pip install mbirtorch==0.2.0") from None
        self.rays = getattr(bench.operator, "rays", bench.operator)  # without weights
        self.rows = getattr(bench.operator, "rows", torch.ones(()))
        geometry, self.shape = self.rays.geometry, tuple(self.rays.domain_shape)
        self.voxel = float(bench.affine[:3, 0].norm())
        angles = np.array([-math.radians(angle) for angle in geometry.angles])
        self.model = mbirtorch.ParallelBeamModel(
            (len(angles), geometry.num_rows, geometry.num_columns), angles, compile_mode="off"
        )
        self.model.set_params(
            delta_det_channel=geometry.column_size / self.voxel,
            recon_shape=(self.shape[1], self.shape[0], self.shape[2]), use_ror_mask=False, verbose=0,
        )  # fmt: skip
        # The prior's range has air at -1, mbirtorch air at 0.
        lengths = bench.image.as_tensor()[0].cpu() / self.rows + self.rays.forward(torch.ones(self.shape))
        self.sinogram = lengths / self.voxel
        self.weights = torch.exp(-water * lengths)
        self._check(bench.truth)

    def _check(self, volume: torch.Tensor) -> None:
        ours = self.rays.forward(volume + 1)
        theirs = self.model.forward_project(self._volume(volume + 1)).transpose(0, 2, 1)
        found = float(np.corrcoef(ours.numpy().ravel(), theirs.ravel())[0, 1])
        if found < PROJECTORS_AGREE:
            raise RuntimeError(f"the projections of one volume correlate by {found:.4f}: the geometries differ")

    @staticmethod
    def _volume(volume: torch.Tensor) -> np.ndarray:
        return np.ascontiguousarray(volume.transpose(0, 1).numpy())

    def reconstruct(self, sharpness: float) -> torch.Tensor:
        """(X, Y, Z) in the prior's range."""
        self.model.set_params(sharpness=sharpness)
        sinogram, weights = (
            np.ascontiguousarray(a.numpy().transpose(0, 2, 1), np.float32) for a in (self.sinogram, self.weights)
        )
        found, _ = self.model.recon(
            sinogram, weights=weights, max_iterations=ITERATIONS, print_logs=False, logfile_path=None
        )
        return torch.from_numpy(np.array(found)).transpose(0, 1) - 1


def run(volumes: dict[str, Path], ids: dict, record: Record, key: tuple) -> dict:
    """Metrics of one method: volume, photons, method, setting or seed."""
    name, photons, method, setting = key
    bench = Bench(
        ["task_svct"], volumes[name], photons=float(photons), report=False, compare=False,
        seed=int(setting) if method != RIVAL or name == "chest" else 0, **ids,
    )  # fmt: skip
    if method == OURS:
        return bench.measure(bench.sample(seed=int(setting)))
    if method in BASELINES:
        return bench.measure(bench.reconstruct(method))
    sharpness = float(setting) if name == "thorax" else sharpest(record, photons)
    return bench.measure(Rival(bench, ids.get("hounsfield#water", 0.0192)).reconstruct(sharpness))


def sharpest(record: Record, photons: str) -> float:
    """The sharpness with the best PSNR on the other person."""
    found = record.content["results"]["thorax"][photons][RIVAL]
    return float(max(found, key=lambda sharpness: found[sharpness]["psnr"]))


def write_table(record: dict, page: Path) -> None:
    """Fill the table of rivals, of those runs that are there."""
    rows = []
    for photons, methods in record["results"].get("chest", {}).items():
        for method, runs in methods.items():
            figures = [[run[name] for run in runs.values()] for name in ("psnr", "ssim", "error_axial")]
            rows.append([f"{float(photons):g}", TITLE.get(method, TITLES.get(method, method)),
                         *(cell(values, digits) for values, digits in zip(figures, (2, 3, 4)))])  # fmt: skip
    text = table(["photons", "method", "PSNR (dB)", "SSIM", "inter-slice error, axial"], rows)
    note = "Embedded chest, 30 parallel views. Made by `python -m scripts.studies.ct_rivals`."
    fill(page, "ct rivals", f"{note}\n\n{text}")


def plan(photons: list[float], seeds: int):
    """Keys of all runs; the rival is tuned first."""
    for count in map("{:g}".format, photons):
        yield from (("thorax", count, RIVAL, str(sharpness)) for sharpness in SHARPNESS)
        for seed in map(str, range(seeds)):
            yield from (("chest", count, method, seed) for method in (*BASELINES, RIVAL, OURS))


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning_volume", type=Path, required=True, help="the thorax of scripts/prepare_data")
    parser.add_argument("--photons", type=float, nargs="+", default=list(PHOTONS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/ct_rivals"))
    parser.add_argument("--output", type=Path, default=Path("docs/ct_rivals.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/how_to/ct.md"))
    args = parser.parse_args(argv)
    thorax, _ = write_slab(args.tuning_volume, args.work_dir)
    record = Record(args.output, {"rival": f"{RIVAL} 0.2.0", "iterations": ITERATIONS})
    volumes = {"thorax": thorax, "chest": CHEST}
    record.fill(plan(args.photons, args.seeds), partial(run, volumes, others, record), "rivals")
    record.content["sharpness"] = {f"{p:g}": sharpest(record, f"{p:g}") for p in args.photons}
    write_json(args.output, record.content)
    write_table(record.content, args.page)
    print(f"wrote {args.output} and {args.page}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
