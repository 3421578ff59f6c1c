"""Evaluation against a known truth: simulate the measurement, run every method on it, measure and picture them.

All of it happens in the prior's intensity range and RAS+ orientation; the full scale of the metrics is what the task's
scaling maps to -1 and 1: the intensity range of the measurement in MRI, the window of Hounsfield units in CT.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform

from bundle.baselines import smooth
from bundle.inputs import case_name
from bundle.metrics import PLANES, calibration, evaluate
from bundle.outputs import check_writable, write_json, written_whole
from bundle.report import Panel, method_title, report

DATA_RANGE = 2.0
Reconstruction = Callable[[torch.Tensor, object], torch.Tensor]
"""(y, operator) -> x, with a `label` (see bundle.baselines)."""


class SimulateMeasurementd(MapTransform):
    """Replaces a volume by its simulated measurement and keeps the volume itself as the truth.

    Args:
        keys: the volume; it becomes the measurement, with the measurement's affine.
        operator: builds the operator for a volume (`for_volume`).
        label_key: where the truth goes, cropped to what the measurement covers.
        region_key: a mask of the volume's grid, cropped alike, if it is there.
        noise_std: standard deviation of Gaussian noise on the measurement, as a share of the volume's maximum.
        seed: of that noise.
    """

    def __init__(self, keys, operator, label_key: str = "label", region_key: str = "region", noise_std: float = 0.0,
                 seed: int = 0) -> None:  # fmt: skip
        super().__init__(keys)
        self.operator, self.label_key, self.region_key = operator, label_key, region_key
        self.noise_std, self.seed = noise_std, seed

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        key = self.first_key(d)
        volume = d[key]
        operator = self.operator.for_volume(volume)
        covered = (slice(None), *(slice(n) for n in operator.domain_shape))
        truth = volume[covered]
        if self.region_key in d:
            d[self.region_key] = d[self.region_key][covered]
        measured = operator.forward(truth.as_tensor())
        if self.noise_std:
            noise = np.random.default_rng(self.seed).normal(0, self.noise_std * float(volume.max()), measured.shape)
            measured = measured + torch.from_numpy(noise).to(measured)
        meta = {k: v for k, v in volume.meta.items() if k not in ("affine", "slice_thickness")}  # the truth's
        d[key] = MetaTensor(
            measured,
            affine=operator.range_affine(volume.affine),
            meta=meta,
            applied_operations=volume.applied_operations,
        )
        d[self.label_key] = truth
        return d


class EvaluateReconstructiond(MapTransform):
    """Measures a result and its competitors against the truth; writes metrics.json and report.png beside it.

    Args:
        keys: the result, in the prior's range and orientation.
        operator: builds the operator for a measurement.
        output_dir: as for the reconstruction.
        inferer, network: what made the result; `compare` runs them again with other noise.
        baselines: name -> reconstruction to compare with (see bundle.baselines); the first is shown as the input.
        noise_fields: name -> noise field, used if `compare` is true.
        compare: also sample with every field of `noise_fields`, and smooth the independent result afterwards.
        tv_weight: weight of that smoothing (see `bundle.baselines.smooth`).
        window: grey window of the picture, in the prior's range.
        image_key, label_key, region_key: the measurement, the truth, and a mask with 1 inside.
    """

    def __init__(self, keys, operator, output_dir: str, inferer: Inferer, network: torch.nn.Module,
                 baselines: Mapping[str, Reconstruction], noise_fields: Mapping[str, object], compare: bool = False,
                 tv_weight: float = 0.03, window: tuple[float, float] = (-1.0, 1.0), image_key: str = "image",
                 label_key: str = "label", region_key: str = "region") -> None:  # fmt: skip
        super().__init__(keys)
        self.operator, self.output_dir = operator, check_writable(output_dir)
        self.inferer, self.network = inferer, network
        self.baselines, self.noise_fields = dict(baselines), noise_fields
        self.compare, self.tv_weight, self.window = compare, tv_weight, tuple(window)
        self.image_key, self.label_key, self.region_key = image_key, label_key, region_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        result, image = data[self.first_key(data)], data[self.image_key]
        truth = data[self.label_key].as_tensor()[0].float().cpu()
        y = image.as_tensor()[0].float().cpu()
        operator = self.operator.for_measurement(image)
        recon = result.as_tensor()[0].float().cpu()
        methods = {name: reconstruct(y, operator) for name, reconstruct in self.baselines.items()}
        if self.compare:
            methods |= self._noise_variants(image, recon)
        methods["recon"] = recon
        regions = None
        if self.region_key in data:
            inside = data[self.region_key].as_tensor()[0].cpu() > 0.5
            regions = {"inside": inside, "outside": ~inside}

        def residual(x: torch.Tensor) -> float:
            return float((operator.forward(x) - y).square().mean().sqrt()) / DATA_RANGE

        metrics = {name: evaluate(x, truth, DATA_RANGE, residual(x), regions) for name, x in methods.items()}
        if "std" in result.meta:
            spread = torch.as_tensor(result.meta["std"]).float().cpu()
            metrics["recon"]["calibration"] = calibration(recon, spread, truth, int(result.meta["num_draws"]))
        case = case_name(image.meta["filename_or_obj"])
        folder = self.output_dir / case
        write_json(folder / "metrics.json", metrics)
        self._picture(folder / "report.png", case, truth, methods, metrics, result, operator)
        print(f"wrote {folder / 'metrics.json'} and report.png", flush=True)
        return dict(data)

    def _noise_variants(self, image: MetaTensor, recon: torch.Tensor) -> dict[str, torch.Tensor]:
        """The result with every noise field; that of the run's own field is there already."""
        device = next(self.network.parameters()).device
        own = noise_of(self.inferer)
        variants = {}
        for name, field in self.noise_fields.items():
            if type(field) is type(own) and vars(field) == vars(own):
                variants[name] = recon
            else:
                inferer = with_noise(self.inferer, field)
                variants[name] = inferer(image[None].to(device), self.network).as_tensor()[0, 0].float().cpu()
        variants["independent_tv"] = smooth(variants["independent"], self.tv_weight)
        return variants

    def _picture(self, path: Path, case: str, truth, methods, metrics, result: MetaTensor, operator) -> None:
        labels = {name: method_title(name, self.baselines) for name in methods}
        first = next(iter(self.baselines))
        best = max(self.baselines, key=lambda n: metrics[n]["volume"]["psnr"])
        plane = next(p for p, axis in PLANES.items() if axis == operator.slice_axes[0])

        def panel(name: str) -> Panel:
            volume = metrics[name]["volume"]
            caption = f"PSNR {volume['psnr']:.2f} dB, SSIM {volume['ssim']:.3f}"
            return Panel(labels[name], methods[name].numpy(), caption)

        shown = [first, best, "recon"] if best != first else [first, "recon"]
        axis = operator.slice_axes[0]
        names = [*shown, "independent"] if self.compare else shown
        differences = {"Truth": truth.diff(dim=axis)} | {labels[n]: methods[n].diff(dim=axis) for n in names}

        def profile(d: torch.Tensor) -> np.ndarray:
            return d.abs().movedim(axis, 0).flatten(1).mean(1).numpy() / DATA_RANGE

        figure = report(
            Panel("Truth", truth.numpy()),
            [panel(n) for n in shown],
            tuple(float(s) for s in result.pixdim),
            self.window,
            {name: profile(d) for name, d in differences.items()},
            plane,
            f"{case}: {operator}",
            {name: profile(d - differences["Truth"]) for name, d in differences.items() if name != "Truth"},
        )
        with written_whole(path) as partial:
            figure.savefig(partial, dpi=110, format="png")
        plt.close(figure)


def noise_of(inferer: Inferer):
    """The noise field of an inferer, or of the inferer that it wraps."""
    return noise_of(inferer.inferer) if hasattr(inferer, "inferer") else inferer.noise_field


def with_noise(inferer: Inferer, noise_field) -> Inferer:
    """A copy of an inferer, or of the inferer that it wraps, that draws its noise from another field."""
    inferer = copy.copy(inferer)
    if hasattr(inferer, "inferer"):
        inferer.inferer = with_noise(inferer.inferer, noise_field)
    else:
        inferer.noise_field = noise_field
    return inferer
