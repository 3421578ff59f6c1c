"""CT projectors timed beside those of RTK and scikit-image; prints JSON.

    python -m scripts.studies.benchmark_projectors
    python -m scripts.studies.benchmark_projectors --device cuda

All in one run, on as many threads as torch uses, alternating, best of several repeats; what is built once per geometry
(matrix, compiled code) is not counted, files and noise neither. RTK projects parallel rays as a cone from 1000 m away.

On a GPU ours are timed there and on the CPU, with volumes and projections where they are projected, and beside them
RTK's for CUDA, where they are installed (pip's itk-rtk-cuda): rays in steps, and a back-projection by voxels, which is
not the transpose. That comparison is written from RTK's interface and has not been run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import itk
import numpy as np
import torch
from itk import RTK as rtk
from skimage.transform import iradon, radon

from interslice.files.last_words import plain_endings
from interslice.files.state_file import where
from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.prior.device import check_device

SHAPES = {"64 slices of 256 x 256": (256, 256, 64), "128 x 128 x 128": (128, 128, 128)}
FAR = 1e6
"""Distance in mm from which a cone looks parallel."""


def rtk_projector(
    geometry: ScanGeometry, grid: Grid, cuda: bool = False
) -> tuple[Callable[[], object], Callable[[], object]]:
    """RTK's Joseph forward and back projection of one volume on the CPU, or its projectors for CUDA."""
    matched = rtk.ThreeDCircularProjectionGeometry.New()
    iso, det = (
        (geometry.source_to_isocenter, geometry.source_to_detector) if geometry.beam == "cone" else (FAR, FAR + 1)
    )
    for angle in geometry.angles:
        matched.AddProjection(iso, det, angle)
    floats = itk.CudaImage[itk.F, 3] if cuda else itk.Image[itk.F, 3]
    place = itk.cuda_image_from_image if cuda else lambda values: values
    x, y, z = grid.shape
    sx, sy, sz = grid.spacing
    # RTK turns about its second axis.
    volume = image(np.random.default_rng(0).random((y, z, x), dtype=np.float32), (sx, sz, sy))
    views, columns, rows = geometry.range_shape
    stack = image(np.zeros((views, rows, columns), np.float32), (geometry.column_size, geometry.row_size, 1.0))
    if cuda:
        forward, back = (
            rtk.CudaForwardProjectionImageFilter[floats].New(),
            rtk.CudaBackProjectionImageFilter[floats].New(),
        )
    else:
        forward = rtk.JosephForwardProjectionImageFilter[floats, floats].New()
        back = rtk.JosephBackProjectionImageFilter[floats, floats].New()
    forward.SetGeometry(matched)
    forward.InPlaceOff()
    forward.SetInput(0, place(stack))
    forward.SetInput(1, place(volume))
    forward.Update()
    projections = forward.GetOutput()
    projections.DisconnectPipeline()
    back.SetGeometry(matched)
    back.InPlaceOff()
    back.SetInput(0, place(image(np.zeros((y, z, x), np.float32), (sx, sz, sy))))
    back.SetInput(1, projections)

    def rerun(projector):
        def run():
            projector.Modified()
            projector.Update()

        return run

    return rerun(forward), rerun(back)


def image(array: np.ndarray, spacing: tuple[float, ...]):
    """An ITK image centred at the origin."""
    result = itk.image_from_array(array)
    result.SetSpacing(spacing)
    result.SetOrigin([-(n - 1) / 2 * s for n, s in zip(array.shape[::-1], spacing)])
    return result


def skimage_projector(geometry: ScanGeometry, grid: Grid):
    """scikit-image's radon and unfiltered iradon, slice by slice."""
    slices = np.random.default_rng(0).random((grid.shape[2], *grid.shape[:2]), dtype=np.float32)
    angles = np.array(geometry.angles)
    sinogram = radon(slices[0], angles, circle=False)
    return (
        lambda: [radon(s, angles, circle=False) for s in slices],
        lambda: [iradon(sinogram, angles, filter_name=None, circle=False, output_size=grid.shape[0]) for _ in slices],
    )


def ours(operator, device: str = "cpu") -> tuple[Callable[[], object], Callable[[], object]]:
    x = torch.rand(operator.domain_shape).to(device)
    y = torch.rand(operator.range_shape).to(device)
    return lambda: operator.forward(x), lambda: operator.adjoint(y)


def wait(device: str) -> None:
    """Until all work on the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def compare(
    projectors: dict[str, tuple[Callable, Callable]], repeats: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Seconds of forward and adjoint of each, best of `repeats`, taken in turns."""
    seconds = {name: {"forward": float("inf"), "adjoint": float("inf")} for name in projectors}
    for repeat in range(repeats + 1):
        for name, functions in projectors.items():
            for which, function in zip(("forward", "adjoint"), functions):
                wait(device)
                start = time.perf_counter()
                function()
                wait(device)
                if repeat:  # the first one warms up
                    seconds[name][which] = min(seconds[name][which], time.perf_counter() - start)
    return seconds


def cases(device: str = "cpu") -> dict[str, dict[str, tuple[Callable, Callable]]]:
    """What is timed, for 30 views of each of `SHAPES`."""
    half = tuple(6.0 * i for i in range(30))
    full = tuple(12.0 * i for i in range(30))
    gpu = torch.device(device).type == "cuda"
    result = {}
    for name, shape in SHAPES.items():
        grid = Grid(shape, (1.0, 1.0, 1.0))
        columns = int(np.ceil(np.hypot(*shape[:2])))
        parallel = ScanGeometry("parallel", half, columns, 1.0, shape[2], 1.0)
        cone = ScanGeometry("cone", full, int(1.6 * shape[0]), 1.5, int(1.4 * shape[2]), 1.5, 575.0, 1050.0)
        matrix = SparseRadon(parallel, grid)
        if gpu:
            fast = ConeBeam(cone, grid)
            taken = fast._implementation(torch.zeros(0, device=device)).__name__.rpartition("_")[2]
            flat = {"ours, GPU": ours(matrix, device), "ours, CPU": ours(matrix)}
            solid = {f"ours, GPU, {taken}": ours(fast, device), "ours, CPU, numba": ours(ConeBeam(cone, grid, "numba"))}
            if taken != "torch":
                solid["ours, GPU, torch"] = ours(ConeBeam(cone, grid, "torch"), device)
            if hasattr(itk, "CudaImage"):
                solid["RTK, GPU"] = rtk_projector(cone, grid, cuda=True)
        else:
            flat = {
                "ours": ours(matrix),
                "RTK": rtk_projector(parallel, grid),
                "scikit-image": skimage_projector(parallel, grid),
            }
            solid = {
                "ours, numba": ours(ConeBeam(cone, grid, "numba")),
                "ours, torch": ours(ConeBeam(cone, grid, "torch")),
                "RTK": rtk_projector(cone, grid),
            }
        result[f"parallel, {name}"], result[f"cone, {name}"] = flat, solid
    return result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    args = parser.parse_args(argv)
    device = args.device
    check_device(device)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())
    result = {"device": where(torch.device(device)), "threads": torch.get_num_threads(), "seconds": {}}
    for name, projectors in cases(device).items():
        result["seconds"][name] = compare(projectors, args.repeats, device)
    text = json.dumps(result, indent=4)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    with plain_endings():
        main()
