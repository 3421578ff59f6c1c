"""Real thick scans with other contrasts of the same study as guides: is the second study predicted better?

    python -m scripts.studies.real_guides --data_dir FOLDER  docs/real_guides.json, its table in docs/how_to/guide.md

The FLAIR of study 1 of each patient (real_pairs.py) is reconstructed alone, and with each other contrast of that study
as a guide; what the scanner of study 2 would measure of the result is compared with the FLAIR that it did measure. The
guides are thick themselves, and lie in the same direction. The JSON grows run by run, and the same command goes on.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

from interslice.files.last_words import plain_endings
from interslice.report.titles import TITLES
from interslice.usage import UsageError
from scripts.studies.bench import defaults
from scripts.studies.real_pairs import CROP, Pairs
from scripts.studies.record import Record, sha256
from scripts.studies.tables import fill, table

GUIDES = {"p01": ("none", "T1W", "T2W"), "p03": ("none", "T2W")}
"""Contrasts of study 1 of each patient, beside FLAIR."""
WAY = "1 to 2"
METHODS = ("cubic_consistent", "total_variation", "diffusion")
PRIOR = "shipped"


class Guided:
    """Runs of the study: patient, guide, method."""

    def __init__(self, folder: Path, size, checkpoint: str, work_dir: Path, ids: dict) -> None:
        self.folder, self.size, self.checkpoint, self.work_dir, self.ids = folder, size, checkpoint, work_dir, ids
        self.pairs = lru_cache(maxsize=1)(self._pairs)

    def _pairs(self, patient: str, guide: str) -> Pairs:
        file = None if guide == "none" else str(self.folder / f"open_ms_{patient}_study1_{guide}.nii.gz")
        return Pairs(self.folder, self.size, {PRIOR: self.checkpoint}, self.work_dir, {**self.ids, "guide": file})

    def run(self, key: tuple) -> dict:
        """NRMSE, correlation and PSNR of the prediction."""
        patient, guide, method = key
        how = (PRIOR, "own") if method == "diffusion" else (method, "none")
        return self.pairs(patient, guide).run((f"{patient}_FLAIR", WAY, *how))


def plan(patients: list[str]):
    """Keys of all runs; what needs no guide is not run with one."""
    for patient in patients:
        for guide in GUIDES[patient]:
            yield from ((patient, guide, m) for m in METHODS if guide == "none" or m != "cubic_consistent")


def real_guides_table(record: dict) -> str:
    """NRMSE and correlation of each method and guide, and the change by the guide."""
    rows = []
    for patient, guides in record["results"].items():
        for guide, methods in guides.items():
            for method, run in methods.items():
                title = TITLES.get(method, "Diffusion")
                change = 100 * (run["nrmse"] / guides["none"][method]["nrmse"] - 1)
                by = "–" if guide == "none" else f"{change:+.2f} %"
                rows.append([patient, guide, title, f"{run['nrmse']:.4f}", f"{run['correlation']:.4f}", by])
    size = record["settings"]["size"]
    part = "Whole scans" if size is None else f"The middle {' x '.join(map(str, size))} voxels of each thick FLAIR"
    note = f"{part}; made by `python -m scripts.studies.real_guides`."
    header = ["patient", "guide", "method", "NRMSE of study 2", "correlation", "change of NRMSE by the guide"]
    return f"{note}\n\n{table(header, rows)}"


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the scans")
    parser.add_argument("--patients", nargs="+", default=list(GUIDES), choices=list(GUIDES))
    parser.add_argument("--checkpoint", default="models/model.pt")
    parser.add_argument("--crop", type=int, nargs="*", metavar="N", default=CROP, help="voxels; without any, all")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/real_guides"))
    parser.add_argument("--output", type=Path, default=Path("docs/real_guides.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/how_to/guide.md"), help="whose table is filled")
    args = parser.parse_args(argv)
    names = [f"open_ms_{p}_study1_{g}.nii.gz" for p in args.patients for g in ("FLAIR", *GUIDES[p][1:])]
    if missing := [name for name in names if not (args.data_dir / name).exists()]:
        raise UsageError(f"{args.data_dir} does not hold {', '.join(missing)}: fetch them, or leave out --patients")
    size = tuple(args.crop) or None
    runs = Guided(args.data_dir, size, args.checkpoint, args.work_dir, others)
    record = Record(args.output, {"size": size, "defaults": defaults()}, {PRIOR: sha256(Path(args.checkpoint))})
    record.fill(plan(args.patients), runs.run, "guides")
    if args.page.exists():
        fill(args.page, "real guides", real_guides_table(record.content))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last complete run"):
        main()
