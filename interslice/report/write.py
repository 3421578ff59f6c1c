"""Writes evaluations: metrics.json and report.png beside each result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from interslice.files.case_folder import Writer
from interslice.files.find import case_of
from interslice.files.values import rising_pair
from interslice.files.whole import written_whole
from interslice.files.write import write_json
from interslice.planes import plane_across
from interslice.report.evaluation import DATA_RANGE, Evaluation
from interslice.report.picture import Panel, report


class WriteEvaluation(Writer):
    """Writes `metrics.json` and `report.png` of results that were evaluated.

    Args:
        window: grey window of the picture, in the prior's range.
    """

    def __init__(self, window: tuple[float, float] = (-1.0, 1.0)) -> None:
        self.window = rising_pair("window", window)

    def write(self, result: dict, folder: Path) -> None:
        evaluation = result.get("evaluation")
        if evaluation is None:
            return
        write_json(folder / "metrics.json", evaluation.metrics)
        with written_whole(folder / "report.png") as partial:
            picture(evaluation, case_of(result["image"]), self.window).savefig(partial, dpi=110, format="png")


def picture(evaluation: Evaluation, case: str, window: tuple[float, float]) -> Figure:
    """Truth, input, the baseline of the highest PSNR and the result; with other noise fields, independent noise too."""
    titles, metrics, methods = evaluation.titles, evaluation.metrics, evaluation.methods
    first = evaluation.baselines[0]
    best = max(evaluation.baselines, key=lambda n: metrics[n]["volume"]["psnr"])
    shown = list(dict.fromkeys((first, best, "recon")))
    axis = evaluation.operator.slice_axes[0]

    def panel(name: str) -> Panel:
        volume = metrics[name]["volume"]
        caption = f"PSNR {volume['psnr']:.2f} dB, SSIM {volume['ssim']:.3f}"
        return Panel(titles[name], methods[name].numpy(), caption)

    def profile(d: torch.Tensor) -> np.ndarray:
        return d.abs().movedim(axis, 0).flatten(1).mean(1).numpy() / DATA_RANGE

    names = [*shown, "independent"] if "independent" in methods else shown
    truth = evaluation.truth.diff(dim=axis)
    differences = {titles[n]: methods[n].diff(dim=axis) for n in names}
    return report(
        Panel("Truth", evaluation.truth.numpy()),
        [panel(n) for n in shown],
        evaluation.spacing,
        window,
        {name: profile(d) for name, d in {"Truth": truth, **differences}.items()},
        plane_across(axis),
        f"{case}: {evaluation.operator}",
        {name: profile(d - truth) for name, d in differences.items()},
    )
