"""Finding volumes, and refusing what cannot be reconstructed before any long work begins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

COMPLEX_NIFTI = (32, 1792, 2048)
"""NIfTI's codes of complex voxel types."""
SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
"""Volumes; a task whose measurements are no volumes passes its own list."""


def case_name(path: str | Path) -> str:
    """File or folder name without its image suffixes: "scan.v2.nii.gz" -> "scan.v2"."""
    name = Path(path).name
    for suffix in sorted((*SUFFIXES, ".npz", ".h5", ".hdf5", ".mrd", ".dcm"), key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


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
    source = Path(source)
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
        raise FileNotFoundError(f"no volume in {source}: expected {', '.join(suffixes)} files or DICOM series folders")
    names = [case_name(p) for p in found]
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
        return volumes, list_volumes(validation_dir)
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


class CheckVolumed(MapTransform):
    """Passes 3-D single-channel volumes on and refuses everything else, naming the file and the fix.

    Expects channel-first images as `LoadImaged(ensure_channel_first=True)` gives them. Raises ValueError for
    an image that is not (1, X, Y, Z), NaN or Inf voxels, a constant image, or spacing that is not positive.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            check_volume(data[key])
            check_nifti_spacing(data[key])
        return dict(data)


def check_nifti_spacing(volume: torch.Tensor) -> None:
    """Raise ValueError if the NIfTI file behind `volume` states a spacing that readers silently repair."""
    path = str(volume.meta.get("filename_or_obj", "")) if isinstance(volume, MetaTensor) else ""
    if not path.lower().endswith((".nii", ".nii.gz")):
        return
    with nib.openers.ImageOpener(path) as file:
        stated = type(nib.load(path).header).from_fileobj(file, check=False)["pixdim"][1:4]
    if not (stated > 0).all():
        raise ValueError(f"{path}: spacing {stated.tolist()} mm is not positive in each direction; repair the header")


class CheckHounsfieldd(MapTransform):
    """Passes on volumes in Hounsfield units; raises ValueError, naming the file, for what plainly is not.

    Even a crop without air reaches down to fat (about -100), and none is all air. Many scanners write values below
    -1024 outside the field of view: these become -1024.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            low, high = float(d[key].min()), float(d[key].max())
            if not (low < -50 and -200 < high < 40000):
                name = (
                    d[key].meta.get("filename_or_obj", "the image") if isinstance(d[key], MetaTensor) else "the image"
                )
                raise ValueError(
                    f"{name}: values from {low:g} to {high:g} are not Hounsfield units (air is -1000, water 0); "
                    "rescale the volume, or apply its rescale slope and intercept"
                )
            d[key] = d[key].clamp_min(-1024.0)
        return d


class CheckOperatord(MapTransform):
    """Passes on measurements that the operator fits; raises its ValueError, with the file's name, for others."""

    def __init__(self, keys, operator) -> None:
        super().__init__(keys)
        self.operator = operator

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            volume = data[key]
            try:
                self.operator.for_measurement(volume)
            except ValueError as error:
                raise ValueError(f"{volume.meta.get('filename_or_obj', 'the image')}: {error}") from None
        return dict(data)


class Cases:
    """The volumes of a run: each is read and checked before the first is reconstructed.

    Bad ones are reported and left out; `finish` names them again and ends the process with status 1.

    Args:
        source: a volume, a DICOM series folder, or a folder of volumes.
        preprocessing: the transform that every volume must pass.
        region_dir: a folder of masks; a volume's mask, of the same file name, becomes its "region".
        suffixes: of the files of a folder that are read.
        finished_in: a folder of results; volumes whose case has its record (run.json) there are left out.

    Raises:
        ValueError: no volume is usable.
        SystemExit: with status 0, all volumes are finished.
    """

    def __init__(self, source: str, preprocessing: Callable[[dict], dict], region_dir: str | None = None,
                 suffixes: Sequence[str] = SUFFIXES, finished_in: str | None = None) -> None:  # fmt: skip
        found = list_volumes(source, suffixes)
        if finished_in is not None:
            found = _unfinished(found, Path(finished_in))
        self.usable: list[dict[str, str]] = []
        self.refused: dict[str, str] = {}
        for item in found:
            if region_dir is not None and (region := Path(region_dir) / Path(item["image"]).name).is_file():
                item["region"] = str(region)
            try:
                preprocessing(dict(item))
                self.usable.append(item)
            except Exception as error:  # a file can be broken in as many ways as readers can fail
                self.refused[item["image"]] = root_cause(error)
                print(f"skipped {item['image']}: {self.refused[item['image']]}", file=sys.stderr, flush=True)
        if not self.usable:
            raise ValueError("no usable volume:\n" + self._list())

    def finish(self) -> None:
        """End the process with status 1, naming the volumes left out, if there are any."""
        if self.refused:
            raise SystemExit(
                f"{len(self.refused)} of {len(self.usable) + len(self.refused)} volumes were skipped:\n{self._list()}"
            )

    def _list(self) -> str:
        return "\n".join(f"  {path}: {reason}" for path, reason in self.refused.items())


def _unfinished(found: list[dict[str, str]], results: Path) -> list[dict[str, str]]:
    left = [item for item in found if not (results / case_name(item["image"]) / "run.json").is_file()]
    if finished := len(found) - len(left):
        print(f"{finished} of {len(found)} volumes are finished in {results}", file=sys.stderr, flush=True)
    if not left:
        raise SystemExit(0)
    return left


def root_cause(error: BaseException) -> str:
    """The message of the innermost exception: what went wrong, without the transforms it passed through."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__


def check_volume(volume: torch.Tensor) -> None:
    """Raise ValueError unless `volume` is a finite, non-constant (1, X, Y, Z) image of positive spacing."""
    name = volume.meta.get("filename_or_obj", "the image") if isinstance(volume, MetaTensor) else "the image"
    shape = tuple(volume.shape)
    if volume.ndim != 4:
        raise ValueError(
            f"{name}: expected one 3-D volume, got an image of {volume.ndim - 1} dimensions {shape[1:]}; split it first"
        )
    if shape[0] != 1:
        raise ValueError(f"{name}: expected one channel, got {shape[0]}; save each channel as its own volume")
    if isinstance(volume, MetaTensor) and int(volume.meta.get("datatype", 0)) in COMPLEX_NIFTI:
        raise ValueError(f"{name}: the voxels are complex, and only their real part would be used; save the magnitude")
    if min(shape[1:]) < 2:
        raise ValueError(f"{name}: expected a 3-D volume, got {shape[1:]}: an axis has a single voxel")
    if isinstance(volume, MetaTensor):
        affine = volume.affine
        if (
            not torch.isfinite(affine).all()
            or not (volume.pixdim > 0).all()
            or float(torch.linalg.det(affine[:3, :3])) == 0
        ):
            raise ValueError(
                f"{name}: spacing {volume.pixdim.tolist()} mm is not positive in each direction; repair the header"
            )
    bad = int((~torch.isfinite(volume)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} voxels are NaN or infinite; replace them (for example with 0) first")
    if float(volume.max()) == float(volume.min()):
        raise ValueError(f"{name}: every voxel is {float(volume.max()):g}; a constant volume cannot be reconstructed")
