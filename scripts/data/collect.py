"""Bring the volumes of the listed sources, checked, into the folders of their roles, with the text of each licence.

A source of scripts/data_sources.json has

    modality, client, package | repository + commit     where it is from (scripts/data/fetch.py)
    licence                                              in a line: which, and what it speaks of
    licence_text                                         {"path", "sha256"} within the source, or {"text"}
    cite                                                 what its authors ask to be cited, if anything
    files                                                path, sha256, name, role, contrast of each volume

A volume is taken from a prepared file of its name, else from the package, else it is fetched.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.data.fetch import extract, fetch, find_archive, find_prepared, sha256, wanted

LISTED = "data_sources.json"


def collect(output_dir: Path, folders: Sequence[Path], sources: dict) -> list[dict]:
    """Volumes to `output_dir`/role, licences to `output_dir`/licences; entries of the manifest.

    Args:
        folders: where prepared files and packages lie; if there are none, sources are fetched.

    Raises:
        FileNotFoundError: `folders` lack a source.
        RuntimeError: it cannot be fetched, or is not what is listed.
    """
    if folders and (lost := [name for name, source in sources.items() if not at_hand(source, folders)]):
        raise FileNotFoundError(
            f"{', '.join(map(str, folders))}: {' '.join(missing(sources[name], folders) for name in lost)} "
            f"Fetch it, leave --archive_dir out, or leave sources out: --without {' '.join(lost)}"
        )
    entries = []
    for name, source in sources.items():
        with tempfile.TemporaryDirectory() as tmp:
            found = obtain(name, source, folders, Path(tmp))
            if found is None:
                continue
            origin, volumes, licence = found
            kept = output_dir / "licences" / f"{name}.txt"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(licence)
            for file, path in zip(source["files"], volumes):
                target = output_dir / file["role"] / f"{file['name']}.nii.gz"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                told = {"contrast": file["contrast"]} if "contrast" in file else {}
                cite = {"cite": source["cite"]} if "cite" in source else {}
                entries.append(
                    {"file": str(target.relative_to(output_dir)), "role": file["role"], "sha256": file["sha256"],
                     **told, "source": f"{name}: {origin}: {file['path']}", "licence": source["licence"],
                     "licence_text": f"licences/{name}.txt", **cite}
                )  # fmt: skip
    return entries


def obtain(name: str, source: dict, folders: Sequence[Path], work: Path) -> tuple[str, list[Path], bytes] | None:
    """What a source is called, its checked volumes, and the text of its licence; None if it can only be given.

    Args:
        work: an empty folder, for what is fetched and unpacked.
    """
    prepared = [find_prepared(f"{f['name']}.nii.gz", f["sha256"], folders) for f in source["files"]]
    text = licence_beside(source, folders)
    if all(prepared) and text is not None:
        return described(source), prepared, text
    if source["client"] == "prepared":
        for file in source["files"]:
            print(
                f"left out: {file['name']}, {file['path']} ({described(source)}), steps that are not repeated here. "
                "Give the folder of the prepared file, with its licence, as --archive_dir",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        return None
    archive = find_archive(source, folders)
    if archive is None:
        print(f"fetching {described(source)} ...", flush=True)
        fetch(source, work)
        archive = find_archive(source, [work])
    if archive is not None:
        try:
            extract(archive, wanted(source), work)
        except KeyError as error:
            raise RuntimeError(
                f"{archive.name}: {error.args[0]}: use {source['package']} as pinned in {LISTED}"
            ) from None
    origin = archive.name if archive is not None else described(source)
    volumes = [checked(work / f["path"], f, origin, source) for f in source["files"]]
    if text is None:
        text = (work / source["licence_text"]["path"]).read_bytes()
    return origin, volumes, text


def described(source: dict) -> str:
    """A package with its version, or a repository with its commit."""
    return source["package"] if "package" in source else f"{source['repository']} at {source['commit']}"


def licence_beside(source: dict, folders: Sequence[Path]) -> bytes | None:
    """The text of a licence that needs no fetching: listed, or known by its digest in a folder `licences`."""
    listed = source["licence_text"]
    if "text" in listed:
        return listed["text"].encode()
    path = find_prepared("licences/*.txt", listed["sha256"], folders)
    return path.read_bytes() if path else None


def checked(path: Path, file: dict, origin: str, source: dict) -> Path:
    """`path`; RuntimeError if it is not there or not of the listed SHA-256."""
    pinned = f"use {described(source)} as pinned in {LISTED}"
    if not path.is_file():
        raise RuntimeError(f"{origin} has no {file['path']}: {pinned}")
    if sha256(path) != file["sha256"]:
        raise RuntimeError(
            f"{file['path']} of {origin} has SHA-256 {sha256(path)}, expected {file['sha256']}: {pinned}"
        )
    return path


def at_hand(source: dict, folders: Sequence[Path]) -> bool:
    """Whether a source can be taken from the folders, or can be left out."""
    if source["client"] == "prepared" or find_archive(source, folders) is not None:
        return True
    files = (find_prepared(f"{f['name']}.nii.gz", f["sha256"], folders) for f in source["files"])
    return licence_beside(source, folders) is not None and all(files)


def missing(source: dict, folders: Sequence[Path]) -> str:
    """What the folders lack of a source."""
    files = ", ".join(f"{f['name']}.nii.gz" for f in source["files"])
    package = f"package {source['package']!r}, nor " if "package" in source else ""
    other = [
        f" {path} has SHA-256 {sha256(path)}, expected {f['sha256']}."
        for f in source["files"]
        for folder in folders
        for path in sorted(folder.rglob(f"{f['name']}.nii.gz"))
        if sha256(path) != f["sha256"]
    ]
    return f"no {package}{files} as pinned in {LISTED}, with the licence.{''.join(other)}"
