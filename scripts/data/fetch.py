"""Fetch the source of a volume with the client it names, and take single files out of what was fetched.

| client     | source                                                                                    |
|------------|-------------------------------------------------------------------------------------------|
| pip        | a wheel                                                                                   |
| pip-source | a source archive                                                                          |
| apt        | a Debian package                                                                          |
| git        | a repository at one commit, of which the named paths alone are asked for                  |
| prepared   | nothing to fetch: the volume was made from other files by steps that are not repeated here |

Packages may also lie in folders (`find_archive`), and so may the volumes themselves (`find_prepared`).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ARCHIVES = {"pip": "{wheel}-*.whl", "pip-source": "{lower}-*.tar.gz", "apt": "{stem}_*.deb"}
"""Per client: what the file of a package is called."""


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run(command: Sequence[str], folder: Path, instead: str) -> None:
    """Run a client in `folder`; RuntimeError in its own words, or with what to do `instead` where it is missing."""
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
        )  # fmt: skip
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]!r} is not on this machine: {instead}") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error.stderr.strip()}") from None


def fetch(source: dict, folder: Path) -> None:
    """Download what `source` names into `folder`: a package, or of a git repository the files alone.

    Raises:
        RuntimeError: the client is missing, or failed.
    """
    if source["client"] == "git":
        return fetch_git(source["repository"], source["commit"], wanted(source), folder)
    package = source["package"]
    instead = f"download the package {package!r} elsewhere and pass its folder as --archive_dir"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", "."]
    command = {
        "pip": [*pip, package],
        # The package alone as source: what its build asks for may come as wheels.
        "pip-source": [*pip, "--no-binary", package.split("==")[0], package],
        "apt": ["apt-get", "download", package],
    }[source["client"]]
    return run(command, folder, instead)


def fetch_git(repository: str, commit: str, paths: Sequence[str], folder: Path) -> None:
    """The files `paths` of `repository` at `commit`, in `folder`: no history, and no content of other files."""
    git = ["git", "-c", "core.autocrlf=false", "-c", "advice.detachedHead=false"]
    instead = f"get {', '.join(paths)} of {repository} at {commit} elsewhere, and pass their folder as --archive_dir"
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", repository],
        ["sparse-checkout", "set", "--no-cone", *(f"/{path}" for path in paths)],
        ["fetch", "-q", "--depth", "1", "--filter=blob:none", "origin", commit],
        ["checkout", "-q", "FETCH_HEAD"],
    ):
        run([*git, *words], folder, instead)


def wanted(source: dict) -> list[str]:
    """Paths within a source: its volumes, and the text of its licence where that lies beside them."""
    licence = source["licence_text"]
    return [f["path"] for f in source["files"]] + ([licence["path"]] if "path" in licence else [])


def find_archive(source: dict, folders: Sequence[Path]) -> Path | None:
    """The package of `source` in one of the folders; None where it is in none."""
    if source["client"] not in ARCHIVES:
        return None
    stem = source["package"].split("==")[0]
    wheel = stem.replace("-", "_")
    pattern = ARCHIVES[source["client"]].format(stem=stem, wheel=wheel, lower=wheel.lower())
    found = [path for folder in folders for path in sorted(folder.glob(pattern))]
    return found[-1] if found else None


def find_prepared(name: str, digest: str, folders: Sequence[Path]) -> Path | None:
    """A file of this name pattern and SHA-256 below one of the folders; None where there is none."""
    paths = (path for folder in folders for path in sorted(folder.rglob(name)))
    return next((path for path in paths if sha256(path) == digest), None)


def extract(archive: Path, paths: Sequence[str], folder: Path) -> None:
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
