"""This project beside other programs for the same task, on the same thick files, by the same metrics.

    python -m scripts.studies.compare_peers --truth FILES --ratio 5 --programs peers/bin

writes docs/peers.json and the table of docs/explanation/peers.md.

Each truth is measured as `configs/evaluate.json` does it, and the thick scan is written to a file. Every program gets
that file: our own default run too, as a command like the others. A result counts where its own header puts it: it is
brought onto the truth's grid through the two affines, untouched where both grids are one, otherwise by cubic
B-splines; a program that misplaces its result loses by it. All methods are measured in the box that all of them cover,
on intensities scaled by the thick scan. The baselines are those of the configs.

A program that is not installed is skipped, and said how to install. One that fails, writes nothing or takes longer than
--timeout is named, and the others go on; then the status is 1.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import affine_transform

from interslice.files.find import case_name
from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics.linear_operator import LinearOperator
from interslice.planes import PLANES
from interslice.report.evaluation import DATA_RANGE
from interslice.report.metrics import evaluate
from interslice.report.titles import TITLES
from interslice.usage import UsageError
from scripts.studies.peers import REGISTRY, Peer, PeerFailure, chosen, registered
from scripts.studies.tables import fill, page_of, table

MARKER = "peers"
BASELINES = ("input", "cubic_consistent", "total_variation")
ORDER = 3
"""Of the splines that bring a result onto another grid."""
SAME = 1e-3
"""Two grids whose voxels lie no further apart than this share of a voxel are one."""
OURS = Peer(
    "This project", sys.executable,
    ("-m", "monai.bundle", "run", "inference", "--config_file", "configs/inference.json", "--dataset_dir", "{input}",
     "--output_dir", "{folder}", "--report", "False", "--operator#ratio", "{ratio}", "--device", "{device}"),
    "*_recon.nii.gz",
)  # fmt: skip


@dataclass
class Case:
    """A volume that was measured.

    Attributes:
        name: of the case.
        truth: (X, Y, Z) in the prior's range.
        affine: (4, 4) of the truth.
        y: the measurement in the prior's range, and its operator.
        scale: (slope, offset) from the scanner's intensities to the prior's range.
        thick: file of the measurement, in the scanner's intensities.
    """

    name: str
    truth: torch.Tensor
    affine: np.ndarray
    y: torch.Tensor
    operator: LinearOperator
    scale: tuple[float, float]
    thick: Path


def make_case(path: Path, parser: ConfigParser, folder: Path, crop: tuple[int, int, int] | None = None) -> Case:
    """Read a truth, its middle of `crop` voxels, measure it, and write the thick scan into `folder`."""
    name = case_name(path.name)
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    if crop is not None:
        image = nib.as_closest_canonical(nib.load(path))
        start = [max(0, (n - c) // 2) for n, c in zip(image.shape, crop)]
        path = folder / "truth.nii.gz"
        nib.save(image.slicer[tuple(slice(s, s + c) for s, c in zip(start, crop))], path)
    item = {"image": str(path)}
    for name_of_step in ("read_truth", "simulate"):
        for transform in parser.get_parsed_content(name_of_step):
            item = transform(item)
    thick, truth = item["image"], item["label"]
    operator = thick.meta["simulated_with"]
    raw = thick.as_tensor()[0].float()
    file = folder / "thick.nii.gz"
    nib.save(nib.Nifti1Image(raw.numpy(), np.asarray(thick.affine)), file)
    scaled = parser.get_parsed_content("scale")(item)
    y = scaled["image"].as_tensor()[0].float()
    # The scale is a line: two values of the scan tell it.
    low, high = int(raw.argmin()), int(raw.argmax())
    slope = float((y.flatten()[high] - y.flatten()[low]) / (raw.flatten()[high] - raw.flatten()[low]))
    offset = float(y.flatten()[low]) - slope * float(raw.flatten()[low])
    return Case(name, scaled["label"].as_tensor()[0].float(), np.asarray(truth.affine), y, operator, (slope, offset),
                file)  # fmt: skip


def on_grid(image: nib.Nifti1Image, shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, list[range]]:
    """A volume on another grid, and which of that grid's positions it covers along each axis.

    A position is covered if it lies in a voxel of the volume. Beyond, the volume goes on as at its border.

    Raises:
        PeerFailure: it is no volume, its axes are not the grid's, or it covers nothing of it.
    """
    if len(image.shape) != 3:
        raise PeerFailure(f"its result has {len(image.shape)} axes and is no volume")
    image = nib.as_closest_canonical(image)
    mapping = np.linalg.inv(image.affine) @ affine  # voxels of the grid -> voxels of the volume
    diagonal = np.diag(mapping)[:3]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij")).reshape(4, -1)
    askew = (mapping - np.diag(np.diag(mapping)))[:3, :3]
    if np.abs(askew @ corners[:3]).max() > 0.5:
        raise PeerFailure("its result lies askew to the scan")
    voxels = np.ascontiguousarray(image.dataobj, dtype=np.float32)
    if not np.isfinite(voxels).all():
        raise PeerFailure("its result has voxels that are no numbers")
    covered = []
    for n, size, step, first in zip(shape, image.shape, diagonal, mapping[:3, 3]):
        inside = [i for i in range(n) if -0.5 - SAME <= step * i + first <= size - 0.5 + SAME]
        if not inside:
            raise PeerFailure("its result lies beside the scan")
        covered.append(range(inside[0], inside[-1] + 1))
    if image.shape == tuple(shape) and np.abs((mapping - np.eye(4)) @ corners).max() <= SAME:
        return voxels, covered
    moved = affine_transform(voxels, mapping[:3, :3], mapping[:3, 3], output_shape=shape, order=ORDER, mode="nearest")
    return moved, covered


def common_box(covered: Iterable[list[range]]) -> tuple[slice, ...]:
    """The box that all methods cover."""
    axes = [(max(r.start for r in ranges), min(r.stop for r in ranges)) for ranges in zip(*covered)]
    if any(stop <= start for start, stop in axes):
        raise UsageError("the results have no part in common: compare fewer peers at a time (--peers)")
    return tuple(slice(start, stop) for start, stop in axes)


def compare(case: Case, peers: Mapping[str, Peer], baselines: Mapping, ratio: float, gpu: int = -1,
            timeout: float | None = None, programs: Path | None = None) -> dict:  # fmt: skip
    """{"shape", "spacing_mm", "box", "results": {method: {"metrics", "seconds"} or {"failed"}}} of one case."""
    shape, results, volumes = tuple(case.truth.shape), {}, {}
    covered = [[range(n) for n in shape]]
    for name in BASELINES:
        began = time.perf_counter()
        volumes[name] = baselines[name](case.y, case.operator)
        results[name] = {"seconds": time.perf_counter() - began}
    for name, peer in peers.items():
        print(f"{case.name}: {peer.title}", flush=True)
        try:
            written, seconds = peer.run(case.thick, case.thick.with_name(name), ratio, gpu, timeout, programs)
            voxels, inside = on_grid(nib.load(written), shape, case.affine)
        except (PeerFailure, nib.filebasedimages.ImageFileError) as failure:
            print(f"{case.name}: {peer.title}: {failure}", file=sys.stderr, flush=True)
            results[name] = {"failed": str(failure).replace(str(case.thick.parent), "")}
            continue
        slope, offset = case.scale
        volumes[name] = torch.from_numpy(voxels) * slope + offset
        covered.append(inside)
        results[name] = {"seconds": seconds}
    box = common_box(covered)
    truth = case.truth[box]
    for name, x in volumes.items():
        residual = float((case.operator.forward(x) - case.y).square().mean().sqrt()) / DATA_RANGE
        results[name]["metrics"] = evaluate(x[box], truth, DATA_RANGE, case.operator.background, residual)
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0).round(4).tolist()
    return {"shape": list(shape), "spacing_mm": spacing, "box": [[s.start, s.stop] for s in box], "results": results}


def table_of(record: dict) -> str:
    """Markdown: what was run, and a row for each case and method."""
    peers = record["peers"]
    about = [
        ", ".join([f"{p['title']} {p['version']} ({p['licence']})", *([p["note"]] if p["note"] else [])])
        for p in peers.values()
        if p["licence"]
    ]
    text = (
        f"Slices {record['ratio']:g} times as thick as the truth's, on {record['device']}. Seconds are those of the "
        "whole command; of the baselines, those of their computation. Made by "
        "`python -m scripts.studies.compare_peers`."
    )
    if about:
        text += f" Peers: {'; '.join(about)}. A run that is not what its authors run says so in its row."
    header = ["case", "method", "PSNR (dB)", "SSIM"] + [f"inter-slice error x 1000, {p}" for p in PLANES]
    header += ["data residual x 1000", "seconds"]
    rows = []
    for case, found in record["cases"].items():
        for method, result in found["results"].items():
            rows.append([case, title_of_row(method, peers), *cells(result)])
    return f"{text}\n\n{table(header, rows)}"


def title_of_row(method: str, peers: Mapping[str, dict]) -> str:
    """What a method is called, with what is not usual about its run."""
    if method not in peers:
        return TITLES[method]
    peer = peers[method]
    return f"{peer['title']} ({peer['note']})" if peer["note"] else peer["title"]


def cells(result: dict) -> list[str]:
    """The figures of a method, or why there are none."""
    if "failed" in result:
        return [f"failed: {result['failed']}", *["–"] * 6]
    m = result["metrics"]
    errors = [f"{1000 * m['inter_slice'][p]['error']:.2f}" for p in PLANES]
    return [f"{m['volume']['psnr']:.2f}", f"{m['volume']['ssim']:.3f}", *errors, f"{1000 * m['data_residual']:.2f}",
            f"{result['seconds']:.1f}"]  # fmt: skip


def device_name(gpu: int) -> str:
    """The device that peers were told to use."""
    return (
        torch.cuda.get_device_name(gpu)
        if gpu >= 0
        else f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, nargs="+", required=True, metavar="FILE", help="volumes of thin slices")
    parser.add_argument("--peers", nargs="*", help="names of peers.json; by default all that are installed")
    parser.add_argument("--registry", type=Path, default=REGISTRY, help="JSON file of peers, of the same form")
    parser.add_argument("--programs", type=Path, help="folder of the peers' programs, as bin of their environment")
    parser.add_argument("--ratio", type=float, default=5.0, help="thickness of slices in voxels of the truth")
    parser.add_argument("--crop", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels of the truth's middle alone")
    parser.add_argument("--gpu", type=int, default=0 if torch.cuda.is_available() else -1, help="-1 for none")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="of one program on one file")
    parser.add_argument("--extra", nargs="*", default=[], metavar="PEER=WORDS", help="more arguments; `ours` is a peer")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/peers"), help="for scans, results and logs")
    parser.add_argument("--output", type=Path, default=Path("docs/peers.json"))
    args = parser.parse_args(argv)
    if missing := [path for path in args.truth if not path.is_file()]:
        raise UsageError(f"--truth {missing[0]} is no file")
    if not args.timeout > 0:
        raise UsageError(f"--timeout must be a number of seconds above 0, got {args.timeout:g}")
    known = registered(args.registry)
    names = None if args.peers is None else ["ours", *args.peers]
    peers = chosen({"ours": OURS} | known, names, args.extra)
    for name in [n for n, peer in peers.items() if peer.executable(args.programs) is None]:
        peer = peers.pop(name)
        where = f" (with --programs peers/bin): {peer.install}" if peer.install else ""
        print(f"{peer.title} is skipped: {peer.program} is not installed{where}", flush=True)
    config = ConfigParser()
    config.read_config(["configs/inference.json", "configs/evaluate.json"])
    config.update({"operator#ratio": args.ratio})
    baselines = config.get_parsed_content("baselines")
    record: dict = {
        "ratio": args.ratio, "device": device_name(args.gpu),
        "peers": {n: {"title": p.title, "version": p.version, "licence": p.licence, "note": p.note(args.gpu),
                      "command": " ".join([Path(p.program).stem, *p.arguments, *p.extra])} for n, p in peers.items()},
        "cases": {},
    }  # fmt: skip
    for path in args.truth:
        case = make_case(path, config, args.work_dir.resolve(), args.crop)
        record["cases"][case.name] = compare(case, peers, baselines, args.ratio, args.gpu, args.timeout, args.programs)
        write_json(args.output, record)
    page = page_of(args.output.parent, "peers.md")
    if page.exists():
        fill(page, MARKER, table_of(record))
    print(f"wrote {args.output}")
    failed = [f"{c}: {m}" for c, found in record["cases"].items() for m, r in found["results"].items() if "failed" in r]
    if failed:
        raise SystemExit(f"{len(failed)} without a result: {', '.join(failed)}")


if __name__ == "__main__":
    with plain_endings("--output holds the cases that were done"):
        main()
