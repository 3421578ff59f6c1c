"""A thick scan with another contrast of the same patient as a guide, against the same scan without.

    python -m scripts.studies.guide --data_dir FOLDER       docs/guide.json, and the tables of docs/how_to/guide.md

The shown patient with a stroke was scanned in three contrasts: each, in slices of 5 mm, is reconstructed with each
other one as its guide, and without. Settings are those of configs/inference.json and `--guide`: guides are whole scans,
registered to what is measured; one of them also with a header that is wrong by TURNED and MOVED. Beside PSNR and SSIM
of the whole, the error is told apart by the edges of truth and guide:

    shared   (xi . n)^2 >= 1/2     voxels where the truth has an edge, n its direction, and the guide's xi makes it free
    alone    (xi . n)^2 < 1/4      voxels where it has one that the guide lacks, or has in another direction
    flat                           voxels where it has none

No choice is made by these scans: see scripts/studies/tune_guide.py.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.files.last_words import plain_endings
from interslice.physics.variation import Variation
from interslice.report.evaluation import DATA_RANGE
from scripts.studies.bench import Bench, defaults
from scripts.studies.record import Record, sha256
from scripts.studies.shown import PEOPLE, find_people, prepare
from scripts.studies.tables import fill, table

SCANS = ("t1_stroke", "t2_stroke", "flair_stroke")
CROP = (64, 112, 90)
TURNED, MOVED = (5.0, -4.0, 6.0), (3.0, -2.0, 4.0)
"""Degrees about the axes, and mm."""
METHODS = ("cubic_consistent", "total_variation", "recon")
TITLES = {"cubic_consistent": "cubic, made consistent", "total_variation": "total variation", "recon": "diffusion"}
EDGE = 0.7
"""Length of the truth's own xi from which there is an edge: differences of 0.1."""


def zones(truth: torch.Tensor, guide: torch.Tensor, gains) -> dict[str, torch.Tensor]:
    """The masks above (X, Y, Z); voxels where the guide shows nothing are in none."""
    own, other = (Variation(gains, volume).field(truth) for volume in (truth, guide))
    length = own.norm(dim=0)
    free = (own * other).sum(0).div_(length.clamp_min(1e-6)).square_()
    known, edge = torch.isfinite(guide), length > EDGE
    masks = {"shared": edge & (free >= 0.5), "alone": edge & (free < 0.25), "flat": ~edge}
    return {name: mask & known for name, mask in masks.items()}


def psnr_in(x: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """Of the voxels of a mask."""
    error = float((x - truth)[mask].double().square().mean().sqrt())
    return float(f"{20 * np.log10(DATA_RANGE / error):.5g}")


def misplaced(source: Path, target: Path) -> Path:
    """Write a scan whose header is wrong by TURNED and MOVED."""
    image = nib.load(source)
    wrong = nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(TURNED)), MOVED)
    target.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), wrong @ image.affine), target)
    return target


class Guides:
    """Runs of the study: scan, guide ("none", a scan, or a scan and " misplaced"), method."""

    def __init__(self, files: dict[str, Path], size, checkpoint: str, work_dir: Path, ids: dict) -> None:
        self.files, self.size, self.checkpoint, self.work_dir, self.ids = files, size, checkpoint, work_dir, ids
        self.bench = lru_cache(maxsize=1)(self._bench)

    def _bench(self, scan: str, guide: str) -> Bench:
        path, scale = prepare(self.files[scan], scan, PEOPLE[scan].brain_only, self.size, self.work_dir)
        ids = {"checkpoint": self.checkpoint, "report": False, **scale, **self.ids}
        if guide != "none":
            ids["guide"] = str(self._guide(guide))
        return Bench([], path, **ids)

    def _guide(self, guide: str) -> Path:
        name, _, wrong = guide.partition(" ")
        return self.files[name] if not wrong else misplaced(self.files[name], self.work_dir / f"{name}.nii.gz")

    @lru_cache(maxsize=8)  # noqa: B019  one object for a study
    def placed(self, scan: str, guide: str) -> torch.Tensor:
        """A guide on the grid of the scan's volume, (X, Y, Z)."""
        return self.bench(scan, guide).operator.guide.cpu()

    def run(self, key: tuple) -> dict:
        """Metrics; without a guide, the zones of each guide."""
        scan, guide, method = key
        others = [name for name in SCANS if name != scan and name in self.files] if guide == "none" else [guide]
        guides = {name: self.placed(scan, name) for name in others}
        bench = self.bench(scan, guide)
        x = bench.sample() if method == "recon" else bench.reconstruct(method)
        found = bench.measure(x)
        for name, volume in guides.items():
            masks = zones(bench.truth, volume, bench.operator.gains)
            found[f"zones {name}"] = {zone: psnr_in(x, bench.truth, mask) for zone, mask in masks.items()}
            found[f"share {name}"] = {zone: round(float(m.float().mean()), 4) for zone, m in masks.items()}
        prepared = bench.item["image"].meta.get("prepared")
        if prepared is not None:
            found["guide"] = {k: v for k, v in prepared.found["guide"].items() if k != "file"}
        return found


def plan(scans: list[str]):
    """Keys of all runs."""
    for scan in scans:
        yield from ((scan, "none", method) for method in METHODS)
        for guide in scans:
            if guide != scan:
                yield from ((scan, guide, method) for method in METHODS[1:])
    if {"t1_stroke", "t2_stroke"} <= set(scans):
        yield from (("t2_stroke", "t1_stroke misplaced", method) for method in METHODS[1:])


def whole_table(results: dict) -> str:
    """PSNR and SSIM of each scan, guide and method."""
    rows = [
        [PEOPLE[scan].title, words_of(guide), TITLES[method], f"{run['psnr']:.2f}", f"{run['ssim']:.3f}"]
        + [f"{run['guide'][k]:.2f}" if "guide" in run else "–" for k in ("shared_edges", "turned_degrees", "moved_mm")]
        for scan, guides in results.items()
        for guide, methods in guides.items()
        for method, run in methods.items()
    ]
    header = ["scan", "guide", "method", "PSNR (dB)", "SSIM", "edges shared", "turned (degrees)", "moved (mm)"]
    return table(header, rows)


def zone_table(results: dict) -> str:
    """Gain (dB) by a guide where edges are shared, where the scan's are alone, and where it is flat."""
    rows = []
    for scan, guides in results.items():
        for guide in (g for g in guides if g != "none" and " " not in g):
            for method in (m for m in METHODS if m in guides[guide]):
                run, without = (guides[g][method][f"zones {guide}"] for g in (guide, "none"))
                share = guides[guide][method][f"share {guide}"]
                gains = [f"{run[z] - without[z]:+.2f} ({share[z]:.1%})" for z in run]
                rows.append([PEOPLE[scan].title, words_of(guide), TITLES[method], *gains])
    return table(["scan", "guide", "method", "shared edges", "edges of the scan alone", "flat"], rows)


def words_of(guide: str) -> str:
    """A guide, in words."""
    name, _, wrong = guide.partition(" ")
    return "none" if name == "none" else PEOPLE[name].title.split(", ")[1] + (", header wrong" if wrong else "")


def write_tables(record: dict, page: Path) -> None:
    """Into the page, between its markers."""
    size = record["settings"]["size"]
    part = "Whole volumes" if size is None else f"The middle {' x '.join(map(str, size))} voxels"
    note = f"{part} of 1 mm, slices of 5 mm; made by `python -m scripts.studies.guide`."
    fill(page, "guide", f"{note}\n\n{whole_table(record['results'])}")
    fill(page, "guide zones", f"{note}\n\n{zone_table(record['results'])}")


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the volumes of the shown people")
    parser.add_argument("--scans", nargs="+", default=list(SCANS), choices=list(SCANS))
    parser.add_argument("--checkpoint", default="models/model.pt")
    parser.add_argument("--crop", type=int, nargs="*", metavar="N", default=CROP, help="voxels; without any, all")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/guide"))
    parser.add_argument("--output", type=Path, default=Path("docs/guide.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/how_to/guide.md"), help="whose tables are filled")
    args = parser.parse_args(argv)
    size = tuple(args.crop) or None
    files = find_people(args.data_dir, args.scans)
    runs = Guides(files, size, args.checkpoint, args.work_dir, others)
    settings = {"size": size, "defaults": defaults(), "turned": TURNED, "moved": MOVED}
    record = Record(args.output, settings, {"checkpoint": sha256(Path(args.checkpoint))})
    record.fill(plan(args.scans), runs.run, "guides")
    if args.page.exists():
        write_tables(record.content, args.page)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
