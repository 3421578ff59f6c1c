"""Evaluation against a known truth: every method on the simulated measurement, measured.

All of it happens in the prior's intensity range and RAS+ orientation; the full scale of the metrics is what the task's
scaling maps to -1 and 1: the intensity range of the measurement in MRI, the window of Hounsfield units in CT. SSIM
takes intensities from 0, which is x = `operator.background`: no signal, air.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform

from interslice.files.findings import findings_of
from interslice.files.switch import is_on
from interslice.files.values import number
from interslice.physics.baselines import smooth
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of
from interslice.report.metrics import calibration, evaluate
from interslice.report.titles import title_of

DATA_RANGE = 2.0
Reconstruction = Callable[[torch.Tensor, LinearOperator], torch.Tensor]
"""(y, operator) -> x (see interslice.physics.baselines)."""


@dataclass(frozen=True)
class Evaluation:
    """One comparison with the truth.

    Attributes:
        truth: (X, Y, Z), in the prior's range.
        methods: name -> what the method made of the measurement; the baselines first, the run's own ("recon") last.
        titles: name -> what the method is called.
        metrics: name -> its metrics, as they stand in metrics.json.
        baselines: names of those methods that need no network; the first is the input.
        operator: the measurement's.
        spacing: voxel size in mm.
    """

    truth: torch.Tensor
    methods: Mapping[str, torch.Tensor]
    titles: Mapping[str, str]
    metrics: Mapping[str, dict]
    baselines: tuple[str, ...]
    operator: LinearOperator
    spacing: tuple[float, float, float]


class EvaluateReconstructiond(MapTransform):
    """Measures a result and its competitors against the truth; the data get an Evaluation, "evaluation".

    Args:
        keys: the result, in the prior's range and orientation.
        inferer, network: what made the result; `compare` runs them again with other noise.
        baselines: name -> reconstruction to compare with (see interslice.physics.baselines); the first is the input.
        noise_fields: name -> noise field, used if `compare` is on.
        compare: a switch: also sample with every field of `noise_fields`, and smooth the independent result afterwards.
        tv_weight: weight of that smoothing (see `interslice.physics.baselines.smooth`).
        image_key, label_key, region_key: the measurement, the truth, and a mask with 1 inside.
    """

    def __init__(self, keys, inferer: Inferer, network: torch.nn.Module, baselines: Mapping[str, Reconstruction],
                 noise_fields: Mapping[str, object], compare: bool | str = False, tv_weight: float = 0.03,
                 image_key: str = "image", label_key: str = "label", region_key: str = "region") -> None:  # fmt: skip
        super().__init__(keys)
        self.inferer, self.network = inferer, network
        self.baselines, self.noise_fields = dict(baselines), noise_fields
        self.compare, self.tv_weight = is_on(compare, "compare"), number("tv_weight", tv_weight, above=0)
        self.image_key, self.label_key, self.region_key = image_key, label_key, region_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        result, image = data[self.first_key(data)], data[self.image_key]
        truth = data[self.label_key].as_tensor()[0].float().cpu()
        y = image.as_tensor()[0].float().cpu()
        operator, found = operator_of(image), findings_of(result)
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

        def measure(x: torch.Tensor) -> dict:
            return evaluate(x, truth, DATA_RANGE, operator.background, residual(x), regions)

        metrics = {name: measure(x) for name, x in methods.items()}
        if "std" in found.maps:
            spread = found.maps["std"][0].float().cpu()
            metrics["recon"]["calibration"] = calibration(recon, spread, truth, found.num_draws, found.antithetic)
        titles = {name: title_of(name, self.baselines) for name in methods}
        spacing = tuple(float(s) for s in result.pixdim)
        evaluation = Evaluation(truth, methods, titles, metrics, tuple(self.baselines), operator, spacing)
        return dict(data) | {"evaluation": evaluation}

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
