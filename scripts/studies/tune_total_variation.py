"""Tune the total variation that thick slices are compared with, on people that no test looks at.

    python -m scripts.studies.tune_total_variation --volumes FILES      write docs/tuning_total_variation.json

The middle of each volume, at 1 mm, is measured as the default task does. Without noise there is no weight, as the data
are met exactly: the total variation that is reached and the metrics tell how many iterations are needed. With noise the
weight is a multiple of its level (`PER_NOISE` of interslice/physics/baselines.py): the one with the highest PSNR in the
mean. Written: what was tried, the cubic interpolation beside it, and the best multiple.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from interslice.files.find import case_name
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.baselines import ConsistentTotalVariation, Interpolation
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.thick import ScalePercentilesd, SimulateMeasurementd, ThroughPlaneSampling
from interslice.physics.variation import differences
from interslice.planes import PLANES
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import inter_slice, psnr, ssim

SIZE = (40, 112, 90)
"""Voxels of 1 mm of each volume's middle."""
ITERATIONS = (25, 50, 100, 200, 400)
NOISES = (0.01, 0.03, 0.06)
MULTIPLES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


def middle(path: Path, size: tuple[int, int, int] = SIZE) -> MetaTensor:
    """(1, X, Y, Z): the middle of the subject, at 1 mm, in RAS+."""
    image = nib.as_closest_canonical(nib.load(path))
    voxels = np.ascontiguousarray(image.get_fdata(dtype=np.float32))
    volume = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(image.affine))
    volume = Spacing(pixdim=(1.0, 1.0, 1.0), mode="bilinear")(volume)
    subject = 2 * (volume.as_tensor()[0, ::2, ::2, ::2] > 0.15 * volume.max()).nonzero()
    starts = [int(np.clip(int(c) - n // 2, 0, max(0, m - n)))
              for c, n, m in zip(subject.float().median(0).values, size, volume.shape[1:])]  # fmt: skip
    return volume[:, *(slice(s, s + n) for s, n in zip(starts, size))]


def measured(volume: MetaTensor, noise: float, seed: int = 0) -> tuple[torch.Tensor, LinearOperator, torch.Tensor]:
    """Measurement, operator and truth, in the prior's range."""
    simulate = SimulateMeasurementd("image", ThroughPlaneSampling(), noise_std=noise, seed=seed)
    item = simulate({"image": volume})
    operator = item["image"].meta["simulated_with"]
    item = ScalePercentilesd(["image", "label"])(item)
    return item["image"].as_tensor()[0], operator, item["label"].as_tensor()[0]


def scores(x: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """PSNR, SSIM and inter-slice errors x 1000."""
    errors = {f"error_{p}": 1000 * inter_slice(x, truth, DATA_RANGE, axis)["error"] for p, axis in PLANES.items()}
    found = {"psnr": psnr(x, truth, DATA_RANGE), "ssim": ssim(x, truth, DATA_RANGE, -1.0), **errors}
    return {name: round(value, 4) for name, value in found.items()}


def without_noise(volume: MetaTensor) -> dict:
    """Cubic interpolation, and total variation after each number of iterations."""
    y, operator, truth = measured(volume, 0.0)
    found = {"cubic_consistent": scores(Interpolation(3, consistent=True)(y, operator), truth)}
    for iterations in (*ITERATIONS, None):
        stopped = {} if iterations is None else {"iterations": iterations, "tolerance": 0.0}
        began = time.perf_counter()
        x = ConsistentTotalVariation(**stopped)(y, operator)
        seconds = time.perf_counter() - began
        variation = float((differences(x) * torch.tensor(operator.gains).view(-1, 1, 1, 1)).norm(dim=0).sum())
        found["default" if iterations is None else str(iterations)] = scores(x, truth) | {
            "total_variation": round(variation, 1), "seconds": round(seconds, 1)
        }  # fmt: skip
    return found


def with_noise(volume: MetaTensor, noise: float) -> dict:
    """Cubic interpolation, and total variation with each multiple of the noise as its weight."""
    y, operator, truth = measured(volume, noise)
    found = {"cubic": scores(Interpolation(3)(y, operator), truth)}
    for multiple in MULTIPLES:
        found[str(multiple)] = scores(ConsistentTotalVariation(multiple * noise)(y, operator), truth)
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_total_variation.json"))
    args = parser.parse_args(argv)
    record: dict = {"size": SIZE, "threads": torch.get_num_threads(), "without_noise": {}, "with_noise": {}}
    for path in args.volumes:
        name, volume = case_name(path), middle(path)
        record["without_noise"][name] = without_noise(volume)
        for noise in NOISES:
            record["with_noise"].setdefault(str(noise), {})[name] = with_noise(volume, noise)
        print(f"{name} done", flush=True)
        means = {m: np.mean([v[str(m)]["psnr"] for n in record["with_noise"].values() for v in n.values()])
                 for m in MULTIPLES}  # fmt: skip
        record["mean_psnr"] = {str(m): round(float(p), 3) for m, p in means.items()}
        record["best_multiple"] = max(means, key=means.get)
        write_json(args.output, record)
    print(f"the best multiple of the noise is {record['best_multiple']:g}; wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("--output holds the volumes that were done"):
        main()
