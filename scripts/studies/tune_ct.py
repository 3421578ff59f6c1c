"""What the CT methods need to be told and no rule says, on slices that are neither held out nor were trained on.

    python -m scripts.studies.tune_ct --volume data_ct/bodies/totalsegmentator_thorax.nii.gz

For every kind of scan of the published runs (CT_RUNS of scripts.reproduce), by PSNR: the strength of smoothing after
the fact with independent noise; and where a scan has no noise, by which the rules go, the weight of total variation and
the data step's rho. Writes docs/tuning_ct.json: what was tried, and what was chosen. The slices are those that
scripts/data_sources.json keeps from training. How sampling itself is set: scripts.studies.tune_ct_sampler.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.files.write import write_json
from interslice.noise.field import IndependentNoise
from interslice.physics.baselines import TotalVariation, smooth
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import psnr
from scripts.data.synthesise_bodies import resample
from scripts.prepare_data import SOURCES
from scripts.reproduce import CT_RUNS, VIEWS
from scripts.studies.bench import Bench

SPACING = 2.5
SIZE = 96
"""Pixels of the middle of each slice that are used."""
WEIGHTS = (2e-5, 5e-5, 1e-4, 2e-4)
RHOS = (3e-4, 1e-3, 3e-3, 1e-2)
SMOOTHING = (0.001, 0.003, 0.006, 0.01, 0.02)


def kept_slices(path: Path) -> torch.Tensor:
    """The middle of the validation slices of the thorax at 2.5 mm, (X, Y, Z) in HU."""
    files = [f for s in json.loads(SOURCES.read_text()).values() for f in s["files"] if "validation_slices" in f]
    first, last = files[0]["validation_slices"]
    image = nib.as_closest_canonical(nib.load(path))
    volume = torch.from_numpy(image.get_fdata(dtype=np.float32))[..., first:last]
    volume = resample(volume, float(image.header.get_zooms()[0]), SPACING).clamp_min(-1024)
    x, y = ((n - SIZE) // 2 for n in volume.shape[:2])
    return volume[x : x + SIZE, y : y + SIZE].contiguous()


def write_slab(path: Path, folder: Path) -> tuple[Path, int]:
    """The kept slices as a file in `folder`, written once, and their number."""
    volume, slab = kept_slices(path), folder / "thorax.nii.gz"
    if not slab.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(slab) as partial_file:
            nib.save(nib.Nifti1Image(volume.numpy(), np.diag([SPACING] * 3 + [1.0])), partial_file)
    return slab, volume.shape[2]


def tune(slab: Path, views: str, beam: str, photons: float | None, others: dict) -> dict:
    """PSNR of every setting that is tried, for one kind of scan."""
    tried: dict[str, dict[str, float]] = {}
    ids = {"photons": photons, "beam": beam, "num_draws": 1, "finish": None, **VIEWS[views], **others}

    def bench(**more) -> Bench:
        return Bench(["task_svct"], slab, report=False, compare=False, **ids, **more)

    chosen = {}
    if photons is None:
        scan = bench()
        y = scan.image.as_tensor()[0].cpu()
        tried["total_variation"] = {
            str(w): psnr(TotalVariation(w)(y, scan.operator), scan.truth, DATA_RANGE) for w in WEIGHTS
        }
        chosen["total_variation_weight"] = float(best(tried["total_variation"]))
    results = {}
    for rho in RHOS if photons is None else ("auto",):
        scan = bench(**chosen, **{"data_consistency#rho": rho})
        results[str(rho)] = scan.sample(IndependentNoise())
    if photons is None:
        tried["rho"] = {rho: psnr(x, scan.truth, DATA_RANGE) for rho, x in results.items()}
    result = results[best(tried["rho"]) if "rho" in tried else "auto"]
    tried["smoothing"] = {str(w): psnr(smooth(result, w), scan.truth, DATA_RANGE) for w in SMOOTHING}
    return tried


def best(tried: dict[str, float]) -> str:
    """The setting with the highest PSNR."""
    return max(tried, key=tried.__getitem__)


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True, help="the thorax of scripts.prepare_data")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/tune_ct"))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_ct.json"))
    args = parser.parse_args(argv)
    slab, _ = write_slab(args.volume, args.work_dir)
    record: dict[str, dict] = {"tried": {}, "chosen": {}}
    for run in CT_RUNS.values():
        name = run.kind
        if name in record["tried"]:
            continue
        record["tried"][name] = tried = tune(slab, run.views, run.beam, run.photons, others)
        record["chosen"][name] = {k: float(best(v)) for k, v in tried.items()}
        write_json(args.output, record)
        print(f"{name}: {record['chosen'][name]}", flush=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("--output holds the settings that were tuned"):
        main()
