"""Tune what the CT methods need to be told, on slices that are neither held out nor were trained on.

    python -m scripts.studies.tune_ct --volume data_ct/bodies/totalsegmentator_thorax.nii.gz

For every task, geometry and photon count of the published runs: the weight of total variation, the data step's rho, and
the strength of smoothing after the fact with independent noise, each by PSNR. Writes docs/tuning_ct.json: what was
tried, and what was chosen. The slices are those that scripts/data_sources.json keeps from training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from monai.transforms import Compose

from interslice.files.last_words import plain_endings
from interslice.noise.field import IndependentNoise
from interslice.physics import operator_of
from interslice.physics.baselines import TotalVariation, smooth
from interslice.physics.ct.attenuation import HounsfieldScale
from interslice.physics.ct.scale import ScaleProjectionsd
from interslice.physics.ct.simulate import SimulateProjectionsd
from interslice.prior.weights import load_weights
from interslice.report.evaluation import with_noise
from interslice.report.metrics import psnr
from scripts.data.synthesise_bodies import resample
from scripts.prepare_data import SOURCES
from scripts.reproduce import CT_RUNS, VIEWS

SPACING = 2.5
SIZE = 96
"""Pixels of the middle of each slice that are used."""
WEIGHTS = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4)
RHOS = (1e-3, 3e-3, 1e-2)
SMOOTHING = (0.003, 0.006, 0.01, 0.02, 0.03)


def kept_slices(path: Path) -> torch.Tensor:
    """The middle of the validation slices of the thorax at 2.5 mm, (X, Y, Z) in HU."""
    files = [f for s in json.loads(SOURCES.read_text()).values() for f in s["files"] if "validation_slices" in f]
    first, last = files[0]["validation_slices"]
    image = nib.as_closest_canonical(nib.load(path))
    volume = torch.from_numpy(image.get_fdata(dtype=np.float32))[..., first:last]
    volume = resample(volume, float(image.header.get_zooms()[0]), SPACING).clamp_min(-1024)
    x, y = ((n - SIZE) // 2 for n in volume.shape[:2])
    return volume[x : x + SIZE, y : y + SIZE].contiguous()


def tune(volume: torch.Tensor, views: str, beam: str, photons: float | None) -> dict:
    """PSNR of every setting that is tried, for one kind of scan."""
    workflow = ConfigWorkflow(
        ["configs/inference.json", "configs/task_svct.json"], workflow_type="inference", logging_file=False,
        photons=photons, beam=beam, num_draws=1, finish=None, **VIEWS[views],
    )  # fmt: skip
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    load_weights(get("network_def"), get("checkpoint"))
    scale = HounsfieldScale()
    image = MetaTensor(volume[None], affine=torch.diag(torch.tensor([SPACING] * 3 + [1.0])))
    simulate = SimulateProjectionsd("image", get("operator"), scale, photons)
    scan = Compose([simulate, get("check"), ScaleProjectionsd("image", scale)])({"image": image})
    truth = scan["label"].as_tensor()[0]
    y, operator = scan["image"].as_tensor()[0], operator_of(scan["image"])
    tried: dict[str, dict[str, float]] = {"total_variation": {}, "rho": {}, "smoothing": {}}
    for weight in WEIGHTS:
        tried["total_variation"][str(weight)] = psnr(TotalVariation(weight)(y, operator), truth, 2.0)
    best = max(tried["total_variation"], key=tried["total_variation"].get)
    sampler = with_noise(get("sampler"), IndependentNoise())
    start = TotalVariation(float(best))(y, operator)
    sampler.start, sampler.progress = (lambda y, operator: start), False
    results = {}
    for rho in RHOS:
        sampler.data_consistency.rho = rho
        results[str(rho)] = sampler.reconstruct(scan["image"], get("network").eval()).as_tensor()[0]
        tried["rho"][str(rho)] = psnr(results[str(rho)], truth, 2.0)
    result = results[max(tried["rho"], key=tried["rho"].get)]
    for weight in SMOOTHING:
        tried["smoothing"][str(weight)] = psnr(smooth(result, weight), truth, 2.0)
    return tried


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_ct.json"))
    args = parser.parse_args(argv)
    volume = kept_slices(args.volume)
    record: dict[str, dict] = {"tried": {}, "chosen": {}}
    for (views, beam), photons, _, _ in CT_RUNS.values():
        name = f"{views}, {beam}, {'no noise' if photons is None else f'{photons:g} photons'}"
        if name in record["tried"]:
            continue
        record["tried"][name] = tried = tune(volume, views, beam, photons)
        record["chosen"][name] = {k: float(max(v, key=v.get)) for k, v in tried.items()}
        args.output.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}: {record['chosen'][name]}", flush=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("--output holds the settings that were tuned"):
        main()
