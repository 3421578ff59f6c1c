"""Tune the sampler of thick MRI slices on people of the training side, never on those that results are shown of.

    python -m scripts.studies.tune_mri --archive_dir DIR

DIR holds the volumes of PEOPLE (scripts/data_sources.json says where they are from). Of each a crop of 24 x 64 x 60
voxels at 1 mm is measured in slices 5 mm apart and sampled with each of SETTINGS, for numbers of DRAWS within PASSES:
draws of one seed do not depend on how many there are, so one run gives all. OF_RATIOS are tried at other RATIOS, too.
Writes docs/tuning_mri.json: a run per setting, person, ratio and seed. What is in the file already is not run again;
docs/explanation/presets.md shows the means.

The T1 and T2 volumes also trained the prior, so their figures flatter it; the FLAIR person did not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.processing import resample_to_output
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.noise.named import named_noise
from interslice.physics.baselines import ConsistentTotalVariation, Interpolation
from interslice.physics.foreground import foreground_box, foreground_threshold
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import SIMULATED
from interslice.physics.thick import ScalePercentilesd, SimulateMeasurementd, ThroughPlaneSampling
from interslice.planes import PLANES
from interslice.prior import SlicePrior
from interslice.prior.network import network_for
from interslice.prior.weights import Weights, load_weights, scheduler_for
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import inter_slice, psnr, ssim
from interslice.sampling import DiffusionInverseInferer, NullSpace

PEOPLE = ("flair_open_ms_07", "t2_niimath_m2307", "t1_uih_b", "t1_myconnectome", "t1_pycortex_s1")
"""Names of their files."""
SHAPE = (24, 64, 60)
"""Voxels of 1 mm in a crop, from the middle of the subject, and its upper end in the last axis."""
BELOW_TOP = 20
RATIO = 5
RATIOS = (3, 8)
"""Other distances of the slices (mm), at which OF_RATIOS are tried."""
DRAWS = (1, 2, 4, 8)
PASSES = 40
"""Of the network over the volume, at most: six minutes on two cores for the embedded sample."""
BASE = {
    "start_fraction": 0.2, "num_steps": 10, "slice_axis": "alternate", "noise": "slerp", "eta": 1.0,
    "sigma_rule": "fixed_share", "start": "cubic_consistent", "antithetic": True,
}  # fmt: skip
STARTS = (
    (10, 0.2),
    (10, 0.1),
    (10, 0.4),
    (20, 0.2),
    (20, 0.1),
    (5, 0.2),
    (5, 0.1),
    (3, 0.1),
    (2, 0.2),
    (2, 0.1),
    (10, 0.6),
)
"""(number of steps, start fraction) that are tried; then changes of BASE."""
OTHERS = (
    {"antithetic": False},
    {"noise": "independent"},
    {"noise": "independent", "antithetic": False},
    {"noise": "matern"},
    {"start": "smoothest"},
    {"start": "total_variation"},
    {"slice_axis": "auto"},
    {"slice_axis": "auto", "eta": 0.85, "sigma_rule": "ddim"},
    {"slice_axis": [0, 1, 2]},
    {"noise": "independent", "eta": 0.5},
)
VOLUMES = {
    "cubic_consistent": Interpolation(3, consistent=True),
    "smoothest": None,
    "total_variation": ConsistentTotalVariation(),
}
"""What sampling may begin from, by the names of `baselines` in configs/inference.json."""
SETTINGS = [BASE | {"num_steps": n, "start_fraction": start} for n, start in STARTS]
OF_RATIOS = SETTINGS[:4]
SETTINGS += [BASE | changed for changed in OTHERS]


def found(archive_dir: Path, person: str) -> Path:
    """The volume of a person.

    Raises:
        FileNotFoundError: it is nowhere in the folder.
    """
    path = next(archive_dir.rglob(f"{person}.nii.gz"), None)
    if path is None:
        raise FileNotFoundError(
            f"{archive_dir} holds no {person}.nii.gz: give the folder of the volumes, --archive_dir"
        )
    return path


def crop(path: Path) -> torch.Tensor:
    """The middle of the head at 1 mm, (*SHAPE), in RAS+."""
    image = nib.as_closest_canonical(nib.load(path))
    if max(abs(float(z) - 1) for z in image.header.get_zooms()[:3]) > 0.01:
        image = resample_to_output(image, (1, 1, 1), order=3)
    volume = torch.from_numpy(np.ascontiguousarray(image.get_fdata(dtype=np.float32)))
    volume = volume.squeeze().clamp_min(0)
    box = foreground_box((volume > foreground_threshold(volume.numpy())), 0.02, 0.0)
    middle = [(b.start + b.stop) // 2 for b in box]
    first = [m - n // 2 for m, n in zip(middle, SHAPE)]
    first[2] = max(0, box[2].stop - BELOW_TOP - SHAPE[2])
    return volume[tuple(slice(f, f + n) for f, n in zip(first, SHAPE))].contiguous()


def measured(volume: torch.Tensor, noise: float = 0.0, seed: int = 0, ratio: int = RATIO
             ) -> tuple[torch.Tensor, torch.Tensor, LinearOperator]:  # fmt: skip
    """Thick slices y of a volume (X, Y, Z), its truth in the same scale, and the operator."""
    scan = SimulateMeasurementd("image", ThroughPlaneSampling(ratio=ratio), noise_std=noise, seed=seed)(
        {"image": MetaTensor(volume[None], affine=torch.eye(4, dtype=torch.float64))}
    )
    operator = scan["image"].meta.pop(SIMULATED)
    scan = ScalePercentilesd(["image", "label"])(scan)
    return scan["image"].as_tensor()[0], scan["label"].as_tensor()[0], operator


def judged(x: torch.Tensor, truth: torch.Tensor, operator: LinearOperator) -> dict[str, float]:
    """PSNR, SSIM, and 1000 times the inter-slice error per plane."""
    errors = {plane: 1000 * inter_slice(x, truth, DATA_RANGE, axis)["error"] for plane, axis in PLANES.items()}
    found = {"psnr": psnr(x, truth, DATA_RANGE), "ssim": ssim(x, truth, DATA_RANGE, operator.background)} | errors
    return {name: round(value, 4) for name, value in found.items()}


class Prior:
    """The network of a file of weights, and samplers with it."""

    def __init__(self, checkpoint: Path) -> None:
        weights = Weights(checkpoint, "percentiles")
        self.network = load_weights(network_for(weights), weights).eval().to(memory_format=torch.channels_last)
        self.prior = SlicePrior(scheduler_for(weights).alphas_cumprod, 8, multiple=self.network.multiple)

    def sampler(self, setting: Mapping, seed: int, step=None) -> DiffusionInverseInferer:
        settings = dict(setting)
        noise, start = named_noise(settings.pop("noise")), VOLUMES[settings.pop("start")]
        return DiffusionInverseInferer(
            self.prior, step or NullSpace(), noise, **settings, start=start, num_draws=1, seed=seed
        )

    def means(self, y: torch.Tensor, operator: LinearOperator, setting: Mapping, seed: int,
              draws: Sequence[int], step=None) -> Iterator[tuple[int, torch.Tensor]]:  # fmt: skip
        """(n, mean of the first n draws) for every n of `draws`."""
        sampler, total = self.sampler(setting, seed, step), 0.0
        run = sampler.begin(y, operator, self.network)
        for draw in range(max(draws)):
            total = total + sampler.sample(run, draw)
            if draw + 1 in draws:
                yield draw + 1, total / (draw + 1)


def read_record(path: Path) -> dict:
    """What was run before."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"baselines": {}, "runs": []}


def _key(run: Mapping) -> str:
    """What tells runs apart."""
    return json.dumps([run[k] for k in ("person", "ratio", "seed", "setting")], sort_keys=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive_dir", type=Path, required=True, help="folder with the volumes of PEOPLE")
    parser.add_argument("--checkpoint", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--people", nargs="+", choices=PEOPLE, default=PEOPLE)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_mri.json"))
    args = parser.parse_args(argv)
    prior, record = Prior(args.checkpoint), read_record(args.output) | {"base": BASE}
    asked = [(RATIO, s) for s in SETTINGS] + [(ratio, s) for ratio in RATIOS for s in OF_RATIOS]
    done = {_key(run) for run in record["runs"]}
    todo = [
        run
        for seed in range(args.seeds)
        for ratio, setting in asked
        for person in args.people
        if _key(run := {"person": person, "ratio": ratio, "seed": seed, "setting": setting}) not in done
    ]
    volumes = {person: crop(found(args.archive_dir, person)) for person in args.people}
    for person, ratio in ((p, r) for p in args.people for r in (RATIO, *RATIOS)):
        y, truth, operator = measured(volumes[person], ratio=ratio)
        for name in ("cubic_consistent", "total_variation"):
            x = VOLUMES[name](y, operator)
            record["baselines"].setdefault(person, {}).setdefault(str(ratio), {})[name] = judged(x, truth, operator)
    for run in tqdm(todo, desc="tuning", unit="run"):
        y, truth, operator = measured(volumes[run["person"]], ratio=run["ratio"])
        started, setting = time.perf_counter(), run["setting"]
        counts = [n for n in DRAWS if n * setting["num_steps"] <= PASSES]
        run["draws"] = {
            str(count): judged(mean, truth, operator)
            for count, mean in prior.means(y, operator, setting, run["seed"], counts)
        }
        run["seconds"] = round(time.perf_counter() - started, 1)
        record["runs"].append(run)
        write_json(args.output, record)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("--output holds the runs that were done"):
        main()
