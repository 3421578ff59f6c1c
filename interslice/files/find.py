"""Finding the volumes of a run, and naming their cases."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from monai.data import MetaTensor

from interslice.files.dicom_slice import DISC_INDEX, is_dicom, slices_of
from interslice.files.entries import NO_FILE, Kind, in_words, kind_of, kinds_of
from interslice.files.listed import is_list, read_list, told_apart
from interslice.files.paths import path_of
from interslice.files.record import RECORD, holds_results
from interslice.usage import UsageError

FORMATS = {
    "NIfTI": (".nii", ".nii.gz", ".hdr", ".hdr.gz"),
    "FreeSurfer": (".mgh", ".mgz"),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
}
"""Suffixes by format. Where header and voxels are two files, the header stands for both."""
SUFFIXES = tuple(chain(*FORMATS.values()))
"""Volumes. A reader of another kind of measurement states its own."""
DICOM_SUFFIXES = (".dcm", ".ima")
"""Of files that mean to be DICOM, whatever is in them."""
OTHER_HALF = (".img", ".img.gz")
"""Voxels whose header is a .hdr; a file of this name may be named, but a folder's are not looked for."""


def case_name(path: str | Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    """File or folder name without the suffix of its format: "scan.v2.nii.gz" -> "scan.v2"; "." is the folder's name."""
    name = Path(os.path.abspath(path)).name
    for suffix in sorted((*suffixes, *OTHER_HALF, ".dcm"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def named_case(path: str | Path) -> str:
    """`case_name`, to name a folder by. UsageError where nothing is left that can."""
    if (case := case_name(path)) in ("", ".", ".."):
        raise UsageError(f"{path}: the file's name leaves no name for its case, got {case!r}: rename it")
    return case


def case_of(measurement: MetaTensor) -> str:
    """The case that a measurement is of: as its reader named it, or by the name of its file."""
    return measurement.meta.get("case") or case_name(measurement.meta["filename_or_obj"])


def is_dicom_series(folder: Path) -> bool:
    """True for a folder with DICOM files directly inside, other than the index of a disc."""
    return any(is_dicom_file(p) for p in folder.iterdir())


def is_dicom_file(path: Path) -> bool:
    """True for a DICOM file that is not hidden, not named as a volume of another format, not the index of a disc.

    One that is named as DICOM and is damaged is meant to be DICOM, too: passed over, a case would be lost unsaid.
    """
    name = path.name
    if name.startswith(".") or name.lower().endswith(SUFFIXES) or name.upper() == DISC_INDEX:
        return False
    if not os.path.isfile(path):  # which, unlike Path.is_file, takes what cannot be looked at for none
        return False
    if name.lower().endswith(DICOM_SUFFIXES):
        return True
    try:
        return is_dicom(path)
    except OSError:  # what it is cannot be known: those who read it say why
        return True


def holds_slices(folder: Path) -> bool:
    """True for a folder with a DICOM image of MR or CT directly inside."""
    for path in filter(is_dicom_file, folder.iterdir()):
        try:
            if slices_of(path):
                return True
        except (ValueError, OSError):
            continue
    return False


@dataclass
class Found:
    """What a source holds.

    Attributes:
        items: [{"image": path, "case": name}, ...], in order.
        left_out: path -> why it is none of them.
        unreadable: path -> why, of what the system does not let us look at, and of what a list names and what is no
            measurement.
    """

    items: list[dict[str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def find_volumes(source: str | Path, suffixes: Sequence[str] = SUFFIXES, results: str | Path | None = None,
                 dicom: bool = True, deep: bool = False, holds: Callable[[Path], bool] | None = None
                 ) -> Found:  # fmt: skip
    """The volumes of a file, a DICOM series folder, a folder of volumes and of DICOM series at any depth, or a list.

    A list is a .txt file of paths to such files and folders (interslice.files.listed).

    Hidden files and folders are passed over, and the folder of `results`. Volumes in folders inside of a folder, and
    beside DICOM images, are left out; with `deep`, those in folders inside are found, too. Without `dicom`, DICOM files
    are as others that are none of the `suffixes`. A folder of which `holds` is true is one measurement.

    Raises:
        FileNotFoundError: `source` does not exist or holds no volume.
        ValueError: `source` is a pipe or a device, or cannot be looked at.
    """
    source = path_of("dataset_dir", source)
    try:
        kind = kind_of(source)
    except OSError as error:
        raise ValueError(f"{source}: {in_words(error, source)}") from None
    if kind is Kind.OTHER:
        raise ValueError(f"{source} is {NO_FILE}: save what it gives in a file, and name that")
    if kind is Kind.NOTHING:
        raise FileNotFoundError(
            f"{source} does not exist: set dataset_dir to a volume, a DICOM series, a folder of them or a list"
        )
    if is_list(source):
        return find_listed(source, suffixes, results, dicom, deep, holds)
    if source.name.upper() == DISC_INDEX:
        source = source.parent
    elif kind is Kind.FILE:
        return Found([{"image": str(source), "case": case_name(source, suffixes)}])
    found = Found()
    for folder in folders_of(source, results, found):
        kinds = kinds_of(folder, visible_in(folder, found), found.unreadable)
        found.left_out |= {str(p): NO_FILE for p, kind in kinds.items() if kind is Kind.OTHER}
        files = [p for p, kind in kinds.items() if kind is Kind.FILE]
        volumes = [p for p in files if p.name.lower().endswith(tuple(suffixes))]
        one = dicom and any(map(is_dicom_file, files)) and (not volumes or holds_slices(folder))
        if one or (holds is not None and holds(folder)):
            if not one:  # of DICOM images, the search for their series says what else is there
                found.left_out |= {str(p): "beside the files of one scan: name it to read it" for p in volumes}
            name = "_".join(folder.relative_to(source).parts) or case_name(folder)
            found.items.append({"image": str(folder), "case": name})
        elif folder == source or deep:
            found.items += [{"image": str(p), "case": case_name(p, suffixes)} for p in volumes]
            lost = (p for p, kind in kinds.items() if kind is Kind.NOTHING)
            found.left_out |= {str(p): "a link to nothing" for p in lost if p.name.lower().endswith(tuple(suffixes))}
            if dicom and volumes:
                others = (p for p in files if is_dicom_file(p))
                found.left_out |= {str(p): "DICOM, but no image of MR or CT" for p in others}
        elif volumes:
            found.left_out[str(folder)] = f"{len(volumes)} volumes in a folder inside: name the folder to read them"
    if not found.items:
        inside = "".join(f"\n  {path}: {why}" for path, why in (found.left_out | found.unreadable).items())
        volumes = [p for p in visible_in(source, found) if p.name.lower().endswith(SUFFIXES)]
        hint = "; it holds volumes: configs/evaluate.json simulates measurements of them" if volumes else ""
        raise FileNotFoundError(
            f"no measurement in {source}: expected {', '.join(suffixes)} files or DICOM series folders{hint}{inside}"
        )
    return found


def visible_in(folder: Path, found: Found) -> list[Path]:
    """The entries of a folder that are not hidden, sorted; none where it cannot be listed, and `found` says why."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError as error:
        found.unreadable[str(folder)] = in_words(error)
        return []


def namesakes(items: Sequence[Mapping]) -> dict[str, str]:
    """path -> why, of the items that share the name of a case: their results would collide."""
    taken = Counter(item["case"] for item in items)
    return {
        os.fspath(item["image"]): f"another case is named {item['case']}, too: rename one, or their results collide"
        for item in items
        if taken[item["case"]] > 1
    }


def find_listed(source: Path, suffixes: Sequence[str] = SUFFIXES, results: str | Path | None = None,
                dicom: bool = True, deep: bool = False, holds: Callable[[Path], bool] | None = None
                ) -> Found:  # fmt: skip
    """As `find_volumes`, of what a list names; an entry that cannot be used is refused, and the others are taken.

    Raises FileNotFoundError where none can be used.
    """
    found = Found()
    cases: dict[str, str] = {}
    places: set[str] = set()
    for entry in read_list(source):
        try:
            if is_list(entry):
                raise ValueError("a list in a list: name what it holds")
            if kind_of(entry) is Kind.NOTHING:
                raise ValueError(f"does not exist, and is named in {source}")
            inside = find_volumes(entry, suffixes, results, dicom, deep, holds)
        except FileNotFoundError as error:
            found.unreadable[str(entry)] = str(error)
            continue
        except OSError as error:
            found.unreadable[str(entry)] = in_words(error, entry)
            continue
        except ValueError as error:
            found.unreadable[str(entry)] = str(error).removeprefix(f"{entry} ").removeprefix(f"{entry}: ")
            continue
        found.left_out |= inside.left_out
        found.unreadable |= inside.unreadable
        for item in inside.items:
            if (place := os.path.realpath(item["image"])) in places:
                found.left_out[item["image"]] = f"named twice in {source}"
                continue
            places.add(place)
            cases[item["image"]] = item["case"]
    named = told_apart(cases)
    found.items = [{"image": path, "case": case} for path, case in named.items()]
    if not found.items:
        why = "".join(f"\n  {path}: {why}" for path, why in (found.unreadable | found.left_out).items())
        raise FileNotFoundError(f"no measurement in the list {source}{why or ', which is empty'}")
    return found


def folders_of(root: Path, results: str | Path | None, found: Found) -> Iterator[Path]:
    """A folder and all inside, sorted, each once where links lead in circles; none hidden, and no results.

    Those that cannot be opened, and those that are passed over, get their reason in `found`.
    """

    def note(error: OSError) -> None:
        found.unreadable[error.filename] = in_words(error)

    seen = {os.path.realpath(results)} - {os.path.realpath(root)} if results is not None else set()
    for path, inside, files in os.walk(root, onerror=note, followlinks=True):
        if RECORD in files and path != os.fspath(root) and holds_results(Path(path)):
            inside.clear()
            found.left_out[path] = "results of an earlier run"
            continue
        if (real := os.path.realpath(path)) in seen:
            inside.clear()
            if os.path.islink(path):
                found.left_out[path] = "a link to a folder that is searched already"
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith((".", "__MACOSX")))
        yield Path(path)


def list_volumes(source: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[dict[str, str]]:
    """[{"image": path}, ...] of `find_volumes`, which see. ValueError where one of them cannot be used."""
    found = find_volumes(source, suffixes)
    if refused := found.unreadable | namesakes(found.items):
        lines = "".join(f"\n  {path}: {why}" for path, why in refused.items())
        raise ValueError(f"{len(refused)} entries of {source} cannot be used:{lines}")
    return [{"image": item["image"]} for item in found.items]


def split_volumes(
    dataset_dir: str | Path, validation_dir: str | Path | None = None, fraction: float = 0.1
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and validation volumes: those of `validation_dir`, or else the last `fraction` of `dataset_dir`.

    Raises ValueError if a single volume would have to serve as both.
    """
    volumes = list_volumes(dataset_dir)
    if validation_dir is not None:
        return volumes, list_volumes(path_of("validation_dir", validation_dir))
    held = min(max(1, round(fraction * len(volumes))), len(volumes) - 1)
    if len(volumes) < 2:
        raise ValueError(
            f"{dataset_dir} holds one volume: training needs a second one to validate on, or validation_dir"
        )
    return volumes[:-held], volumes[-held:]


def one_scan(dataset_dir: str | Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The one volume of `dataset_dir`, for adapting to it: trained on and watched. ValueError if there are more."""
    volumes = list_volumes(dataset_dir)
    if len(volumes) != 1:
        raise ValueError(f"{dataset_dir} holds {len(volumes)} volumes: adaptation is to one scan, so name its file")
    return volumes, volumes
