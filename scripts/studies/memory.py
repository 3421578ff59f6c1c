"""How good the estimate of a run's memory is: estimate and measured peak of runs of several tasks, sizes and settings.

    python -m scripts.studies.memory --out docs/memory.json      and the table of docs/reference/limits.md

Each run is a process of its own, on a made-up volume and with a small network that was not trained. What it takes is
the peak of its resident memory after all was read and checked, less what was resident then (Linux); the measurement is
read again in that time. The constants of interslice/report/memory.py and `COPIES` of interslice/files/limits.py are
chosen so that no estimate lies far below its peak, and none of a large run far above.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from interslice.files.last_words import plain_endings
from interslice.files.machine import GIGA
from interslice.physics.ct.scanner import Tomography
from interslice.physics.kspace.scanner import CartesianSampling
from interslice.physics.measurement import operator_of
from interslice.prior.network import SliceUNet
from scripts.studies.tables import fill, page_of, table

MARKER = "memory"
QUICK = {
    "num_steps": 1, "sampler#progress": False, "max_memory": "off", "report": False, "num_draws": 1,
    "precision": "float32", "skip_air": False, "volumes_on": "device",
}  # fmt: skip
KSPACE = {"baselines#total_variation#iterations": 3, "data_consistency#iterations": 3}
SHORT = KSPACE | {"finish#iterations": 3}
BATCH = {"shipped": True, "slice_batch_size": 64}
DESCENT = {"data_consistency": {"_target_": "interslice.sampling.Proximal", "rho": 0.1, "iterations": 3}}
RUNS = [
    ("mri", (192, 192, 30), {}), ("mri", (192, 192, 30), {"num_draws": 2}),
    ("mri", (192, 192, 30), {"num_draws": 2, "report": True}), ("mri", (256, 256, 40), {"num_draws": 2}),
    ("mri", (192, 192, 30), {"num_draws": 2, "eta": 0.5, "slice_axis": "auto", "num_steps": 2}),
    ("mri", (192, 192, 30), {"num_draws": 2, "evidence": True, "report": True}),
    ("mri", (192, 192, 30), DESCENT), ("mri", (96, 96, 20), BATCH), ("mri", (160, 160, 12), BATCH),
    ("mri truth", (192, 192, 100), {}),
    ("ct", (192, 192, 96), SHORT), ("ct", (256, 256, 96), SHORT | {"num_draws": 2, "report": True}),
    ("ct", (192, 192, 64), SHORT | {"beam": "cone"}),
    ("k-space", (192, 192, 32), KSPACE), ("k-space", (224, 224, 48), KSPACE | {"num_draws": 2, "report": True}),
]  # fmt: skip
"""(task, shape of the measurement or its volume, settings)."""
CONFIGS = {"mri": [], "mri truth": ["evaluate"], "ct": ["task_svct"], "k-space": ["task_csmri"]}


def ellipsoids(shape: tuple[int, int, int]) -> np.ndarray:
    """Nested, with noise, 0 to about 1000; float32."""
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    radius = np.sqrt(sum(a * a for a in axes))
    noise = np.random.default_rng(0).random(shape, np.float32)
    return ((radius < 1) * (500 + 300 * (radius < 0.6) + 100 * noise)).astype(np.float32)


def write_measurement(task: str, shape: tuple[int, int, int], folder: Path, beam: str = "parallel") -> Path:
    """A measurement of ellipsoids, of `shape` (a thick scan), or of a volume of it (the others)."""
    volume = MetaTensor(torch.from_numpy(ellipsoids(shape))[None])
    if task == "ct":
        # A full turn at enough distance; the volume is water.
        operator = Tomography(beam=beam, num_views=20, backend="torch", background=0.0).for_volume(volume)
        y = operator.forward(volume.as_tensor()[0] * (0.0192 / 600))
        np.savez(folder / "scan.npz", projections=y.numpy())
        (folder / "scan.json").write_text(operator.geometry.to_json(), encoding="utf-8")
        return folder / "scan.npz"
    if task == "k-space":
        y = torch.view_as_complex(CartesianSampling(background=0.0).for_volume(volume).forward(volume.as_tensor()[0]))
        with h5py.File(folder / "scan.h5", "w") as file:
            file["kspace"] = y.transpose(0, 1).numpy()
        return folder / "scan.h5"
    nib.save(nib.Nifti1Image(ellipsoids(shape), np.diag([1, 1, 5 if task == "mri" else 1, 1])), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def forget_peak() -> None:
    """VmHWM counts from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def one_run(task: str, shape: tuple[int, int, int], settings: dict) -> dict:
    """Read, checked and reconstructed in this process."""
    torch.set_num_threads(1)
    settings = dict(settings)
    with tempfile.TemporaryDirectory() as folder:
        path = write_measurement(task, shape, Path(folder), settings.pop("beam", "parallel"))
        if not settings.pop("shipped", False):
            torch.save(SliceUNet((8, 16), norm_num_groups=4).state_dict(), Path(folder) / "model.pt")
            settings |= {"checkpoint": f"{folder}/model.pt", "weights#kind": None}
        parser = ConfigParser()
        parser.read_config([f"configs/{name}.json" for name in ("inference", *CONFIGS[task])])
        parser.update(
            QUICK | {"dataset_dir": str(path), "output_dir": f"{folder}/out", "device": "$torch.device('cpu')"}
        )
        parser.update(settings)
        inferer, preprocessing = (parser.get_parsed_content(name) for name in ("inferer", "preprocessing"))
        before = resident("VmRSS")
        forget_peak()
        parser.get_parsed_content("cases")
        reading = resident("VmHWM") - before
        measurement = preprocessing({"image": str(path)})["image"]
        sampling, after = parser.get_parsed_content("check_memory").estimate(measurement)
        # Where a run is checked it is there already; what is taken below counts it.
        operator = operator_of(measurement).kept_bytes()
        del measurement
        parser.get_parsed_content("handlers")
        evaluator = parser.get_parsed_content("evaluator")
        before = resident("VmRSS")
        forget_peak()
        evaluator.run()
        taken = resident("VmHWM") - before
    estimate = max(sum(sampling.values()), sum(after.values())) + operator
    return {
        "taken": taken / GIGA, "estimate": estimate / GIGA, "ratio": estimate / taken,
        "reading": reading / GIGA, "sampling": {k: round(v / GIGA, 4) for k, v in sampling.items()},
        "after": {k: round(v / GIGA, 4) for k, v in after.items()}, "operator": round(operator / GIGA, 4),
    }  # fmt: skip


def table_of(found: list[dict]) -> str:
    """Markdown: a row for each run."""
    rows = [
        [run["task"], " x ".join(map(str, run["shape"])), in_words(run["settings"]), f"{run['taken']:.2f}",
         f"{run['estimate']:.2f}", f"{run['ratio']:.2f}"]
        for run in found
    ]  # fmt: skip
    return table(["task", "voxels", "settings", "taken, GB", "estimate, GB", "estimate / taken"], rows)


def in_words(settings: dict) -> str:
    """Settings of a run that change its memory, briefly."""
    told = {k: v for k, v in settings.items() if "iterations" not in k and k != "shipped"}
    told |= {"data_consistency": "Proximal"} if "data_consistency" in told else {}
    told |= {"network": "shipped"} if "shipped" in settings else {}
    return ", ".join(f"{name} {value}" for name, value in told.items()) or "one draw, no page"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the runs, from 0")
    parser.add_argument("--run", type=int, help="this one, in this process; prints JSON")
    options = parser.parse_args()
    if options.run is not None:
        print(json.dumps(one_run(*RUNS[options.run])))
        return
    found = []
    for number in options.only or range(len(RUNS)):
        task, shape, settings = RUNS[number]
        command = [sys.executable, "-m", "scripts.studies.memory", "--run", str(number)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"run {number} failed:\n{done.stderr[-3000:]}")
        found.append({"task": task, "shape": shape, "settings": settings} | json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        page = page_of(Path(options.out).parent, "limits.md")
        if page.exists():
            fill(page, MARKER, table_of(found))


if __name__ == "__main__":
    with plain_endings():
        main()
