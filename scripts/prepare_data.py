"""Fetch the pinned public volumes, synthesise training volumes, and write a manifest.

    python -m scripts.prepare_data                   heads for the MRI prior, into data/
    python -m scripts.prepare_data --modality ct     bodies for the CT prior, into data_ct/

writes

    training/      people, averages and synthetic volumes, for `run training --dataset_dir data/training`
    validation/    synthetic volumes of other seeds; for CT, of slices that training never sees
    held_out/      people who are for showing and never for training
    thick/         real scans of thick slices, without truth: never for training either
    tissue/        the tissue maps that heads are made from;  bodies/: the volumes that bodies are made from
    licences/      the text of each source's licence
    manifest.json  per file: role, contrast, source, licence, citation, SHA-256

Sources are listed in scripts/data_sources.json and fetched with pip, apt or git. `--archive_dir` takes folders of
packages already downloaded, and of the volumes themselves under the names of the list, and then nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.usage import UsageError
from scripts.data.collect import collect
from scripts.data.contrasts import WEIGHTS, contrast_of
from scripts.data.fetch import sha256
from scripts.data.roles import check_roles
from scripts.data.synthesise_bodies import BodySynthesiser, cubic, pieces
from scripts.data.synthesise_heads import HeadSynthesiser

SOURCES = Path(__file__).with_name("data_sources.json")
FIRST_VALIDATION_SEED = 1000


def head_synthesiser(output_dir: Path) -> tuple[HeadSynthesiser, np.ndarray]:
    """Of the tissue maps that were written there, and the affine (4, 4) of its heads."""

    def load(kind: str, folder: str) -> tuple[torch.Tensor, np.ndarray]:
        image = nib.load(output_dir / folder / f"icbm152_sym09a_{kind}.nii.gz")
        return torch.from_numpy(image.get_fdata(dtype=np.float32)), image.affine

    t1, affine = load("t1", "training")
    return HeadSynthesiser(load("wm", "tissue")[0] / 255, load("gm", "tissue")[0] / 255, t1), affine


def head_drawer(output_dir: Path, sources: dict) -> Callable[[str, int], nib.Nifti1Image]:
    """Draws a head (uint8) for a role and a seed, from the tissue maps; its header tells its contrast."""
    draw, affine = head_synthesiser(output_dir)

    def head(role: str, seed: int) -> nib.Nifti1Image:
        image = nib.Nifti1Image((draw(seed) * 255).round().byte().numpy(), affine)
        image.header["descrip"] = contrast_of(seed)
        return image

    return head


def body_drawer(output_dir: Path, sources: dict) -> Callable[[str, int], nib.Nifti1Image]:
    """Draws a body (int16, HU) for a role and a seed; validation bodies come from slices that training lacks."""
    volumes: dict[str, list] = {"training": [], "validation": []}
    for file in (f for s in sources.values() for f in s["files"] if f["role"] == "bodies"):
        image = nib.as_closest_canonical(nib.load(output_dir / "bodies" / f"{file['name']}.nii.gz"))
        volume, spacing = cubic(torch.from_numpy(image.get_fdata(dtype=np.float32)), image.header.get_zooms())
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
        contrast = nib.load(path).header["descrip"].item().decode()
        if modality == "mri" and contrast != contrast_of(seed):
            warnings.warn(f"{path} is of an older version, and stays: remove it for a new one", stacklevel=2)
        told = {"contrast": contrast} if contrast in WEIGHTS else {}
        entries.append(
            {"file": str(path.relative_to(output_dir)), "role": role, "sha256": sha256(path), **told,
             "source": f"{drawer.__name__}, seed {seed}, from the volumes above", "licence": "that of its sources"}
        )  # fmt: skip
    return entries


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=sorted(DRAWERS), default="mri")
    parser.add_argument("--output_dir", type=Path, help="default: data, or data_ct")
    parser.add_argument(
        "--archive_dir", type=Path, nargs="+", default=[], help="folders of packages or volumes already downloaded"
    )
    parser.add_argument("--without", nargs="+", default=[], metavar="SOURCE", help="sources to leave out")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="JSON list of sources")
    parser.add_argument("--training_volumes", type=int, help="synthetic volumes for training (14 heads, 28 bodies)")
    parser.add_argument("--validation_volumes", type=int, help="synthetic volumes for validation (2 heads, 4 bodies)")
    args = parser.parse_args(argv)

    ct = args.modality == "ct"
    args.output_dir = args.output_dir or Path("data_ct" if ct else "data")
    training = (28 if ct else 14) if args.training_volumes is None else args.training_volumes
    validation = (4 if ct else 2) if args.validation_volumes is None else args.validation_volumes
    listed = json.loads(args.sources.read_text(encoding="utf-8"))
    sources = {k: v for k, v in listed.items() if v["modality"] == args.modality}
    if unknown := sorted(set(args.without) - sources.keys()):
        raise UsageError(f"--without {' '.join(unknown)}: the sources are {', '.join(sources)}")
    if lost := [str(folder) for folder in args.archive_dir if not folder.is_dir()]:
        raise UsageError(f"--archive_dir {' '.join(lost)}: no such folder")
    if needed := [k for k in args.without if any(f["role"] in ("tissue", "bodies") for f in sources[k]["files"])]:
        raise UsageError(f"--without {' '.join(needed)}: synthetic volumes are made from it; leave others out")
    taken = {k: v for k, v in sources.items() if k not in args.without}
    entries = collect(args.output_dir, args.archive_dir, taken)
    entries += synthesise(args.output_dir, args.modality, taken, training, validation)
    check_roles(args.output_dir, sources)
    manifest = args.output_dir / "manifest.json"
    manifest.write_text(json.dumps(entries, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {len(entries)} volumes and {manifest}")


if __name__ == "__main__":
    with plain_endings("the same command goes on after the last whole volume in --output_dir"):
        main()
