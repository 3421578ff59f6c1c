"""Packages of small volumes made here, as scripts/prepare_data.py finds them in registries and repositories."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import torch

from scripts import prepare_data
from tests.support.scans import head_voxels, write_volume

SIDE = 40


def tissue_maps(side=SIDE):
    """White matter, grey matter and an averaged T1: balls around each other."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, side)] * 3, indexing="ij"))
    radius = grid.square().sum(0).sqrt()
    wm, brain = torch.sigmoid(20 * (0.3 - radius)), torch.sigmoid(20 * (0.55 - radius))
    gm = 0.9 * (brain - wm).clamp(0, 1)
    return wm, gm, torch.where(brain > 0.05, 0.9 * wm + 0.6 * gm + 0.2 * brain, 0.0)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Archives:
    """Packages made here, with the list of their volumes: a wheel, and a Debian package where there is dpkg-deb."""

    modality = "mri"

    def __init__(self, folder):
        self.folder, self.sources = folder / "archives", {}
        self.folder.mkdir()
        wm, gm, t1 = (np.round(255 * m.numpy()).astype(np.uint8) for m in tissue_maps())
        held_out = head_voxels((20, 18, 20)).astype(np.int16)
        self.wheel = self.folder / "tiny_maps-1.0-py3-none-any.whl"
        volumes = {
            "icbm152_sym09a_t1": ("training", t1), "icbm152_sym09a_wm": ("tissue", wm),
            "icbm152_sym09a_gm": ("tissue", gm), "person": ("held_out", held_out),
        }  # fmt: skip
        members = {
            f"maps/data/{name}_file.nii.gz": (name, role, write_volume(folder / "raw" / f"{name}.nii.gz", voxels))
            for name, (role, voxels) in volumes.items()
        }
        with zipfile.ZipFile(self.wheel, "w") as wheel:
            for path, (_, _, file) in members.items():
                wheel.write(file, path)
        self.add("pip", "tiny-maps==1.0", members)
        self.held_out = folder / "raw" / "person.nii.gz"
        if shutil.which("dpkg-deb"):
            self.add_debian(folder / "deb", write_volume(folder / "raw" / "other.nii.gz", held_out[::-1].copy()))

    def add(self, client, package, members):
        files = [{"path": p, "sha256": digest(f), "name": n, "role": r} for p, (n, r, f) in members.items()]
        source = {"client": client, "package": package, "licence": "made here", "files": files}
        self.sources[package.split("=")[0]] = source | {"modality": self.modality, "licence_text": {"text": "Free."}}

    def add_debian(self, root, file):
        path = "usr/share/tiny/other.nii.gz"
        (root / path).parent.mkdir(parents=True)
        shutil.copy(file, root / path)
        (root / "DEBIAN").mkdir()
        fields = {"Package": "tiny-data", "Version": 1, "Architecture": "all", "Maintainer": "x", "Description": "x"}
        (root / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in fields.items()))
        command = ["dpkg-deb", "--build", "--root-owner-group", str(root), str(self.folder / "tiny-data_1_all.deb")]
        subprocess.run(command, check=True, capture_output=True)
        self.add("apt", "tiny-data", {path: ("other_person", "held_out", file)})

    def prepare(self, output_dir, training=2, validation=1, fetch=False, options=()):
        listed = self.folder / "sources.json"
        listed.write_text(json.dumps(self.sources))
        prepare_data.main(
            ["--modality", self.modality, "--output_dir", str(output_dir), "--sources", str(listed),
             "--training_volumes", str(training), "--validation_volumes", str(validation),
             *([] if fetch else ["--archive_dir", str(self.folder)]), *options]
        )  # fmt: skip
        return json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))


KEPT, CHEST, ABDOMEN, DARK, BRIGHT = (40, 72), (24, 20, 104), (24, 20, 30), 5, 75
"""Slices kept for validation, counted from the feet; two grids; two values that contrast agent leaves alone."""


def body_voxels(shape, level=40):
    """A cylinder of tissue with a bone in it, air (-1000) around them."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[:2]], indexing="ij")
    plane = np.where(np.hypot(x, y) < 0.8, level, -1000)
    plane[np.hypot(x, y - 0.3) < 0.25] = 700
    return np.repeat(plane[..., None], shape[2], 2).astype(np.int16)


def chest_and_abdomen(role):
    """DARK where bodies of this role may come from, BRIGHT everywhere else."""
    chest = np.full(CHEST, DARK if role == "training" else BRIGHT, np.int16)
    first, last = KEPT
    if role == "training":
        chest[..., first - 4 : last + 4] = BRIGHT  # the kept slab and its margin
    else:
        chest[..., first:last] = DARK
    return chest, np.full(ABDOMEN, DARK if role == "training" else BRIGHT, np.int16)


class BodyArchives(Archives):
    """A source archive (tar.gz) of CT volumes made here."""

    modality = "ct"

    def __init__(self, folder, chest=None, abdomen=None):
        self.folder, self.sources = folder / "archives", {}
        self.folder.mkdir()
        chest = body_voxels(CHEST) if chest is None else chest
        abdomen = body_voxels(ABDOMEN, 60) if abdomen is None else abdomen
        # The chest lies in the file from head to feet and from left to right: slices are counted in RAS all the same.
        flipped = np.array([[-1.5, 0, 0, 30], [0, 1.5, 0, 0], [0, 0, -1.5, 150], [0, 0, 0, 1]])
        volumes = {
            "chest": ("bodies", chest[::-1, :, ::-1].copy(), flipped),
            "abdomen": ("bodies", abdomen, np.diag([2.0, 2.0, 2.0, 1.0])),
            "person": ("held_out", body_voxels((20, 20, 12), 50), None),
        }
        members = {
            f"tiny_bodies-1.0/tests/{name}_ct.nii.gz": (
                name,
                role,
                write_volume(folder / f"raw/{name}.nii.gz", *voxels),
            )
            for name, (role, *voxels) in volumes.items()
        }
        self.archive = self.folder / "tiny_bodies-1.0.tar.gz"
        with tarfile.open(self.archive, "w:gz") as tar:
            for path, (_, _, file) in members.items():
                tar.add(file, path)
        self.add("pip-source", "Tiny-Bodies==1.0", members)
        self.files = self.sources["Tiny-Bodies"]["files"]
        self.files[0]["validation_slices"] = KEPT
        self.held_out = folder / "raw" / "person.nii.gz"
