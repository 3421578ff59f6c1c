"""Refusing volumes that cannot be reconstructed, before any long work begins."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.source import series_of

MAX_SHEAR = 1.0
"""Degrees. What registration to a template leaves of shear stays below; gantries are tilted by more."""

VOXEL = (0.01, 50.0)
"""mm. Voxels from those of a mouse's microscope to those of no scanner."""
FIELD = (1.0, 5000.0)
"""mm. The longest side of a volume, from a biopsy to more than a whole body."""

LARGEST = 1e15
"""Magnitude of a voxel. Those of float32 end at 3e38, and the network's sums of squares would not be numbers."""

MAX_DICOM_SHEAR = 0.05
"""Degrees. DICOM has two direction cosines, and the third is perpendicular to them: no reader sees more shear."""


class CheckVolumed(MapTransform):
    """Passes 3-D single-channel volumes on and refuses everything else, naming the file and the fix.

    Expects channel-first images as `LoadVolumed` gives them. Raises ValueError for an image that is not (1, X, Y, Z),
    voxels that are NaN, Inf or beyond LARGEST, a constant image, spacing that is not positive, a size that no scan has
    (`check_size`), or axes that are off right angles by more than MAX_SHEAR.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            check_volume(data[key])
        return dict(data)


def check_volume(volume: torch.Tensor) -> None:
    """Raise ValueError unless `volume` is a finite, non-constant (1, X, Y, Z) image of positive, possible spacing."""
    name = volume.meta.get("filename_or_obj", "the image") if isinstance(volume, MetaTensor) else "the image"
    shape = tuple(volume.shape)
    if volume.ndim != 4:
        raise ValueError(
            f"{name}: expected one 3-D volume, got an image of {volume.ndim - 1} dimensions {shape[1:]}; split it first"
        )
    if shape[0] != 1:
        raise ValueError(f"{name}: expected one volume, got {shape[0]} (times or channels); save each as its own file")
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
        check_size([float(s) for s in volume.pixdim], shape[1:], name)
        if (shear := shear_of(affine)) > MAX_SHEAR:
            raise ValueError(
                f"{name}: its axes are {shear:.1f} degrees off a right angle (a tilted gantry, or a registration), and "
                f"at most {MAX_SHEAR:g} are supported; --resample_shear yes resamples it onto straight slices"
            )
    bad = int((~torch.isfinite(volume)).sum())
    if bad:
        raise ValueError(f"{name}: {number_of(bad)} NaN or infinite; replace them (for example with 0) first")
    beyond = int((volume.abs() > LARGEST).sum())
    if beyond:
        raise ValueError(
            f"{name}: {number_of(beyond)} beyond {LARGEST:g}, up to {float(volume.abs().max()):.3g}: repair them, or "
            "divide the volume by a constant"
        )
    if float(volume.max()) == float(volume.min()):
        raise ValueError(f"{name}: every voxel is {float(volume.max()):g}; a constant volume cannot be reconstructed")


def number_of(voxels: int) -> str:
    """In words, with the verb."""
    return f"{voxels} voxels are" if voxels > 1 else "1 voxel is"


def check_size(spacing: Sequence[float], shape: Sequence[int], name: str = "the image") -> None:
    """Raise ValueError unless voxels (3, mm) are within VOXEL, and the longest side of that many within FIELD."""
    longest = max(s * n for s, n in zip(spacing, shape))
    small = min(spacing) < VOXEL[0] or longest < FIELD[0]
    if small or max(spacing) > VOXEL[1] or longest > FIELD[1]:
        cause = "metres or centimetres" if small else "micrometres"
        raise ValueError(
            f"{name}: voxels of {' x '.join(f'{s:.3g}' for s in spacing)} mm, {longest:.3g} mm in all, are none of a "
            f"scan (voxels from {VOXEL[0]:g} to {VOXEL[1]:g} mm, the longest side from {FIELD[0]:g} to {FIELD[1]:g} "
            f"mm): the lengths are probably {cause} that the header calls mm; correct its unit or its affine"
        )


class CheckOutputd(MapTransform):
    """Passes on measurements whose results can be written as `output_format` says; to be asked before any work.

    Args:
        keys: measurements, with their operators, which know the grid of the result.
        output_format: "nifti", "dicom" or "both".

    Raises:
        ValueError: the result is to be DICOM, and its axes are not perpendicular, or it is one of several volumes.
    """

    def __init__(self, keys, output_format: str = "nifti") -> None:
        super().__init__(keys)
        self.output_format = output_format

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            operator = data[key].meta.get("operator")
            if self.output_format != "nifti" and (point := series_of(data[key])) is not None:
                name, count = data[key].meta.get("filename_or_obj", "the image"), len(point.series.chosen)
                raise ValueError(
                    f"{name}: its {count} volumes become one 4-D NIfTI file, and no DICOM: --output_format nifti, or "
                    "--times 0 for the first alone"
                )
            if self.output_format != "nifti" and operator is not None:
                name = data[key].meta.get("filename_or_obj", "the image")
                check_perpendicular(operator.domain_affine(data[key].affine), f"{name}: ")
        return dict(data)


def check_perpendicular(affine: torch.Tensor, name: str = "") -> None:
    """Raise ValueError unless the axes of an affine (4, 4) are perpendicular, as those of DICOM images are."""
    if (shear := shear_of(affine)) > MAX_DICOM_SHEAR:
        raise ValueError(
            f"{name}the axes of the volume are {shear:.2f} degrees off right angles, and those of DICOM images are "
            f"perpendicular (to {MAX_DICOM_SHEAR:g} degrees): write --output_format nifti, or resample the volume to "
            "perpendicular axes first"
        )


def shear_of(affine: torch.Tensor) -> float:
    """How far (degrees) the axes of an affine (4, 4) are off right angles, at most."""
    axes = affine[:3, :3] / affine[:3, :3].norm(dim=0)
    cosines = (axes.T @ axes - torch.eye(3, dtype=axes.dtype, device=axes.device)).abs().max()
    return float(torch.rad2deg(torch.asin(cosines.clamp(max=1))))
