"""Finding the volumes of a run, and naming their cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.data import MetaTensor

from bundle.files.paths import path_of

SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
"""Volumes. A reader of another kind of measurement states its own."""


def case_name(path: str | Path, suffixes: Sequence[str] = SUFFIXES) -> str:
    """File or folder name without the suffix of its format: "scan.v2.nii.gz" -> "scan.v2"."""
    name = Path(path).name
    for suffix in sorted((*suffixes, ".dcm"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def case_of(measurement: MetaTensor) -> str:
    """The case that a measurement is of: as its reader named it, or by the name of its file."""
    return measurement.meta.get("case") or case_name(measurement.meta["filename_or_obj"])


def is_dicom_series(folder: Path) -> bool:
    """True for a folder with DICOM files and no volume files directly inside."""
    files = [p for p in folder.iterdir() if p.is_file()]
    return any(is_dicom(p) for p in files) and not any(p.name.lower().endswith(SUFFIXES) for p in files)


def is_dicom(path: Path) -> bool:
    """True for a file with the preamble of DICOM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def list_volumes(source: str | Path, suffixes: Sequence[str] = SUFFIXES) -> list[dict[str, str]]:
    """[{"image": path}, ...] of one file, one DICOM series folder, or a folder of volumes (sorted).

    Hidden files are left out. Raises FileNotFoundError if `source` does not exist or holds no volume, and
    ValueError if two volumes would write to the same case folder.
    """
    source = path_of("dataset_dir", source)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist: set dataset_dir to a volume, a DICOM series or a folder of them"
        )
    if source.is_file() or is_dicom_series(source):
        return [{"image": str(source)}]
    visible = sorted(p for p in source.iterdir() if not p.name.startswith("."))
    found = [p for p in visible if p.is_file() and p.name.lower().endswith(tuple(suffixes))]
    found += [p for p in visible if p.is_dir() and is_dicom_series(p)]
    if not found:
        volumes = [p for p in visible if p.name.lower().endswith(SUFFIXES)]
        hint = "; it holds volumes: configs/evaluate.json simulates measurements of them" if volumes else ""
        raise FileNotFoundError(
            f"no measurement in {source}: expected {', '.join(suffixes)} files or DICOM series folders{hint}"
        )
    names = [case_name(p, suffixes) for p in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ValueError(
            f"{source} holds two volumes named {', '.join(sorted(twice))}: rename one, or their results collide"
        )
    return [{"image": str(p)} for p in found]


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
