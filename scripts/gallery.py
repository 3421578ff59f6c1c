"""Draws the pictures of docs/gallery.md from the embedded samples.

    python -m scripts.gallery                       # all, about ten minutes on two CPU cores
    python -m scripts.gallery --only noise ct       # some of them

Each scan is simulated from the embedded truth by configs/evaluate.json and reconstructed with its defaults, on the
middle of the volume, so that it takes minutes. Figures in the pictures are of that part.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow

from interslice.files.find import list_volumes
from interslice.files.findings import findings_of
from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.noise import named_noise
from interslice.planes import PLANES
from interslice.report.evaluation import Evaluation
from interslice.report.picture import INK, PAPER, oriented_slice
from interslice.report.trajectory.pictures import film, spread
from interslice.sampling import Trajectory
from scripts.draw_trajectory import middle

FOLDER = Path("docs/gallery")
LARGEST = 200_000
"""Bytes of a picture."""
QUALITIES = (90, 80, 70, 55, 40)
"""Of JPEG: the first that makes a picture small enough."""
WATCHED = {"num_steps": 8, "start_fraction": 0.5, "num_draws": 1}
"""Settings of the run whose steps are shown: from far back in the noise, so that there is much to see."""


@dataclass(frozen=True)
class Scene:
    """A scan that is simulated and reconstructed, and what is shown of it.

    Attributes:
        overlays: configs of the task.
        sample: folder of the truth.
        crop: voxels of its middle that are taken.
        shown: names of the methods, in the order of the columns.
        planes: the rows.
        window: grey values of black and white, in the prior's range.
        settings: ids that are set.
    """

    overlays: tuple[str, ...]
    sample: str
    crop: tuple[int, int, int]
    shown: tuple[str, ...]
    planes: tuple[str, ...]
    window: tuple[float, float]
    settings: Mapping = field(default_factory=dict)


SCENES = {
    "mri": Scene(
        (), "sample_data/mri/truth", (112, 128, 80), ("input", "total_variation", "recon"), ("coronal", "sagittal"),
        (-1.0, 0.6),
    ),
    "stacks": Scene(
        ("task_stacks",), "sample_data/mri/truth", (80, 96, 80), ("input", "total_variation", "recon"),
        ("coronal", "axial"), (-1.0, 1.0), {"operator#orientations": ["axial", "coronal"], "measurement_noise": 0.02},
    ),
    "ct": Scene(
        ("task_svct",), "sample_data/ct/truth", (128, 128, 24), ("input", "total_variation", "recon"),
        ("axial", "coronal"), (-1.0, 0.4), {"photons": 1e5},
    ),
    "kspace": Scene(
        ("task_csmri",), "sample_data/mri/truth", (168, 208, 16), ("input", "least_squares", "recon"), ("axial",),
        (-1.0, 1.0), {"acceleration": 6.0},
    ),
}  # fmt: skip


@dataclass
class Shot:
    """What became of a scene: the comparison, and the standard deviation of the draws, if there were several."""

    evaluation: Evaluation
    spread: torch.Tensor | None


def shoot(scene: Scene, observer: Trajectory | None = None, **overrides) -> Shot:
    """Simulate, reconstruct and compare; the observer sees the steps."""
    configs = [f"configs/{name}.json" for name in ("inference", "evaluate", *scene.overlays)]
    with tempfile.TemporaryDirectory() as folder:
        data = middle(Path(list_volumes(scene.sample)[0]["image"]), scene.crop, Path(folder))
        if scene.overlays:
            data.pop("scale")  # the task has its own
        ends = {"postprocessing": {"_target_": "Compose", "transforms": ["@evaluation"]}, "handlers": ["@load_weights"]}
        workflow = ConfigWorkflow(
            configs, workflow_type="inference", logging_file=False, output_dir=folder,
            **ends | data | dict(scene.settings) | overrides,
        )  # fmt: skip
        workflow.initialize()
        if observer is not None:
            workflow.parser.get_parsed_content("sampler").observer = observer
        workflow.evaluator.run()
        (done,) = workflow.evaluator.state.output
    spread = findings_of(done["pred"]).maps.get("std")
    return Shot(done["evaluation"], None if spread is None else spread[0].float().cpu())


def compared(shot: Shot, scene: Scene) -> Figure:
    """A row for each plane: the methods with their PSNR, and the truth."""
    e = shot.evaluation
    columns = {f"{e.titles[m]}\n{e.metrics[m]['volume']['psnr']:.1f} dB": e.methods[m] for m in scene.shown}
    columns["Truth\n "] = e.truth
    rows = {plane: {title: volume for title, volume in columns.items()} for plane in scene.planes}
    return table_of_slices(rows, e.spacing, scene.window)


def spread_of(shot: Shot, scene: Scene) -> Figure:
    """Result, standard deviation of the draws, and the error that there really is, in one scale."""
    e, plane = shot.evaluation, scene.planes[0]
    result, error = e.methods["recon"], (e.methods["recon"] - e.truth).abs()
    top = float(error.quantile(0.995) if error.numel() < 2**24 else error.max())
    maps = {"Standard deviation of the draws": shot.spread, "|Result - truth|": error}
    scaled = {title: scene.window[0] + (m / top).clamp(0, 1) * np.ptp(scene.window) for title, m in maps.items()}
    return table_of_slices({plane: {"Result": result} | scaled}, e.spacing, scene.window)


def watched(trajectory: Trajectory, scene: Scene) -> Figure:
    """A slice in four steps: with its noise, and below it denoised and made to agree with the scan."""
    (record,) = trajectory.records
    films = [film(record.slabs[scene.planes[0]], kind, scene.window) for kind in ("x_t", "x0_hat")]
    steps = spread(len(record.steps), 4)
    high, wide = films[0].images[0].shape
    figure = canvas(2, len(steps), width=2.6, ratio=films[0].aspect * high / wide)
    for row, shown in enumerate(films):
        for column, step in enumerate(steps):
            draw(figure.axes[row * len(steps) + column], shown.images[step], shown.window, shown.aspect)
    for axes, step in zip(figure.axes, steps):
        axes.set_title(f"step {step + 1}, t = {record.steps[step][1]}", color=INK, fontsize=9)
    return figure


def noise_fields(size: int = 64, slices: int = 40) -> Figure:
    """One draw of each field, cut across its slices: each row of a picture is a line of one slice."""
    names = ("independent", "mixed", "ou", "matern", "slerp", "identical")
    figure = canvas(1, len(names), width=2.0, ratio=slices / size)
    for axes, name in zip(figure.axes, names):
        field_of = named_noise(name)
        cut = field_of.draw(slices, (size, size), seed=1, step=0)[:, size // 2]
        draw(axes, cut.numpy(), (-2.5, 2.5), 1.0)
        axes.set_title(name, color=INK, fontsize=10)
    return figure


def table_of_slices(rows: Mapping[str, Mapping[str, torch.Tensor]], spacing, window: tuple[float, float]) -> Figure:
    """Middle slices: a row for each plane, a column for each title; volumes (X, Y, Z) in RAS+."""
    columns = list(next(iter(rows.values())))
    first = next(iter(next(iter(rows.values())).values()))
    ratios = []
    for plane in rows:
        across, up = (a for a in range(3) if a != PLANES[plane])
        ratios.append(first.shape[up] * spacing[up] / (first.shape[across] * spacing[across]))
    figure = canvas(len(rows), len(columns), width=2.6, ratio=ratios)
    for row, (plane, volumes) in enumerate(rows.items()):
        across, up = (a for a in range(3) if a != PLANES[plane])
        for column, title in enumerate(columns):
            axes, volume = figure.axes[row * len(columns) + column], np.asarray(volumes[title])
            draw(axes, oriented_slice(volume, plane, volume.shape[PLANES[plane]] // 2), window,
                 spacing[up] / spacing[across])  # fmt: skip
            if row == 0:
                axes.set_title(title, color=INK, fontsize=9)
    return figure


def canvas(rows: int, columns: int, width: float, ratio: float | list[float]) -> Figure:
    """Empty panels on dark paper, `width` inches wide each; `ratio` is height over width, of each row."""
    ratios = ratio if isinstance(ratio, list) else [ratio] * rows
    figure = Figure(figsize=(width * columns, width * sum(ratios) + 0.55), facecolor=PAPER, layout="constrained")
    figure.subplots(rows, columns, height_ratios=ratios, squeeze=False)
    return figure


def draw(axes, image: np.ndarray, window: tuple[float, float], aspect: float) -> None:
    """One picture, whose voxels are `aspect` times as high as wide."""
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
    axes.set_axis_off()


def save(figure: Figure, path: Path) -> None:
    """As JPEG, small enough for a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in QUALITIES:
        with written_whole(path) as partial:
            figure.savefig(partial, format="jpeg", dpi=110, pil_kwargs={"quality": quality, "optimize": True})
        if path.stat().st_size <= LARGEST:
            break
    print(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB)", flush=True)


def pictures(scenes: Mapping[str, Scene], watching: Mapping, overrides: Mapping) -> dict[str, Callable[[], Figure]]:
    """What makes each picture, by its name."""
    shots: dict[str, Shot] = {}

    def shot(name: str) -> Shot:
        if name not in shots:
            shots[name] = shoot(scenes[name], **overrides)
        return shots[name]

    def steps() -> Figure:
        trajectory = Trajectory(neighbours=1)
        shoot(scenes["mri"], trajectory, **dict(watching) | overrides)
        return watched(trajectory, scenes["mri"])

    def of(name: str) -> Callable[[], Figure]:
        return lambda: compared(shot(name), scenes[name])

    return {name: of(name) for name in scenes} | {
        "spread": lambda: spread_of(shot("mri"), scenes["mri"]), "steps": steps, "noise": noise_fields,
    }  # fmt: skip


def main(argv: list[str] | None = None, scenes: Mapping[str, Scene] | None = None, **overrides) -> None:
    """`scenes` and `overrides`, ids of the configs, are for tests on tiny volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers = pictures(scenes or SCENES, WATCHED, overrides)
    parser.add_argument("--only", nargs="+", choices=list(makers), help="by default all")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    args = parser.parse_args(argv)
    for name in args.only or makers:
        save(makers[name](), args.output / f"{name}.jpg")


if __name__ == "__main__":
    with plain_endings():
        main()
