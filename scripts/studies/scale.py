"""What two processes gain over one, and what an archive of a million scans would take.

    python -m scripts.studies.scale --measure docs/scale_ranks.json      measures (needs torchrun); then writes the page
    python -m scripts.studies.scale                                      the tables of docs/how_to/scale.md, from JSON

Measured with one thread a process, paired: in turn, rank 0 does the work alone while the other waits, and both do it
together. Processor time tells what sharing costs (more work, not more waiting); the clock is also that of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser, run

from interslice.files.last_words import plain_endings
from interslice.files.run_record import peak_memory_mb
from interslice.files.write import write_json
from interslice.ranks import Board, all_of, barrier, device_of_rank, end, rank, start, world_size
from scripts.studies.tables import fill, page_of, table

DOCS = Path("docs")
REPEATS = 3
STEPS, CASES, PATCHES, ITERATIONS = 2, 4, 16, 6
"""Network passes over a volume, volumes, and patches a rank and steps of a training, of each measurement."""
VOLUME = (40, 88, 104)
SCANS = 1_000_000
HEAD = (192, 224, 192)
"""Voxels of a whole head at 1 mm, as a result."""
DAYS = 30


# -- measuring ------------------------------------------------------------------------------------
def timed(work: Callable[[], object], alone: bool) -> dict[str, float]:
    """Seconds by the clock until all ranks have ended, and processor seconds of those that worked."""
    barrier()
    before, cpu = time.perf_counter(), time.process_time()
    if rank() == 0 or not alone:
        work()
    cpu = time.process_time() - cpu
    barrier()
    seconds = time.perf_counter() - before
    return {"seconds": seconds, "cpu_seconds": sum(all_of(cpu if rank() == 0 or not alone else 0.0))}


def pairs(alone: Callable[[], object], together: Callable[[], object]) -> list[dict]:
    """REPEATS times both, one after the other; what a first call prepares comes before."""
    timed(together, False), timed(alone, True)
    return [{"alone": timed(alone, True), "together": timed(together, False)} for _ in range(REPEATS)]


def slices(parts: ConfigParser) -> list[dict]:
    """STEPS passes of the network over one volume of VOLUME voxels."""
    network, prior = parts.get_parsed_content("network").eval(), parts.get_parsed_content("prior")
    x = torch.randn(VOLUME, generator=torch.Generator().manual_seed(0)).to(next(network.parameters()))

    def passes(across: bool) -> Callable[[], None]:
        def work() -> None:
            prior._across_ranks = across
            for step in range(STEPS):
                prior(network, x, 100, step % 2)

        return work

    return pairs(passes(False), passes(True))


def cases(parts: ConfigParser) -> list[dict]:
    """CASES volumes of different sizes, the largest first, each whole on the rank that is free."""
    network, prior = parts.get_parsed_content("network").eval(), parts.get_parsed_content("prior")
    prior._across_ranks = False
    whole = torch.randn(VOLUME, generator=torch.Generator().manual_seed(0)).to(next(network.parameters()))
    volumes = [whole[: len(whole) * (CASES + 2 - n) // (2 * CASES)] for n in range(CASES)]
    turns = iter(range(10**6))

    def alone() -> None:
        for x in volumes:
            prior(network, x, 100, 0)

    def together() -> None:
        board = Board(f"turn {next(turns)}")
        while (n := board.take("case")) < len(volumes):
            prior(network, volumes[n], 100, 0)

    return pairs(alone, together)


def training(parts: ConfigParser) -> list[dict]:
    """ITERATIONS steps of a training: alone with PATCHES patches, together with as many for each rank."""
    network = parts.get_parsed_content("network").train()
    shared = torch.nn.parallel.DistributedDataParallel(network)
    image = torch.randn(PATCHES, 1, 64, 64, generator=torch.Generator().manual_seed(rank()))
    t = torch.full((PATCHES,), 100)

    def steps(model: torch.nn.Module) -> Callable[[], None]:
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)

        def work() -> None:
            for _ in range(ITERATIONS):
                optimiser.zero_grad()
                (model(image, t) - image).square().mean().backward()
                optimiser.step()

        return work

    return pairs(steps(network), steps(shared))


MEASURED = {"slices": slices, "cases": cases, "training": training}


def worker(output: str) -> None:
    """On every rank: all measurements; rank 0 writes them."""
    torch.set_num_threads(1)
    device = device_of_rank()
    start(device)
    found = {}
    for name, measure in MEASURED.items():
        parts = ConfigParser()
        parts.read_config(["configs/inference.json"])
        parts.update({"device": str(device)})
        found[name] = measure(parts)
        if rank() == 0:
            print(f"{name}: {found[name]}", flush=True)
    about = {
        "ranks": world_size(), "threads": 1, "device": str(device.type), "processor": processor(),
        "cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__, "voxels": VOLUME,
        "steps": STEPS, "cases": CASES, "patches": PATCHES, "iterations": ITERATIONS,
    }  # fmt: skip
    if rank() == 0:
        write_json(Path(output), {"about": about, "pairs": found})
    barrier()
    end()


def processor() -> str:
    """Its name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def files_of_a_result() -> dict:
    """Bytes of the files of the embedded sample's result, by name; one step, which changes no size to speak of."""
    with tempfile.TemporaryDirectory() as folder:
        run("inference", config_file="configs/inference.json", logging_file=False, output_dir=folder, num_steps=1)
        (case,) = (p for p in Path(folder).iterdir() if p.is_dir())
        record = json.loads((case / "run.json").read_text(encoding="utf-8"))
        name = case.name
        sizes = {p.name.replace(name, "CASE"): p.stat().st_size for p in sorted(case.iterdir())}
        return {"voxels": record["output_shape"], "bytes": sizes, "peak_memory_mb": round(peak_memory_mb(), 1)}


def measure(output: Path) -> None:
    """Run the workers, and one reconstruction for the sizes of its files; write both."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        subprocess.run(
            [*command, "-m", "scripts.studies.scale", "--worker", str(found)],
            check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        write_json(output, json.loads(found.read_text(encoding="utf-8")) | {"files": files_of_a_result()})


# -- the page -------------------------------------------------------------------------------------
def efficiency(pair: dict, ranks: int, clock: str, weak: bool = False) -> float:
    """Share of `ranks` times the speed of one that they reach: by the clock, or of the processors' work (cpu_seconds).

    `weak`: together they do `ranks` times the work.
    """
    one, all_ = pair["alone"][clock], pair["together"][clock]
    return one * (ranks if weak else 1) / (all_ * (ranks if clock == "seconds" else 1))


def ranks_table(record: dict) -> str:
    """What sharing gains, per kind of work: median and range of the pairs."""
    ranks, rows = record["about"]["ranks"], []
    names = {
        "cases": "many scans, `share cases`", "slices": "one scan, `share slices`: the network's passes",
        "training": "training, as many patches for each rank",
    }  # fmt: skip
    for name, words in names.items():
        row = [words]
        for clock in ("seconds", "cpu_seconds"):
            values = [efficiency(pair, ranks, clock, weak=name == "training") for pair in record["pairs"][name]]
            row.append(f"{statistics.median(values):.0%} ({min(values):.0%} to {max(values):.0%})")
        rows.append(row)
    about = record["about"]
    note = (
        f"{ranks} processes with one thread each on {about['cores']} cores ({about['processor']}; load of the machine "
        f"{about['load']:.1f}, other work ran beside it), {len(record['pairs']['slices'])} pairs: median and range."
    )
    return f"{note}\n\n{table(['work', 'efficiency by the clock', 'by processor time'], rows)}"


def speeds(docs: Path = DOCS) -> list[tuple[str, str, float]]:
    """(preset, device, seconds of the embedded sample) of all measured runs of thick slices."""
    found = []
    for preset in ("best", "fast"):
        for path in sorted(docs.glob(f"benchmark_{preset}*.json")):
            measured = json.loads(path.read_text(encoding="utf-8")).get("run", {})
            if "whole_run_s" in measured:
                found.append((preset, measured["device"], measured["whole_run_s"]))
    return found


def archive_table(record: dict, found: list[tuple[str, str, float]]) -> str:
    """Hours and devices for SCANS heads, from seconds of the embedded sample and the voxels of both."""
    sample = record["files"]["voxels"]
    ratio = voxels(HEAD) / voxels(sample)
    rows = []
    for preset, device, seconds in found:
        each = seconds * ratio
        hours = each * SCANS / 3600
        rows.append(
            [f"`{preset}`", device, f"{seconds:.1f} s", f"{rough(each)} s", f"{rough(hours)} h",
             rough(hours / 24 / DAYS)]
        )  # fmt: skip
    header = ["preset", "device", "embedded sample, measured", "a whole head", f"{SCANS:,} heads",
              f"such devices for {DAYS} days"]  # fmt: skip
    return table(header, rows)


def storage_text(record: dict) -> str:
    """Space of the results of SCANS heads, by what is kept."""
    ratio = voxels(HEAD) / voxels(record["files"]["voxels"])
    sizes = record["files"]["bytes"]
    kept = {
        "the volume": [n for n in sizes if n.endswith("_recon.nii.gz")],
        "and its spread": [n for n in sizes if n.endswith(("_recon.nii.gz", "_std.nii.gz"))],
        "and the page, `report.html`": list(sizes),
    }
    rows = []
    for words, names in kept.items():
        each = ratio * sum(sizes[name] for name in names)
        rows.append([words, f"{rough(each / 1e6)} MB", f"{rough(each * SCANS / 1e12)} TB"])
    return table(["kept of each scan", "a whole head", f"{SCANS:,} heads"], rows)


def rough(value: float) -> str:
    """With two digits, as an estimate is."""
    return f"{float(f'{value:.2g}'):,.0f}"


def voxels(shape) -> int:
    return shape[0] * shape[1] * shape[2]


def write_page(record: dict, docs: Path = DOCS) -> None:
    """The tables of the page, from what was measured."""
    ratio = voxels(HEAD) / voxels(record["files"]["voxels"])
    size = " x ".join(map(str, HEAD))
    sample = " x ".join(map(str, record["files"]["voxels"]))
    basis = f"A whole head is {size} voxels, {ratio:.1f} times the result of the embedded sample ({sample})."
    page = page_of(docs, "scale.md")
    fill(page, "ranks", ranks_table(record))
    fill(page, "archive", f"{basis}\n\n{archive_table(record, speeds(docs))}")
    fill(page, "storage", storage_text(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=Path, help="JSON file to write")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    if options.measure:
        measure(options.measure)
    path = options.measure or DOCS / "scale_ranks.json"
    write_page(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    with plain_endings():
        main()
