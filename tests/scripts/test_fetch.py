"""Sources of volumes: repositories at a commit, files that lie prepared, licences that are kept, wrong content."""

import json
import os
import shutil
import subprocess

import pytest

from interslice.usage import UsageError
from scripts import prepare_data
from scripts.data.collect import collect
from scripts.data.fetch import fetch, sha256
from scripts.data.roles import TESTED, check_roles
from tests.support.archives import Archives, digest
from tests.support.scans import head_voxels, write_volume

LISTED = json.loads(prepare_data.SOURCES.read_text(encoding="utf-8"))
ENVIRONMENT = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
IDENTITY = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "core.autocrlf=false"]


def git(folder, *words):
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=folder, check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    return done.stdout.strip()


class Repository:
    """A repository with the scan of a person, a licence and a large file, and a later commit that changes all."""

    def __init__(self, folder):
        self.folder = folder
        self.scan = write_volume(folder / "scans" / "T1.nii.gz", head_voxels((24, 20, 22), 5))
        (folder / "LICENSE").write_bytes(b"Do as you like.\r\n")  # whose line ends are no business of ours
        (folder / "large.bin").write_bytes(os.urandom(4096))
        self.digest = digest(self.scan)
        git(folder, "init", "-q")
        for name in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            git(folder, "config", name, "true")
        self.commit = self.committed()
        self.scan.write_bytes(b"another scan")
        (folder / "LICENSE").write_text("All rights reserved.")
        self.committed()

    def committed(self):
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", "a state")
        return git(self.folder, "rev-parse", "HEAD")

    def source(self, role="training", **other):
        files = [{"path": "scans/T1.nii.gz", "sha256": self.digest, "name": "t1_person", "role": role}]
        return {
            "modality": "mri", "client": "git", "repository": self.folder.as_uri(), "commit": self.commit,
            "licence": "free", "licence_text": {"path": "LICENSE", "sha256": "0" * 64}, "files": files,
        } | other  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def archives(tmp_path):
    return Archives(tmp_path)


# -- git ------------------------------------------------------------------------------------------
def test_a_file_of_a_commit_comes_with_its_licence_and_says_where_it_is_from(repository, tmp_path):
    (entry,) = collect(tmp_path, [], {"person": repository.source(cite="Someone et al.")})
    assert digest(tmp_path / "training" / "t1_person.nii.gz") == repository.digest == entry["sha256"]
    assert (tmp_path / "licences" / "person.txt").read_bytes() == b"Do as you like.\r\n"
    assert repository.commit in entry["source"] and repository.folder.as_uri() in entry["source"]
    assert (entry["licence"], entry["licence_text"], entry["cite"]) == ("free", "licences/person.txt", "Someone et al.")


def test_only_the_named_paths_of_a_repository_are_asked_for(repository, tmp_path):
    fetch(repository.source(), tmp_path)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}
    assert files == {"scans/T1.nii.gz", "LICENSE"}
    objects = git(tmp_path, "rev-list", "--objects", "--missing=print", "HEAD").splitlines()
    large = git(repository.folder, "rev-parse", f"{repository.commit}:large.bin")
    assert f"?{large}" in objects  # known by name, and not here
    assert len([o for o in objects if o.startswith("?")]) == 1
    assert git(tmp_path, "rev-list", "--count", "HEAD") == "1"  # and no history


def test_a_commit_that_the_repository_lacks_is_told_in_words_of_git(repository, tmp_path):
    with pytest.raises(RuntimeError, match=r"fetch -q --depth 1 .* failed:\n.*1111"):
        fetch(repository.source(commit="1" * 40), tmp_path)


def test_a_path_that_the_commit_lacks_is_named(repository, tmp_path):
    source = repository.source()
    source["files"][0]["path"] = "scans/T9.nii.gz"
    with pytest.raises(RuntimeError, match=rf"at {repository.commit} has no scans/T9.nii.gz: use "):
        collect(tmp_path, [], {"person": source})


def test_a_wrong_hash_in_a_repository_stops_before_the_file_is_used(repository, tmp_path):
    source = repository.source()
    source["files"][0]["sha256"] = "0" * 64
    with pytest.raises(RuntimeError, match=rf"has SHA-256 {repository.digest}, expected 0{{64}}: use "):
        collect(tmp_path, [], {"person": source})
    assert not list(tmp_path.iterdir())


def test_without_git_it_is_said_what_to_get_elsewhere(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"'git' is not on this machine: get scans/T1.nii.gz, LICENSE of file:.*"):
        fetch(repository.source(), tmp_path)


# -- prepared files -------------------------------------------------------------------------------
def prepared(repository, folder, licence=b"Do as you like.\r\n"):
    """The scan under its name in a folder inside, and its licence."""
    scan, text = folder / "mri" / "t1_person.nii.gz", folder / "licences" / "some.txt"
    for path in (scan, text):
        path.parent.mkdir(parents=True, exist_ok=True)
    scan.write_bytes(git_file(repository, "scans/T1.nii.gz"))
    text.write_bytes(licence)
    return sha256(text)


def git_file(repository, path):
    words = ["git", "show", f"{repository.commit}:{path}"]
    return subprocess.run(words, cwd=repository.folder, check=True, capture_output=True, env=ENVIRONMENT).stdout


def test_prepared_files_are_taken_by_name_and_content_with_their_licence(repository, tmp_path):
    told = prepared(repository, tmp_path / "archive")
    for client in ("git", "prepared"):
        source = repository.source(client=client, licence_text={"path": "LICENSE", "sha256": told})
        output = tmp_path / client
        (entry,) = collect(output, [tmp_path / "archive"], {"person": source})
        assert digest(output / entry["file"]) == repository.digest
        assert (output / "licences" / "person.txt").read_bytes() == b"Do as you like.\r\n"


def test_a_prepared_file_without_its_licence_is_not_taken(repository, tmp_path):
    prepared(repository, tmp_path / "archive")
    source = repository.source(licence_text={"path": "LICENSE", "sha256": "1" * 64})
    with pytest.raises(FileNotFoundError, match="no t1_person.nii.gz as pinned in .*, with the licence"):
        collect(tmp_path / "out", [tmp_path / "archive"], {"person": source})


def test_a_prepared_file_of_other_content_is_refused_with_its_digest(repository, tmp_path):
    told = prepared(repository, tmp_path / "archive")
    path = tmp_path / "archive" / "mri" / "t1_person.nii.gz"
    path.write_bytes(b"damaged")
    source = repository.source(licence_text={"path": "LICENSE", "sha256": told})
    with pytest.raises(FileNotFoundError, match=rf"t1_person.nii.gz has SHA-256 {sha256(path)}, expected "):
        collect(tmp_path / "out", [tmp_path / "archive"], {"person": source})


def test_what_can_only_be_given_is_left_out_and_named(repository, tmp_path, capsys):
    source = repository.source(client="prepared")
    assert collect(tmp_path, [], {"person": source}) == []
    said = capsys.readouterr().err
    assert "left out: t1_person, scans/T1.nii.gz" in said and "as --archive_dir" in said


def test_a_folder_that_was_prepared_before_is_an_archive_for_another(repository, tmp_path):
    source = repository.source()
    source["licence_text"]["sha256"] = collected_licence(tmp_path / "first", source)
    first, again = (collect(tmp_path / name, f, {"person": source}) for name, f in (("a", []), ("b", [tmp_path / "a"])))
    assert [e["sha256"] for e in first] == [e["sha256"] for e in again]


def collected_licence(folder, source):
    collect(folder, [], {"person": source})
    return sha256(folder / "licences" / "person.txt")


# -- the list, and the command line ---------------------------------------------------------------
def test_every_volume_of_the_manifest_has_the_text_of_its_licence(archives, tmp_path):
    data = tmp_path / "data"
    for entry in archives.prepare(data, 1, 1):
        if not entry["source"].startswith("head_drawer"):
            assert (data / entry["licence_text"]).read_text(encoding="utf-8") == "Free."


def test_a_source_that_is_left_out_is_neither_fetched_nor_listed(archives, repository, tmp_path):
    archives.sources["person"] = repository.source(repository="file:///nowhere")
    manifest = archives.prepare(tmp_path / "data", 0, 0, options=["--without", "person"])
    assert manifest and not any(e["source"].startswith("person") for e in manifest)


def test_all_that_the_folders_lack_is_named_at_once_before_anything_is_written(archives, repository, tmp_path):
    archives.sources |= {"one": repository.source(), "two": repository.source()}
    with pytest.raises(FileNotFoundError, match=r"leave sources out: --without one two$"):
        archives.prepare(tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--without", "nobody"], "--without nobody: the sources are tiny-maps"),
        (["--archive_dir", "x"], "no such fold"),
    ],
)
def test_options_that_name_nothing_are_refused_before_work_begins(archives, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        archives.prepare(tmp_path / "data", options=options)
    assert not (tmp_path / "data").exists()


def test_packages_and_prepared_files_may_lie_in_several_folders(archives, repository, tmp_path):
    told = prepared(repository, tmp_path / "other")
    archives.sources["person"] = repository.source(licence_text={"path": "LICENSE", "sha256": told})
    folders = ["--archive_dir", str(archives.folder), str(tmp_path / "other")]
    manifest = archives.prepare(tmp_path / "data", 0, 0, options=folders)
    assert "training/t1_person.nii.gz" in {e["file"] for e in manifest}


def test_the_pinned_sources_name_each_volume_once_and_hold_people_out():
    files = [f for s in LISTED.values() for f in s["files"]]
    assert len({f["sha256"] for f in files}) == len({f["name"] for f in files}) == len(files)
    assert all(len(f["sha256"]) == 64 for f in files)
    roles = {f["name"]: f["role"] for f in files}
    shown = ("colin27_t1", "t1_seg3d", "t1_stroke", "t2_stroke", "flair_stroke", "lidc_idri_0001")
    assert {roles[name] for name in shown} == {"held_out"}
    assert {role for name, role in roles.items() if name.startswith("open_ms_")} == {"thick"}
    assert set(roles.values()) <= {"training", "tissue", "bodies", *TESTED}
    assert all("==" in s["package"] for s in LISTED.values() if s["client"].startswith("pip"))
    assert all(len(s["commit"]) == 40 for s in LISTED.values() if s["client"] in ("git", "prepared"))
    assert all(s["licence"] and s["licence_text"].keys() <= {"text", "path", "sha256"} for s in LISTED.values())
    assert {s["modality"] for s in LISTED.values()} == set(prepare_data.DRAWERS)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", [n for n, s in LISTED.items() if s["client"] != "prepared"])
def test_the_real_sources_are_what_they_were(tmp_path, name):
    """Each source apart, as not every network reaches all of them."""
    if LISTED[name]["client"] == "apt" and not shutil.which("apt-get"):
        pytest.skip("needs apt-get")
    entries = collect(tmp_path, [], {name: LISTED[name]})
    check_roles(tmp_path, LISTED)
    assert {e["sha256"] for e in entries} == {f["sha256"] for f in LISTED[name]["files"]}
    assert (tmp_path / "licences" / f"{name}.txt").stat().st_size > 100
