"""How well priors know a contrast: the error of the predicted noise on volumes, before and after a training.

    python -m scripts.studies.contrast_errors before.pt after.pt --volumes a.nii.gz b.nii.gz

Patches are cut as the validation of configs/train.json cuts them. Writes docs/contrast_errors.json, and the table of
docs/explanation/prior.md from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.prior.network import network_for
from interslice.prior.weights import Weights, load_weights, scheduler_for
from scripts.studies.tables import fill, table

TIMESTEPS = (20, 100, 300)
PATCHES = 48
BATCH = 16


def patches_of(volume: Path) -> torch.Tensor:
    """PATCHES patches (N, 1, H, W) of a volume, those of one seed."""
    parser = ConfigParser()
    parser.read_config("configs/train.json")
    parser.update({"validate#cut#num_patches": PATCHES, "validation_dir": str(volume), "dataset_dir": str(volume)})
    cut = parser.get_parsed_content("validate#preprocessing").set_random_state(1234)
    return torch.stack([patch["image"].as_tensor() for patch in cut({"image": str(volume)})])


@torch.no_grad()
def errors(weights: Path, patches: torch.Tensor) -> dict[str, float]:
    """Timestep -> mean squared error of the noise that a prior predicts, by noise of one seed."""
    read = Weights(weights, "percentiles")
    network, ab = load_weights(network_for(read), read).eval(), scheduler_for(read).alphas_cumprod
    noise = torch.randn(patches.shape, generator=torch.Generator().manual_seed(7))
    found = {}
    for t in TIMESTEPS:
        noisy, parts = ab[t].sqrt() * patches + (1 - ab[t]).sqrt() * noise, range(0, len(patches), BATCH)
        predicted = [network(noisy[i : i + BATCH], torch.full((len(noisy[i : i + BATCH]),), t)) for i in parts]
        found[str(t)] = round(float((torch.cat(predicted) - noise).square().mean()), 5)
    return found


def errors_table(record: dict) -> str:
    """A row per volume."""
    shown = {name: [" / ".join(f"{e:.3f}" for e in side.values()) for side in both] for name, both in record.items()}
    rows = [[f"`{name}`", *sides] for name, sides in shown.items()]
    return table(["volume", "before", "after"], rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs=2, type=Path, help="before and after")
    parser.add_argument("--volumes", nargs="+", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/contrast_errors.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/explanation/prior.md"))
    args = parser.parse_args(argv)
    record = {}
    for volume in tqdm(args.volumes, desc="volumes", unit="volume"):
        patches = patches_of(volume)
        record[volume.name.split(".")[0]] = [errors(weights, patches) for weights in args.weights]
    write_json(args.output, record)
    fill(args.page, "contrasts", errors_table(json.loads(args.output.read_text(encoding="utf-8"))))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings():
        main()
