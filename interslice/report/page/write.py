"""One page about one case, that opens in a browser without a network: pictures to look through, metrics, settings.

Everything is inside the file: the volumes (interslice.report.page.volumes), the viewer NiiVue, tables and charts
(interslice.report.page.parts), and our own scripts and styles in report/page/. docs/reference/report.md says how to
read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html import escape
from importlib import resources
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import Colormap, LinearSegmentedColormap
from monai.data import MetaTensor
from monai.transforms import Compose

from interslice.files.case_folder import Writer
from interslice.files.find import case_of
from interslice.files.findings import MAPS, findings_of
from interslice.files.restore import Restored
from interslice.files.switch import is_on
from interslice.files.values import rising_pair
from interslice.files.whole import written_whole
from interslice.files.write import finite
from interslice.physics.measurement import operator_of, reconstructed
from interslice.planes import PLANES
from interslice.report.page.doubts import doubt_list
from interslice.report.page.parts import coverage_chart, curves, dots, metric_tables, middle_slices, record_tables
from interslice.report.page.volumes import axes_of, canonical, decimals_of, levels_for, nifti_header, packed, step_of
from interslice.report.titles import RECON, title_of

GREY = ("input", "result", "truth")
"""Volumes of intensities, which share a window; all others are maps."""
TITLES = {"input": "Input", "result": "Result", "truth": "Truth", "error": "Error: result − truth",
          **{name: title[0].upper() + title[1:] for name, title in MAPS.items()}}  # fmt: skip
LIMITS = "Research software, not for diagnosis: what the prior fills in is plausible, not measured."
SIGNED = LinearSegmentedColormap.from_list("signed", ["#a8e1ff", "#1f6fd0", "#000000", "#c8501e", "#ffd9a0"])
"""Blue below zero, black at zero, orange above: for those who do not see red and green, too."""
ASSETS = resources.files("interslice.report.page")


def write_page(path: Path, title: str, volumes: Mapping[str, np.ndarray], affine: np.ndarray,
               window: tuple[float, float], labels: Mapping[str, str] | None = None, unit: str = "",
               metrics: Mapping[str, Mapping] | None = None, record: Mapping | None = None) -> None:  # fmt: skip
    """Write the page, whole or not at all; bytes of a name that are no text become question marks.

    Args:
        path: the file, usually `report.html`.
        title: name of the case.
        volumes: (X, Y, Z) by role, all on one grid: "input" and "result", and where there are any "truth", "std" (the
            standard deviation of the draws) and "filled" (the prior's part). The error is made of result and truth.
        affine: (4, 4), from voxels to mm in RAS+.
        window: intensities of black and white at the beginning.
        labels: titles of roles that are not called by TITLES.
        unit: of the intensities; none by default.
        metrics: metrics.json with the titles of the methods as keys; that of the result is RECON.
        record: run.json; of paths in it, only the last name is shown.

    Raises:
        ValueError: input or result is missing, shapes differ, voxels are not finite, or the window does not rise.
    """
    volumes = {name: np.asarray(v, dtype=np.float32) for name, v in volumes.items()}
    if not {"input", "result"} <= volumes.keys() <= TITLES.keys() - {"error"}:
        raise ValueError(
            f"a page shows input, result and, if any, truth, std and filled; got {', '.join(sorted(volumes))}"
        )
    if len({v.shape for v in volumes.values()}) > 1:
        shapes = ", ".join(f"{name} {v.shape}" for name, v in volumes.items())
        raise ValueError(f"the volumes of a page lie on one grid; got {shapes}")
    broken = [name for name, v in volumes.items() if not np.isfinite([v.min(), v.max()]).all()]
    if broken:
        raise ValueError(f"not all voxels of {', '.join(broken)} are finite: the page would show nothing")
    if not window[1] > window[0]:
        raise ValueError(f"the window must rise, got {window[0]:g} to {window[1]:g}")
    affine, labels = np.asarray(affine, dtype=np.float64), TITLES | dict(labels or {})
    record, metrics = without_folders(dict(record or {})), metrics or {}
    contents = settings_of(volumes, affine)
    data = {
        "shape": list(volumes["result"].shape), "affine": affine.tolist(), "window": list(window), "unit": unit,
        "labels": labels, "volumes": contents,
        "range": [float(f(volumes[n])) for f, n in ((np.min, "result"), (np.max, "result"))],
        "colours": {"inferno": colour_table(colormaps["inferno"]), "signed": colour_table(SIGNED)},
    }  # fmt: skip
    parts = {
        "title": escape(title),
        "limits": escape(LIMITS),
        "doubts": doubt_list(record.get("doubts") or ()),
        "scan": escape(str(record.get("scan") or "")),
        "pictures": static_pictures(volumes, affine, window, labels),
        "metrics": metric_section(metrics),
        "curves": "".join(neighbour_curves(volumes, affine, labels, unit)),
        "settings": record_tables(record),
        "licence": escape((ASSETS / "NIIVUE-LICENSE").read_text(encoding="utf-8")),
        "data": json.dumps(data).replace("<", "\\u003c"),
        "volumes": embedded(volumes, contents),
    } | {name: (ASSETS / file).read_text(encoding="utf-8") for name, file in SCRIPTS.items()}
    template = (ASSETS / "template.html").read_text(encoding="utf-8")
    with written_whole(Path(path)) as partial, partial.open("w", encoding="utf-8", errors="replace") as file:
        for i, text in enumerate(re.split(r"\{\{(\w+)\}\}", template)):
            part = parts[text] if i % 2 else text
            file.writelines([part] if isinstance(part, str) else part)


SCRIPTS = {"style": "page.css", "niivue": "niivue.umd.js", "volumes_js": "volumes.js", "picture_js": "picture.js",
           "page_js": "page.js"}  # fmt: skip
"""Files that go into the page as they are."""


def settings_of(volumes: Mapping[str, np.ndarray], affine: np.ndarray) -> dict[str, dict]:
    """How each volume is packed and shown."""
    voxels = volumes["result"].size
    grey = step_of((volumes[n] for n in GREY if n in volumes), levels_for(voxels))
    contents = {}
    for name, volume in volumes.items():
        # The scale of a map begins at 0.
        step, offset = grey if name in GREY else (step_of([volume, np.zeros(1)], levels_for(voxels, True))[0], 0.0)
        contents[name] = {
            "step": step, "offset": offset, "decimals": decimals_of(step), "axes": axes_of(volume, step, offset),
            "kind": "grey", "header": nifti_header(volume.shape, affine, step, offset),
        }  # fmt: skip
        if name not in GREY:
            limit = float(np.quantile(np.abs(volume), 0.995, overwrite_input=True)) or 1.0
            contents[name] |= {"kind": "signed" if name == "filled" else "spread", "limit": limit}
    if "truth" in volumes:
        contents["error"] = {"step": grey[0], "offset": 0.0, "decimals": decimals_of(grey[0]), "kind": "signed"}
    return contents


def embedded(volumes: Mapping[str, np.ndarray], contents: Mapping[str, Mapping]) -> Iterator[str]:
    """The elements that hold the volumes, in pieces: a page is as large as its volumes, and is never held whole."""
    for i, (name, volume) in enumerate(volumes.items()):
        how = contents[name]
        yield "\n" * (i > 0) + f'<script type="text/plain" id="volume-{name}">'
        yield from packed(volume, how["step"], how["offset"], how["axes"])
        yield "</script>"


def colour_table(colours: Colormap) -> list[list[int]]:
    """256 colours as [red, green, blue]."""
    return np.rint(255 * colours(np.linspace(0, 1, 256))[:, :3]).astype(int).tolist()


def static_pictures(volumes: Mapping[str, np.ndarray], affine: np.ndarray, window: tuple[float, float],
                    labels: Mapping[str, str]) -> str:  # fmt: skip
    """Middle slices of the grey volumes, for paper and for browsers that cannot draw volumes."""
    figures = []
    for name in GREY:
        if name in volumes:
            images = "".join(
                f'<img src="data:image/png;base64,{png}" alt="{escape(labels[name])}, middle {plane} slice">'
                for plane, png in middle_slices(volumes[name], affine, window).items()
            )
            figures.append(f"<figure>{images}<figcaption>{escape(labels[name])}</figcaption></figure>")
    return "".join(figures)


def metric_section(metrics: Mapping[str, Mapping]) -> str:
    """Charts and tables of the metrics, or nothing."""
    if not metrics:
        return ""
    charts = [
        dots("PSNR of the volume, dB", {n: m["volume"]["psnr"] for n, m in metrics.items()}, ".2f", RECON),
        dots("SSIM of the volume", {n: m["volume"]["ssim"] for n, m in metrics.items()}, ".3f", RECON),
    ]
    for plane in PLANES:
        found = {n: m["inter_slice"][plane]["error"] for n, m in metrics.items()}
        errors = {n: None if e is None else 1000 * e for n, e in found.items()}
        charts.append(dots(f"Inter-slice error × 1000, {plane}; lower is better", errors, ".2f", RECON))
    spread = next((m["calibration"] for m in metrics.values() if "calibration" in m), None)
    if spread:
        charts.append(coverage_chart("Is the spread honest? Actual share, %", spread["nominal"], spread["coverage"]))
    return (
        '<section aria-labelledby="h-metrics"><h2 id="h-metrics">How close to the truth</h2>'
        "<p>The measurement was simulated from a known truth, and each method reconstructed it. ◆ is this run; ★ marks "
        f'the best of a column.</p><div class="charts">{"".join(charts)}</div>{metric_tables(metrics)}</section>'
    )


def neighbour_curves(volumes: Mapping[str, np.ndarray], affine: np.ndarray, labels: Mapping[str, str],
                     unit: str) -> list[str]:  # fmt: skip
    """Per plane, the mean |difference| of neighbouring slices of input, result and truth, along the slices."""
    shown = {labels[n]: canonical(volumes[n], affine) for n in GREY if n in volumes}
    classes = {labels[n]: n for n in GREY}
    found = {name: neighbour_profiles(volume) for name, (volume, _) in shown.items()}
    charts = []
    for plane, axis in PLANES.items():
        profiles = {name: several[axis] for name, several in found.items() if len(several[axis])}
        if profiles:
            spacing = next(iter(shown.values()))[1][axis]
            name = f"{plane.capitalize()} slices: mean |difference| of neighbours" + (f", {unit}" if unit else "")
            charts.append(curves(name, profiles, spacing, "position, mm", classes))
    return charts


def neighbour_profiles(volume: np.ndarray) -> list[np.ndarray]:
    """Per axis of (X, Y, Z), the mean |difference| of slices i and i + 1 across it; slice by slice, to save memory."""
    sums = [np.zeros(max(0, n - 1)) for n in volume.shape]
    for i, image in enumerate(volume):
        if i:
            sums[0][i - 1] = np.abs(image - volume[i - 1]).sum(dtype=np.float64)
        for axis in (1, 2):
            sums[axis] += np.abs(np.diff(image, axis=axis - 1)).sum(2 - axis, dtype=np.float64)
    return [total / (volume.size // n) for total, n in zip(sums, volume.shape)]


def without_folders(value):
    """A record in which paths have lost their folders: they may say whose machine, and whose data, it was."""
    if isinstance(value, Mapping):
        return {
            k: PurePosixPath(PureWindowsPath(v).as_posix()).name
            if k in ("source", "checkpoint") and isinstance(v, str)
            else without_folders(v)
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_folders(v) for v in value]
    return FOLDERS.sub("", value) if isinstance(value, str) else value


FOLDERS = re.compile(r"""(?<![\w.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^/\\'",()\[\]]+[/\\])*(?=[^\s/\\])""")
"""The folders at the beginning of an absolute path, or of one that begins with a dot, within any text."""


class WriteReport(Writer):
    """Writes `report.html` of a case.

    Args:
        preprocessing: the transforms that interslice.files.restore.Restored undoes.
        baselines: name -> reconstruction (y, operator) -> x; the first is shown as the input.
        record: (image and pred of one result) -> what run.json says of it (interslice.files.run_record.RunRecord.of).
        window: grey window at the beginning, in the prior's range.
        unit: of the result's intensities.
        enabled: a switch; where it is off, no page is written.
    """

    def __init__(self, preprocessing: Compose, baselines: Mapping[str, Callable], record: Callable[[Mapping], dict],
                 window: tuple[float, float] = (-1.0, 1.0), unit: str = "", enabled: bool | str = True,
                 ) -> None:  # fmt: skip
        self.restored, self.baselines, self.record = Restored("pred", preprocessing), dict(baselines), record
        self.window, self.unit, self.enabled = rising_pair("window", window), str(unit), is_on(enabled, "report")

    def write(self, result: dict, folder: Path) -> None:
        if not self.enabled:
            return
        evaluation = result.get("evaluation")
        metrics = {} if evaluation is None else finite(evaluation.metrics)
        name, baseline = next(iter(self.baselines.items()))
        write_page(
            folder / "report.html", case_of(result["image"]), self.volumes(result, baseline),
            result["pred"].affine.numpy(), self.grey_window(result["image"]),
            {"input": title_of(name, self.baselines)}, self.unit,
            {evaluation.titles[n]: m for n, m in metrics.items()}, self.record(result),
        )  # fmt: skip

    def volumes(self, item: Mapping, baseline: Callable) -> dict[str, np.ndarray]:
        """What `write_page` shows of one result, on its grid and in its intensities."""
        image = item["image"]
        y = image.as_tensor()[0].float().cpu()
        shown = {"input": self.in_result_space(baseline(y, operator_of(image)), image), "result": item["pred"]}
        if isinstance(item.get("label"), torch.Tensor):
            shown["truth"] = self.in_result_space(item["label"][0].cpu(), image)
        shown |= findings_of(item["pred"]).maps
        return {name: torch.as_tensor(v).cpu().float().numpy()[0] for name, v in shown.items()}

    def in_result_space(self, x: torch.Tensor, image: MetaTensor) -> torch.Tensor:
        """A volume (X, Y, Z) of the solver as the result is: (1, X', Y', Z'), the scanner's intensities and axes."""
        x = x.as_tensor() if isinstance(x, MetaTensor) else x
        return self.restored({"pred": reconstructed(x, image)})["pred"].as_tensor()

    def grey_window(self, image: MetaTensor) -> tuple[float, float]:
        """The window in the result's intensities."""
        restored = self.in_result_space(torch.tensor(self.window).reshape(2, 1, 1), image)
        return float(restored.min()), float(restored.max())
