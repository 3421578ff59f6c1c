"""What is left of the bands of interleaved slices, in real scans and in simulated ones; and what scans without lose.

    python -m scripts.studies.bands --real_dir FOLDER --data_dir FOLDER      docs/bands.json, docs/bands.png
    python -m scripts.studies.bands --real_dir FOLDER --result SCAN          also in the result of a crop of one of them
    python -m scripts.studies.bands --picture_only                           the picture alone

Odd-even difference: the logarithmic step from slice to slice in flat tissue, with alternating signs; its median over
the whole scan, and its means on blocks of 16 mm and eight slices ("places"), of which the median size and the root
mean square are given. Anatomy changes from slice to slice, too: places of scans without bands say how much. --data_dir
holds isotropic volumes, of which slices of 4 mm are simulated, with bands that are weaker on one side of the head, and
with bands that change over it at random, with a third of their mean and lengths of 60 and 120 mm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, zoom

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.thick.bands import find_bands, flat_steps
from interslice.report.picture import oriented_slice
from interslice.report.trajectory.pictures import save_small
from scripts.studies.bench import Measured
from scripts.studies.thickness import loaded, sampled

BLOCK_MM, BLOCK_SLICES, FILLED = 16.0, 8, 0.3
"""Size of a place, and the part of it that is flat tissue, at least."""
STEPS, TILT, PITCH = (0.02, 0.05), 0.5, 4.0
"""Of simulated bands: their size, by how much they change towards either side, and the distance of slices in mm."""
LENGTHS, SHARES, KNOT = (60.0, 120.0), (0.2, 0.25), 0.5
"""Of bands that change at random: lengths in mm, standard deviations as shares of the mean, and knots per length."""
CROP = (128, 128)
"""Of the scan whose result is made: voxels in plane."""
SAMPLE = Path("sample_data/mri/truth")


def odd_even(voxels: torch.Tensor, axis: int, spacing) -> dict[str, float]:
    """The odd-even difference of a scan (X, Y, Z) in percent: whole, and place by place."""
    steps, flat = flat_steps(np.ascontiguousarray(voxels.movedim(axis, 0).numpy()))
    signed = steps.clip(-0.3, 0.3) * (1 - 2 * (np.arange(len(steps)) % 2))[:, None, None]
    medians = [np.median(s[f]) for s, f in zip(signed, flat) if f.sum() > 200]
    size = [max(1, round(BLOCK_MM / s)) for a, s in enumerate(spacing) if a != axis]
    places = []
    for k in range(0, len(steps) - BLOCK_SLICES + 1, BLOCK_SLICES):
        total, count = (
            _sums(part, size) for part in ((signed * flat)[k : k + BLOCK_SLICES], flat[k : k + BLOCK_SLICES])
        )
        enough = count > FILLED * BLOCK_SLICES * size[0] * size[1]
        places.extend(total[enough] / count[enough])
    places = np.array(places) if places else np.zeros(1)
    return _rounded(
        whole=100 * abs(np.mean(medians)),
        place_median=100 * np.median(np.abs(places)),
        place_rms=100 * np.sqrt(np.square(places).mean()),
    )


def _sums(block: np.ndarray, size) -> np.ndarray:
    plane = block.sum(0, dtype=np.float64)
    for axis, k in enumerate(size):
        plane = np.add.reduceat(plane, np.arange(0, plane.shape[axis], k), axis=axis)
    return plane


def _rounded(**values: float) -> dict[str, float]:
    return {name: float(f"{value:.3g}") for name, value in values.items()}


def log_change(after: torch.Tensor, before: torch.Tensor) -> float:
    """Root mean square of log(after / before) in percent, where there is subject."""
    inside = before > 0.2 * before.quantile(0.99) if before.numel() < 1e7 else before > 0.2 * before.max()
    return 100 * float((after[inside] / before[inside]).clamp(min=1e-3).log().square().mean().sqrt())


def of_scan(path: Path) -> dict:
    """One real scan: packages that are found, the differences before and after, and what evening by force changes."""
    volume, spacing = loaded(path)
    voxels, axis = torch.from_numpy(volume), int(np.argmax(spacing))
    found = find_bands(voxels, axis, "auto", spacing)
    record = {"packages": found.packages, "before": odd_even(voxels, axis, spacing)}
    if found.packages > 1:
        return record | {"after": odd_even(found.evened(voxels), axis, spacing)}
    forced = find_bands(voxels, axis, 2, spacing).evened(voxels)
    return record | {
        "change": float((found.evened(voxels) - voxels).abs().max()),
        **_rounded(change_if_forced=log_change(forced, voxels)),
    }


def with_bands(scan: torch.Tensor, step: float, tilt: float = TILT) -> torch.Tensor:
    """Slices along the last axis, every other one brighter by `step`, more on one side of the first axis."""
    side = 1 + tilt * torch.linspace(-1, 1, scan.shape[0])[:, None, None]
    return scan * torch.exp(step * side * (torch.arange(scan.shape[2]) % 2 - 0.5))


def with_uneven_bands(scan: torch.Tensor, step: float, spacing, seed: int = 0) -> torch.Tensor:
    """The same with bands that change at random over the head: LENGTHS, SHARES."""
    draw = np.random.default_rng(seed)
    place = np.ones(tuple(scan.shape), np.float32)
    for length, share in zip(LENGTHS, SHARES):
        knots = [int(n * s / (KNOT * length)) + 3 for n, s in zip(scan.shape, spacing)]
        field = gaussian_filter(draw.normal(size=knots), 1.0, mode="wrap")
        factors = [n / m for n, m in zip(scan.shape, knots)]
        place += share * zoom(field / field.std(), factors, order=3, mode="nearest", grid_mode=True)
    return scan * torch.exp(step * torch.from_numpy(place) * (torch.arange(scan.shape[2]) % 2 - 0.5))


def of_volume(path: Path) -> dict:
    """Simulated bands of one volume: part of their logarithm that is left, and what is found of a scan without."""
    volume, spacing = loaded(path)
    scan, there = sampled(volume, spacing[2], 2, PITCH, "box", PITCH), [*spacing[:2], PITCH]
    record = {"packages_without": find_bands(scan, 2, "auto", there).packages}
    kinds = {f"step_{step}": with_bands(scan, step) for step in STEPS}
    kinds |= {f"uneven_{step}": with_uneven_bands(scan, step, there) for step in STEPS}
    for kind, banded in kinds.items():
        found = find_bands(banded, 2, "auto", there)
        left = log_change(find_bands(banded, 2, 2, there).evened(banded), scan) / log_change(banded, scan)
        record[kind] = {"packages": found.packages, **_rounded(left=left)}
    return record


def of_result(path: Path, preset: str) -> dict:
    """The middle of a scan, reconstructed with its bands and without: differences at the middles of the slices."""
    image = nib.as_closest_canonical(nib.load(path))
    axis = int(np.argmax(image.header.get_zooms()[:3]))
    others = [a for a in range(3) if a != axis]
    box = [slice(None)] * 3
    for a, size in zip(others, CROP):
        middle = image.shape[a] // 2
        box[a] = slice(max(0, middle - size // 2), middle + size // 2)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "crop.nii.gz"
        nib.save(image.slicer[tuple(box)], cut)
        for name, packages in (("before", 1), ("after", 2)):
            ids = {"preset": preset, "report": False, "operator#packages": packages}
            measured = Measured(["inference"], cut, **ids)
            operator = measured.operator
            x = (measured.sample() + 1).clamp(min=0)  # air is -1 in the prior's range
            middles = (
                operator.thickness / 2 + operator.pitch * torch.arange(operator.range_shape[axis])
            ) / operator.spacing
            at = middles.long().clamp(max=x.shape[axis] - 1)
            found[name] = odd_even(x.index_select(axis, at), axis, measured.image.pixdim.tolist())
    return found | {"preset": preset, "crop": list(CROP)}


def draw(target: Path) -> None:
    """The embedded head: coronal views of simulated slices with bands of 8 percent, and evened."""
    volume, spacing = loaded(sorted(SAMPLE.glob("*.nii.gz"))[0])
    clean, there = sampled(volume, spacing[2], 2, 3.0, "box", 3.0), [*spacing[:2], 3.0]
    banded = with_bands(clean, 0.08)
    shown = {"slices": clean, "with bands": banded, "evened": find_bands(banded, 2, "auto", there).evened(banded)}
    figure = Figure(figsize=(9, 1.8), layout="constrained")
    for axes, (name, scan) in zip(figure.subplots(1, 3), shown.items()):
        picture = oriented_slice(scan.numpy(), "coronal", scan.shape[1] // 2)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=float(clean.quantile(0.999)), aspect=3.0 / spacing[0])
        axes.set_title(name)
        axes.set_axis_off()
    save_small(figure, target)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real_dir", type=Path, help="folder with real thick scans")
    parser.add_argument("--data_dir", type=Path, help="folder with isotropic volumes")
    parser.add_argument("--result", help="name of a real scan to reconstruct")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--picture_only", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("docs/bands.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if not args.picture_only:
        record = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
        for part, folder, measure in (("real", args.real_dir, of_scan), ("simulated", args.data_dir, of_volume)):
            if folder is None or (part == "real" and args.result):
                continue
            record[part] = {}
            for path in sorted(folder.glob("*.nii.gz")):
                record[part][path.name.removesuffix(".nii.gz")] = measure(path)
                print(f"{path.name}: done", flush=True)
                write_json(args.output, record)
        if args.result:
            if args.real_dir is None:
                raise ValueError("--result names a scan of --real_dir: give both")
            record["result"] = {args.result: of_result(args.real_dir / f"{args.result}.nii.gz", args.preset)}
            write_json(args.output, record)
        print(f"wrote {args.output}")
    draw(args.output.with_suffix(".png"))


if __name__ == "__main__":
    with plain_endings("the same command begins anew"):
        main()
