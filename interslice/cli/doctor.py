"""Checks an installation in under a minute and says in plain words what is wrong, and what to do about it.

    interslice doctor
    interslice doctor --device cuda

Versions against requirements.txt (of an installed package, against what it asks for), the device, the shipped weights
(do they remove noise from a head?), operators (is each adjoint the transpose?), noise fields (do draws have the stated
covariance?), the disk, and a small piece of the embedded scan from file to file. Ends with status 1 if something is
wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from interslice.files.root_cause import root_cause
from interslice.home import home, is_installed
from interslice.noise.auto_length import AutoLength
from interslice.noise.named import FIELDS
from interslice.physics.ct import Tomography
from interslice.physics.kspace import CartesianSampling
from interslice.physics.thick import ScalePercentilesd, ThroughPlaneSampling
from interslice.prior.weights import load_weights
from interslice.sampling.best_device import best_device

ROOT = home()
CONFIG = "configs/inference.json"
TASKS = {"MRI": [], "CT": ["configs/task_svct.json"]}
GIGABYTE = 2**30
FREE_SPACE, FREE_MEMORY = 2, 4
"""GB below which a note is made."""
LARGEST_NOISE_ERROR = 0.35
"""Mean squared error of the predicted noise; a guess of zero scores 1."""
ADJOINT_TOLERANCE = 1e-5


class Wrong(Exception):
    """A check that failed; the message says what is wrong and what to do."""


def versions() -> str:
    """Python and every package that is needed."""
    asked, fix = needed()
    missing, other = [], []
    for package, wanted in asked.items():
        try:
            found = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
            continue
        if not wanted.contains(found, prereleases=True):
            other.append(f"{package} {found} (tested with {str(wanted).removeprefix('==')})")
    if missing or other:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"other versions: {', '.join(other)}"] * bool(
            other
        )
        raise Wrong(f"{'; '.join(parts)}. Install them: {fix}")
    return f"Python {sys.version.split()[0]}, torch {torch.__version__}, {len(asked)} packages as {ASKED[fix]}"


PINS = "pip install -r requirements.txt"
RANGES = "pip install . in the folder of the repository, or the wheel again"
ASKED = {PINS: "pinned", RANGES: "asked for"}


def needed() -> tuple[dict[str, SpecifierSet], str]:
    """Packages with their versions, and how to install them: the pins of a checkout, or what the package asks for."""
    if is_installed():
        lines = [line for line in importlib.metadata.requires("interslice") or () if "extra ==" not in line]
        asked, fix = [Requirement(line) for line in lines], RANGES
    else:
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        asked, fix = [Requirement(line) for line in lines if re.match(r"[\w.-]+==", line)], PINS
    return {one.name: one.specifier for one in asked}, fix


def device(name: str) -> str:
    """The device computes, and what it is."""
    try:
        x = torch.ones(64, 64, device=name)
        right = float((x @ x).sum()) == 64.0**3
    except (RuntimeError, AssertionError) as error:
        raise Wrong(f"device {name} cannot be used ({root_cause(error).splitlines()[0]}): try --device cpu") from None
    if not right:
        raise Wrong(f"device {name} multiplies matrices wrongly: update its driver, or use --device cpu")
    if name.startswith("cuda"):
        return f"{torch.cuda.get_device_name(name)}, {torch.cuda.get_device_properties(name).total_memory >> 30} GB"
    idle = "" if not torch.cuda.is_available() else "; a GPU is there too: --device cuda"
    return f"CPU, {torch.get_num_threads()} threads{idle}"


def weights(name: str, config: list[str], sample: Path, level: int = 150) -> str:
    """The shipped prior loads and removes noise from a slice of the sample."""
    parser = workflow([CONFIG, *config], device="$torch.device('cpu')").parser
    path = Path(parser.get_parsed_content("checkpoint"))
    network, ab = parser.get_parsed_content("network_def"), parser.get_parsed_content("prior").alpha_bars[level]
    load_weights(network, path).eval()
    volume = torch.from_numpy(nib.load(sample).get_fdata(dtype=np.float32))
    x = volume / 1000 if name == "CT" else ScalePercentilesd("image")({"image": volume})["image"]
    x = x[:, x.shape[1] // 2]
    x = x[: x.shape[0] // 16 * 16, : x.shape[1] // 16 * 16]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network((ab**0.5 * x + (1 - ab) ** 0.5 * noise)[None, None], torch.tensor([level]))[0, 0]
    error = float((found - noise).square().mean())
    if error > LARGEST_NOISE_ERROR:
        raise Wrong(
            f"{path} loads, but does not remove noise (error {error:.2f}, a guess scores 1): it is not the shipped "
            "file; fetch that again"
        )
    return f"{path.relative_to(ROOT)}: {1 - error:.0%} of the noise found in a slice it was not trained on"


def adjoints() -> str:
    """<A x, y> = <x, A^T y> for one operator of each physics."""
    volume = MetaTensor(torch.zeros(1, 24, 20, 12), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]).double()))
    ct = {"num_views": 7, "source_to_isocenter": 200.0, "source_to_detector": 350.0}
    builders = {"thick slices": ThroughPlaneSampling(ratio=3)}
    builders |= {f"{beam} beam": Tomography(beam=beam, **ct) for beam in ("parallel", "fan", "cone")}
    builders |= {"k-space": CartesianSampling()}
    for name, builder in builders.items():
        operator = builder.for_volume(volume)
        x, y = torch.rand(operator.domain_shape), torch.rand(operator.range_shape)
        ax = operator.forward(x)
        left, right = float((ax * y).double().sum()), float((x * operator.adjoint(y)).double().sum())
        if abs(left - right) > ADJOINT_TOLERANCE * float(ax.norm() * y.norm()):
            raise Wrong(f"{name}: <Ax, y> = {left:g}, but <x, A'y> = {right:g}; this is a bug: please report it")
    return f"{', '.join(builders)}: each adjoint is the transpose"


def noise_fields(slices: int = 9, pixels: int = 96) -> str:
    """Draws have the covariance that each field states, within five standard errors."""
    for name, build in FIELDS.items():
        field = build()
        if isinstance(field, AutoLength):
            continue  # a Matern field once its length is known
        x = field.draw(slices, (pixels, pixels), seed=1, step=0).flatten(1).double()
        off = (x @ x.T / pixels**2 - field.covariance(slices)).abs().max()
        if float(off) > 5 * 2**0.5 / pixels:
            raise Wrong(f"{name}: a covariance is off by {float(off):.3f}; this is a bug: please report it")
    return f"{', '.join(FIELDS)}: as stated"


def disk(folder: Path) -> str:
    """Room for results, and that they can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Wrong(f"{folder} cannot be written ({error.strerror}): choose another --output_dir for results") from None
    free = shutil.disk_usage(folder).free / GIGABYTE
    if free < FREE_SPACE:
        raise Wrong(f"{free:.1f} GB are left beside {folder}: make room, or choose another --output_dir")
    return f"results can be written, {free:.0f} GB left"


def small_run(name: str) -> str:
    """A piece of the embedded scan, from file to file: the result agrees with what was measured."""
    thick = nib.load(ROOT / "sample_data/mri/measured/colin27_t1_5mm.nii.gz")
    piece = thick.slicer[60:108, 70:118, 8:14]
    with tempfile.TemporaryDirectory() as folder:
        nib.save(piece, Path(folder) / "piece.nii.gz")
        run = workflow(
            [CONFIG], dataset_dir=f"{folder}/piece.nii.gz", output_dir=f"{folder}/results", num_draws=1, num_steps=2,
            device=f"$torch.device('{name}')", **{"sampler#progress": False},
        )  # fmt: skip
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run.run()
        seconds = time.perf_counter() - start
        recon = nib.load(f"{folder}/results/piece/piece_recon.nii.gz")
        voxels, seen = recon.get_fdata(), piece.get_fdata()
    operator = ThroughPlaneSampling().for_scan(piece.shape, piece.header.get_zooms())
    misfit = float((operator.forward(torch.from_numpy(voxels)) - torch.from_numpy(seen)).abs().max() / seen.max())
    if misfit > 1e-3:
        raise Wrong(f"the result contradicts the scan by {misfit:.1%} of its range; this is a bug: please report it")
    return f"{piece.shape} voxels became {voxels.shape} in {seconds:.0f} s, in agreement with the scan"


def workflow(configs: list[str], **settings) -> ConfigWorkflow:
    files = [str(ROOT / c) for c in configs]
    return ConfigWorkflow(
        files if len(files) > 1 else files[0], meta_file=str(ROOT / "configs/metadata.json"), logging_file=False,
        workflow_type="inference", bundle_root=str(ROOT), **settings,
    )  # fmt: skip


def checks(name: str, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Title and check; a check returns what it found, or raises `Wrong`."""
    yield "versions", versions
    yield "device", lambda: device(name)
    yield "weights MRI", lambda: weights("MRI", [], ROOT / "sample_data/mri/truth/colin27_t1.nii.gz")
    yield "weights CT", lambda: weights("CT", TASKS["CT"], next((ROOT / "sample_data/ct/truth").glob("*.nii.gz")))
    yield "operators", adjoints
    yield "noise", noise_fields
    yield "disk", lambda: disk(folder)
    yield "a small run", lambda: small_run(name)


def examine(name: str, folder: Path) -> int:
    """Run every check, print a line for each, and return how many failed."""
    failed = 0
    logging.disable(logging.WARNING)  # what the runner says of every config
    for title, check in checks(name, folder):
        try:
            mark, said = "ok   ", check()
        except Exception as error:  # whatever it is, the other checks still tell something
            failed += 1
            mark, said = (
                "WRONG",
                str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {root_cause(error)}",
            )
        print(f"{mark}  {title:<12} {said}", flush=True)
    logging.disable(logging.NOTSET)
    return failed


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=str(best_device()), help="cpu, cuda, cuda:1, mps, ...")
    parser.add_argument("--output_dir", type=Path, default=Path("eval"), help="where results are to be written")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    failed = examine(args.device, args.output_dir)
    seconds = time.perf_counter() - start
    if failed:
        raise SystemExit(f"{failed} of the checks found something wrong ({seconds:.0f} s)")
    print(f"all is well ({seconds:.0f} s)")
