"""How far the length that is chosen from the measurement alone is from the best one, which needs the truth.

    python -m scripts.studies.tune_length --tuning FOLDER_MRI FOLDER_CT      write docs/tuning_length.json

Samples pieces of two tuning volumes and of the embedded ones (see evidence_grid.py) with Matern noise of several
lengths, and compares each with what `AutoLength` picks. The factor of `AutoLength` was chosen on the tuning volumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from interslice.files.find import list_volumes
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.noise.auto_length import AutoLength
from interslice.noise.markov import MaternNoise
from scripts.studies.evidence_grid import PIECES, SAMPLES, Bench, cut, task_kind, tuning_piece

LENGTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 1000.0)
TASKS = ("mri_axial", "svct_parallel")
SOLVER = "dds"


def compare(bench: Bench, seeds: range) -> dict:
    """PSNR and axial inter-slice error per length, and those of the length that was picked."""
    spacing = [float(s) for s in bench.affine[:3, :3].norm(dim=0)]
    fitted = AutoLength().fit(bench.image.as_tensor()[0], bench.operator, spacing)
    picked = fitted.across(bench.operator.slice_axes[0]).length
    scores = {}
    for length in (*LENGTHS, picked):
        measured = [bench.measure(bench.sample(MaternNoise(length), seed)) for seed in seeds]
        scores[length] = {k: float(np.mean([m[k] for m in measured])) for k in ("psnr", "error_axial")}
    best = max(LENGTHS, key=lambda length: scores[length]["psnr"])
    return {
        "picked_mm": round(picked, 2),
        "best_mm": best,
        "lost_db": round(max(s["psnr"] for s in scores.values()) - scores[picked]["psnr"], 3),
        "psnr": {f"{length:g}": round(scores[length]["psnr"], 3) for length in LENGTHS},
        "psnr_picked": round(scores[picked]["psnr"], 3),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", nargs=2, metavar=("MRI", "CT"), required=True, help="folders of other volumes")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work_dir", type=Path, default=Path("runs/grid"))
    parser.add_argument("--output", type=Path, default=Path("docs/tuning_length.json"))
    args = parser.parse_args(argv)
    folders, record = dict(zip(("mri", "ct"), args.tuning)), {}
    for task in tqdm(args.tasks, desc="lengths", unit="task"):
        kind = task_kind(task)
        source = list_volumes(folders[kind])[0]["image"]
        volumes = {"tuning": (source, tuning_piece(source, kind))}
        volumes |= {name: (SAMPLES[kind], piece) for name, piece in PIECES[kind].items()}
        for name, (path, piece) in volumes.items():
            volume = cut(path, piece, kind, args.work_dir / "volumes" / f"{kind}_{name}.nii.gz")
            record.setdefault(task, {})[name] = compare(Bench(task, SOLVER, volume), range(args.seeds))
    write_json(args.output, record)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings():
        main()
