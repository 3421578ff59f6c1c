"""Time and peak memory by the size of a volume, and by where its volumes lie.

    python -m scripts.studies.volume_sizes --out docs/volume_sizes.json      and the table of docs/how_to/scale.md

One draw of one step (one pass of the shipped network over the volume, and all that a step has beside it) on made-up
scans, each in a process of its own. Memory is what the process holds for itself at its peak, beyond what it held when
the scan was read: pages of files that the system can drop do not count (Linux, RssAnon). On a GPU it is told, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from interslice.files.last_words import plain_endings
from interslice.files.machine import GIGA
from scripts.studies.memory import resident, write_measurement
from scripts.studies.tables import fill, page_of, table

MARKER = "volume_sizes"
SETTINGS = {
    "num_steps": 1, "num_draws": 1, "sampler#progress": False, "report": False, "skip_air": False, "max_memory": "off",
}  # fmt: skip
ALONG = {
    "mri": {"slice_axis": 0, "inferer": "@sampler"},
    "ct": {"start": "@baselines#input", "finish": None, "data_consistency#iterations": 3},
}
"""Settings by which nothing couples the slices that there are more and more of: only then can memory stay as it is."""
PLACES, SLICES = ("device", "disk"), (64, 256, 1024)
RUNS = [
    *(("mri", (n, 96, 12), {"volumes_on": place, **ALONG["mri"]}) for place in PLACES for n in SLICES),
    *(("ct", (96, 96, n), {"volumes_on": place, **ALONG["ct"]}) for place in PLACES for n in SLICES),
    ("mri", (128, 128, 30), {}), ("mri", (256, 256, 40), {}), ("mri", (512, 512, 60), {}),
]  # fmt: skip
"""(task, shape of the thick scan, or of the volume that is projected, settings)."""
LOOK = 0.01
"""Seconds between two looks at the memory."""


@contextmanager
def peak_memory():
    """Within it, the most bytes that the process holds for itself, beyond what it holds now: `[0]` of what it gives."""
    before, peak, ended = resident("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK):
            peak[0] = max(peak[0], resident("RssAnon") - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def one_run(task: str, shape: tuple[int, int, int], settings: dict, device: str) -> dict:
    """Sampled once in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_measurement(task, shape, Path(folder))
        parser = ConfigParser()
        parser.read_config(["configs/inference.json"] + ["configs/task_svct.json"] * (task == "ct"))
        parser.update(SETTINGS | settings | {"dataset_dir": str(path), "output_dir": folder + "/out"})
        parser.update({"device": f"$torch.device({device!r})", "preset": "sharp"})
        parser.get_parsed_content("load_weights").load()
        preprocessing, inferer, network = (
            parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "network")
        )
        measurement = preprocessing({"image": str(path)})["image"][None].to(device)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad(), peak_memory() as peak:
            start = time.perf_counter()
            result = inferer(measurement, network)
            seconds = time.perf_counter() - start
    on_gpu = torch.cuda.max_memory_allocated() / GIGA if device != "cpu" else None
    return {
        "voxels": list(result.shape[-3:]), "seconds": seconds, "memory_gb": peak[0] / GIGA, "gpu_memory_gb": on_gpu,
        "device": torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads",
    }  # fmt: skip


def table_of(found: list[dict]) -> str:
    """Markdown: a row for each run."""
    rows = [
        [
            run["task"], " x ".join(map(str, run["voxels"])), run["settings"].get("volumes_on", "auto"),
            f"{run['seconds']:.1f}", f"{run['memory_gb']:.2f}",
            "–" if run["gpu_memory_gb"] is None else f"{run['gpu_memory_gb']:.2f}", run["device"],
        ]
        for run in found
    ]  # fmt: skip
    return table(["task", "voxels", "`volumes_on`", "seconds a pass", "memory, GB", "on the GPU, GB", "device"], rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the runs, from 0")
    parser.add_argument("--run", type=int, help="this one, in this process; prints JSON")
    options = parser.parse_args(argv)
    if options.run is not None:
        print(json.dumps(one_run(*RUNS[options.run], options.device)))
        return
    found = []
    for number in options.only or range(len(RUNS)):
        task, shape, settings = RUNS[number]
        command = [sys.executable, "-m", "scripts.studies.volume_sizes", "--run", str(number)]
        done = subprocess.run(
            [*command, "--device", options.device], capture_output=True, encoding="utf-8", env=os.environ
        )
        if done.returncode:
            raise SystemExit(f"run {number} failed:\n{done.stderr[-3000:]}")
        told = {name: value for name, value in settings.items() if name == "volumes_on"}
        found.append({"task": task, "settings": told} | json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(found[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        page = page_of(options.out.parent, "scale.md")
        if page.exists():
            fill(page, MARKER, table_of(found))


if __name__ == "__main__":
    with plain_endings():
        main()
