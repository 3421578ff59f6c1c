"""Where the shipped CT prior stops being right: parts of the body that it has seen, and others.

    python -m scripts.studies.ct_body_parts --data_dir FOLDER
                                        docs/ct_body_parts.json, and the table of docs/explanation/prior_ct.md

Each of PARTS that FOLDER holds is reduced to SLICES slices of at most SIZE x SIZE pixels at SPACING mm, scanned in 30
parallel views with PHOTONS, and reconstructed by total variation and by the default run. What the prior itself knows is
told by the noise that one pass of it leaves at t = T_PASS, as a share of the noise that was there (mean over planes): a
perfect prior leaves what cannot be known.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.files.write import write_json
from interslice.usage import UsageError
from scripts.data.synthesise_bodies import cubic, resample
from scripts.studies.bench import Bench
from scripts.studies.record import Record, sha256
from scripts.studies.tables import fill, table

PHOTONS = 1e5
SPACING, SIZE, SLICES = 2.5, 96, 16
T_PASS = 20


@dataclass(frozen=True)
class Part:
    """A part of a body: its title, the volume, the height of its middle as a share of the volume's, what trained."""

    title: str
    volume: str
    height: float
    seen: str


PARTS = {
    "thorax": Part("chest, slices left out of training", "totalsegmentator_thorax", 0.29, "the person"),
    "abdomen": Part("abdomen (3 mm)", "totalsegmentator_abdomen", 0.5, "yes, deformed"),
    "chest": Part("chest", "lidc_idri_0001", 0.5, "no"),
    "chest_2": Part("chest", "ct_chest_andrei", 0.7, "no"),
    "upper_abdomen": Part("upper abdomen", "ct_chest_andrei", 0.2, "no"),
    "skull_base": Part("skull base", "invesalius_head", 0.2, "no, nor any head"),
    "brain": Part("head at the ventricles", "invesalius_head", 0.6, "no, nor any head"),
}
"""`invesalius_head` is the example of Debian's invesalius-examples: its matrix, 0.957 x 0.957 x 1.5 mm."""
METHODS = ("total_variation", "ours")


def cut(source: Path, part: Part, target: Path) -> Path:
    """Write the piece of a volume to `target`, unless it is there."""
    if target.exists():
        return target
    image = nib.as_closest_canonical(nib.load(source))
    volume, spacing = cubic(torch.from_numpy(image.get_fdata(dtype=np.float32)), image.header.get_zooms()[:3])
    if spacing < SPACING:
        volume, spacing = resample(volume, spacing, SPACING), SPACING
    places = [slice(max(0, (n - SIZE) // 2), (n - SIZE) // 2 + SIZE) for n in volume.shape[:2]]
    bottom = min(max(0, round(part.height * volume.shape[2]) - SLICES // 2), volume.shape[2] - SLICES)
    piece = volume[(*places, slice(bottom, bottom + SLICES))].clamp_min(-1024).contiguous()
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as partial_file:
        nib.save(nib.Nifti1Image(piece.numpy(), np.diag([spacing] * 3 + [1.0])), partial_file)
    return target


def noise_left(bench: Bench) -> float:
    """Error of one denoising pass over the noise that was added, root mean squares, mean over the three planes."""
    sampler = bench.inferer
    while hasattr(sampler, "inferer"):
        sampler = sampler.inferer
    ab = float(sampler.alpha_bars[T_PASS])
    noise = torch.randn(bench.truth.shape, generator=torch.Generator().manual_seed(0))
    x_t = ab**0.5 * bench.truth + (1 - ab) ** 0.5 * noise
    with torch.inference_mode():
        left = [(sampler.prior(bench.network, x_t.clone(), T_PASS, axis) - bench.truth) for axis in range(3)]
    return float(np.mean([e.square().mean().sqrt() for e in left])) / ((1 - ab) / ab) ** 0.5


def run(data_dir: Path, work_dir: Path, others: dict, key: tuple) -> dict:
    """Metrics of a method on a part; with ours, what the prior knows."""
    name, method = key
    part = PARTS[name]
    volume = cut(data_dir / f"{part.volume}.nii.gz", part, work_dir / f"{name}.nii.gz")
    bench = Bench(["task_svct"], volume, photons=PHOTONS, report=False, compare=False, **others)
    if method != "ours":
        return bench.measure(bench.reconstruct(method))
    return bench.measure(bench.sample()) | {"noise_left": float(f"{noise_left(bench):.4g}")}


def write_table(record: dict, page: Path) -> None:
    """One row per part."""
    rows = []
    for name, runs in record["results"].items():
        tv, ours, part = runs["total_variation"], runs["ours"], PARTS[name]
        row = [part.title, part.volume, part.seen, f"{100 * ours['noise_left']:.1f}"]
        row += [f"{m['psnr']:.2f} / {m['ssim']:.3f}" for m in (tv, ours)]
        rows.append([*row, f"{ours['psnr'] - tv['psnr']:+.2f}", f"{ours['error_axial'] / tv['error_axial']:.2f}"])
    header = ["part", "volume", "trained on", f"noise left at t = {T_PASS} (%)", "total variation, PSNR / SSIM"]
    header += ["default run", "gain (dB)", "ratio of inter-slice errors, axial"]
    note = f"30 parallel views, {PHOTONS:g} photons. Made by `python -m scripts.studies.ct_body_parts`."
    fill(page, "ct body parts", f"{note}\n\n{table(header, rows)}")


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="holds NAME.nii.gz of the volumes of PARTS")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/ct_body_parts"))
    parser.add_argument("--output", type=Path, default=Path("docs/ct_body_parts.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/explanation/prior_ct.md"))
    args = parser.parse_args(argv)
    files = {p.volume: args.data_dir / f"{p.volume}.nii.gz" for p in PARTS.values()}
    there = {volume: sha256(path) for volume, path in files.items() if path.exists()}
    if not there:
        raise UsageError(f"{args.data_dir} holds none of {', '.join(path.name for path in files.values())}")
    print("".join(f"{path} is missing: left out\n" for name, path in files.items() if name not in there), end="")
    record = Record(args.output, {"photons": PHOTONS, "spacing": SPACING, "slices": SLICES}, there)
    keys = [(name, method) for name, part in PARTS.items() if part.volume in there for method in METHODS]
    record.fill(keys, partial(run, args.data_dir, args.work_dir, others), "parts")
    write_json(args.output, record.content)
    write_table(record.content, args.page)
    print(f"wrote {args.output} and {args.page}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
