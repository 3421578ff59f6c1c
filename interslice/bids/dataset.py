"""A BIDS data set as it is read: its description, its participants, and the anatomical scans in their folders.

    bids_dir/dataset_description.json
    bids_dir/sub-01/[ses-2/]anat/sub-01_[ses-2_][acq-cor_...]T2w.nii.gz

Source: Brain Imaging Data Structure 1.10, "Modality agnostic files" and "Magnetic Resonance Imaging".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from interslice.files.bids_names import bids_name
from interslice.files.entries import in_words
from interslice.files.groups import no_scan
from interslice.files.limits import read_text
from interslice.files.paths import path_of
from interslice.usage import UsageError

DESCRIPTION = "dataset_description.json"
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR", "T2starw", "inplaneT1", "inplaneT2", "PDT2")
"""Contrasts that are taken unless others are asked for."""
OTHER_SUFFIXES = ("angio", "T2star", "FLASH", "PD")
"""Those that may be asked for. Maps of physical quantities are no images of a scanner."""
VOLUMES = (".nii.gz", ".nii")
NOT_FETCHED = "a link to nothing: fetch its content first (datalad get, git annex get)"


@dataclass(frozen=True)
class Dataset:
    """A data set that was opened.

    Attributes:
        root: its folder.
        description: what dataset_description.json holds; {} where there is none.
    """

    root: Path
    description: dict = field(default_factory=dict)

    @property
    def is_raw(self) -> bool:
        """Whether its scans are as a scanner gave them, which is what a data set is that does not say otherwise."""
        return self.description.get("DatasetType", "raw") == "raw"

    def participants(self) -> dict[str, Path]:
        """Label -> folder, in order."""
        return _labelled(self.root, "sub-")

    def relative(self, path: str | Path) -> str:
        """The path of a file inside, as BIDS URIs have it."""
        return Path(os.path.abspath(path)).relative_to(os.path.abspath(self.root)).as_posix()


def open_dataset(bids_dir: str | Path, described: bool = True) -> Dataset:
    """The data set in a folder.

    Args:
        described: whether it must have a dataset_description.json that can be read.

    Raises:
        UsageError: no folder, or no data set.
    """
    root = path_of("bids_dir", bids_dir)
    if not root.is_dir():
        raise UsageError(f"bids_dir {root} is no folder: name the folder of a BIDS data set")
    path, without = root / DESCRIPTION, "or give --skip-bids-validation"
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        if described:
            raise UsageError(f"bids_dir {root} has no {DESCRIPTION}: name the root of a data set, {without}") from None
        found = {}
    except (OSError, ValueError, RecursionError) as error:
        if described:
            raise UsageError(f"{path} cannot be read ({error}): mend it, {without}") from None
        found = {}
    if described and not (isinstance(found, dict) and isinstance(found.get("Name"), str) and "BIDSVersion" in found):
        raise UsageError(f"{path} states no Name and BIDSVersion, as BIDS wants: add them, {without}")
    return Dataset(root, found if isinstance(found, dict) else {})


@dataclass
class Scans:
    """The scans of a data set.

    Attributes:
        paths: of those that are to be used, in order.
        left_out: path -> why it is none of them, of all that lies beside them.
        refused: path -> why, of what was asked for and cannot be used.
    """

    paths: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def find_scans(dataset: Dataset, participants: Sequence[str] = (), sessions: Sequence[str] = (),
               suffixes: Sequence[str] = ()) -> Scans:  # fmt: skip
    """The anatomical scans of participants and sessions, by their labels with or without `sub-` and `ses-`.

    Args:
        participants, sessions: none stands for all; with sessions, scans outside of any are left out.
        suffixes: contrasts; none stands for SUFFIXES.

    Raises:
        UsageError: a participant or a session that is not there, a suffix of no scan, or nothing is found.
    """
    for suffix in suffixes:
        if suffix not in (*SUFFIXES, *OTHER_SUFFIXES):
            allowed = ", ".join((*SUFFIXES, *OTHER_SUFFIXES))
            raise UsageError(f"suffix must be of {allowed}, got {suffix!r}")
    there = dataset.participants()
    if not there:
        raise UsageError(f"bids_dir {dataset.root} holds no participant, no folder sub-*")
    wanted = _chosen("participant_label", participants, "sub-", list(there))
    of_sessions = {label: _labelled(there[label], "ses-") for label in wanted}
    known = list(dict.fromkeys(label for found in of_sessions.values() for label in found))
    days = _chosen("session_label", sessions, "ses-", known) if sessions else None
    scans = Scans()
    for label in wanted:
        folders = [] if days is not None else [there[label]]
        folders += [folder for day, folder in of_sessions[label].items() if days is None or day in days]
        for folder in folders:
            _look_into(folder, folder.relative_to(dataset.root).parts, suffixes or SUFFIXES, scans)
    if not scans.paths and not scans.refused:
        raise UsageError(
            f"nothing to reconstruct in {dataset.root}: no {', '.join(suffixes or SUFFIXES)} of "
            f"{', '.join(f'sub-{label}' for label in wanted)}{''.join(f', ses-{day}' for day in days or ())}"
        )
    return scans


def _labelled(folder: Path, prefix: str) -> dict[str, Path]:
    found = sorted(p for p in folder.iterdir() if p.name.startswith(prefix) and p.is_dir())
    return {path.name.removeprefix(prefix): path for path in found}


def _chosen(option: str, labels: Sequence[str], prefix: str, known: Sequence[str]) -> list[str]:
    """The labels that were given, without prefix, each once; all that are known where none was."""
    given = list(dict.fromkeys(label.removeprefix(prefix) for label in labels))
    if unknown := [label for label in given if label not in known]:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise UsageError(f"{option} {', '.join(unknown)} is not there: there are {shown or 'none'}")
    return given or list(known)


def _look_into(folder: Path, inside: Sequence[str], suffixes: Sequence[str], scans: Scans) -> None:
    """The scans in the anat folder of a participant or a session, whose path in the data set is `inside`."""
    for path in _volumes(folder / "anat", scans):
        name = bids_name(path)
        if name is None:
            scans.refused[str(path)] = "its name is none of BIDS, such as sub-01_acq-cor_T2w.nii.gz"
            continue
        if why := no_scan(path):
            scans.left_out[str(path)] = why
            continue
        if name.suffix not in suffixes:
            scans.left_out[str(path)] = f"{name.suffix} was not asked for (--suffix)"
            continue
        if "_".join(inside) != name.of_patient:
            scans.refused[str(path)] = f"its name says {name.of_patient}, and it lies in {'/'.join(inside)}"
        elif not path.exists():
            scans.refused[str(path)] = NOT_FETCHED
        else:
            scans.paths.append(path)


def _volumes(folder: Path, scans: Scans) -> Iterator[Path]:
    """Names of volumes in a folder, links to nothing included."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        scans.refused[str(folder)] = in_words(error)
        return
    yield from (folder / n for n in names if n.lower().endswith(VOLUMES) and not n.startswith("."))
