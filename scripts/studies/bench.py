"""One measurement, ready to be sampled with any noise field and seed, and compared with its truth if it has one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from interslice.physics import operator_of
from interslice.prior.weights import load_weights
from interslice.report.evaluation import DATA_RANGE, with_noise
from interslice.report.metrics import PLANES, evaluate

OF_RESULT = ("num_steps", "start_fraction", "num_draws", "antithetic", "noise", "noise_level", "start")
"""Ids of configs/inference.json whose defaults a result of a study depends on."""


def defaults(*overlays: str) -> dict:
    """The defaults of OF_RESULT; of a part of the config its name, of a list of names the first.

    Of what a guide changes, that without one.
    """
    parser, found = ConfigParser(), {}
    parser.read_config([f"configs/{name}.json" for name in ("inference", *overlays)])
    for name in OF_RESULT:
        raw = parser[name]
        raw = str(raw["otherwise"] if isinstance(raw, dict) else raw).replace("::", "#")
        value = raw if raw.startswith("@baselines") else parser.get_parsed_content(name)
        found[name] = value[0] if isinstance(value, list) else value
    return found


def baseline_names() -> list[str]:
    """Those of configs/inference.json."""
    return list(json.loads(Path("configs/inference.json").read_text(encoding="utf-8"))["baselines"])


class Measured:
    """A scan under some configs.

    Args:
        configs: names of configs, configs/inference.json first.
        volume: the file.
        ids: ids of the configs.

    Attributes:
        image: the measurement (1, ...), in the prior's range.
        affine: (4, 4), of a result.
    """

    def __init__(self, configs: Sequence[str], volume: Path, **ids) -> None:
        workflow = ConfigWorkflow(
            [f"configs/{name}.json" for name in configs], workflow_type="inference", logging_file=False,
            dataset_dir=str(volume), output_dir=str(volume.parent / "unused"), **ids,
        )  # fmt: skip
        workflow.initialize()
        get = workflow.parser.get_parsed_content
        self.item, self.device = get("dataset")[0], get("device")
        self.network = load_weights(get("network"), get("checkpoint")).eval()
        self.image = self.item["image"].to(self.device)
        self.inferer, self.noise_field = get("inferer"), get("noise_field")
        self.operator = operator_of(self.image)
        self.affine = self.operator.domain_affine(self.item["image"].affine)
        self.baselines = get("baselines")

    def sample(self, noise_field=None, seed: int = 0) -> torch.Tensor:
        """One result (X, Y, Z) on the CPU, with the configs' own noise field or another."""
        inferer = with_noise(self.inferer, noise_field or self.noise_field)
        sampler = inferer  # a copy, as are those that it wraps
        while hasattr(sampler, "inferer"):
            sampler = sampler.inferer
        sampler.seed, sampler.progress = seed, False
        return inferer(self.image[None], self.network).as_tensor()[0, 0].float().cpu()

    def reconstruct(self, baseline: str) -> torch.Tensor:
        """The result (X, Y, Z) of a baseline."""
        return self.baselines[baseline](self.image.as_tensor()[0].cpu(), self.operator)


class Bench(Measured):
    """The simulated measurement of a volume, its truth known.

    Args:
        configs: names of overlays after configs/inference.json and configs/evaluate.json.
        volume: a file; a mask of the same name in `regions` beside its folder is its brain.
        ids: ids of the configs.
    """

    def __init__(self, configs: Sequence[str], volume: Path, **ids) -> None:
        regions = volume.parent.parent / "regions"
        region = {"region_dir": str(regions) if (regions / volume.name).exists() else None}
        super().__init__(["inference", "evaluate", *configs], volume, **{**region, **ids})
        self.truth, self.regions = self.item["label"].as_tensor()[0].float(), None
        if "region" in self.item:
            inside = self.item["region"].as_tensor()[0] > 0.5
            self.regions = {name: m for name, m in (("inside", inside), ("outside", ~inside)) if m.any()}

    def measure(self, x: torch.Tensor) -> dict:
        """The metrics that are kept, rounded to what they are worth."""
        misfit = float((self.operator.forward(x.to(self.device)) - self.image.as_tensor()[0]).square().mean().sqrt())
        metrics = evaluate(x, self.truth, DATA_RANGE, self.operator.background, misfit / DATA_RANGE, self.regions)
        kept = {"psnr": metrics["volume"]["psnr"], "ssim": metrics["volume"]["ssim"], "residual": misfit / DATA_RANGE}
        kept |= {f"psnr_{name}": region["psnr"] for name, region in metrics.get("regions", {}).items()}
        for plane in PLANES:
            kept[f"psnr_{plane}"] = metrics[plane]["psnr"]
            kept[f"ssim_{plane}"] = metrics[plane]["ssim"]
            kept[f"error_{plane}"] = metrics["inter_slice"][plane]["error"]
            kept[f"ratio_{plane}"] = metrics["inter_slice"][plane]["ratio"]
        return {name: float(f"{value:.5g}") for name, value in kept.items()}
