"""Another scan of the same patient as a guide: found, placed, compared, and given to the operator.

    v(p) = guide(T p)        p a place of the volume's grid in mm; T rigid, from the scan's world to the guide's

T is that of the headers or that which mutual information finds from there (mutual_information.py), whichever makes
more edges shared (shared_edges.py) between

    S y  and  S A v          S the operator's linear reconstruction: both blurred as the scan is

A guide of another person shares hardly more than chance, and is refused; so is one that shows too little of the
subject.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel import Nifti1Image
from scipy.ndimage import affine_transform, gaussian_filter

from interslice.files.check import check_volume
from interslice.files.dicom_read import is_dicom_source
from interslice.files.digest import digest
from interslice.files.doubts import add_doubts
from interslice.files.limits import Limits
from interslice.files.paths import path_of
from interslice.files.prepared import ONLY_CHECKED
from interslice.files.prepared_record import add_prepared
from interslice.files.read import LoadVolumed
from interslice.files.switch import is_on
from interslice.files.values import choice
from interslice.physics.blocks import block_means
from interslice.physics.foreground import foreground_threshold
from interslice.physics.intensity import intensity_range
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of
from interslice.physics.mutual_information import middle_of, register
from interslice.physics.shared_edges import shared_edges
from interslice.usage import UsageError

REGISTRATIONS = ("auto", "header")
SHARED = 0.25
"""Of the edges, at least: pairs of two people, or of two synthetic heads, reach 0.14 after registration, and pairs of
one head in two contrasts have 0.4 or more (docs/tuning_guide.json)."""
COVERED, WELL_COVERED = 0.5, 0.95
"""Share of the subject that a guide shows: at least, and without a doubt."""
FEWEST = 8
"""Voxels of a guide along each axis."""
THIN = 0.7
"""Times the scan's distance of slices: guides whose slices are further apart in the same direction show little else."""
LOOKED_AT = 100_000
"""Voxels of 2 mm, at most, that registration looks at: of a head, one in ten."""
BETTER = 0.005
"""By how much registration has to raise the share of edges for the headers not to stand: poses within their error."""
BORDER = 0.499
COMPARED = 1.0
"""mm, of voxels whose edges are compared."""
FWHM = 2.3548
"""Of a Gaussian, in standard deviations."""


@dataclass(frozen=True)
class Pose:
    """How a guide lies.

    Attributes:
        matrix: T, (4, 4).
        shared: share of the edges (shared_edges.py).
        covered: share of the subject's voxels that the guide shows.
    """

    matrix: np.ndarray
    shared: float
    covered: float

    def record(self, centre: np.ndarray) -> dict[str, float]:
        """For run.json: by how much T turns, and moves the place `centre` (x, y, z, 1)."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        moved = np.linalg.norm((self.matrix @ centre - centre)[:3])
        return {
            "turned_degrees": round(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 3),
            "moved_mm": round(float(moved), 3), "shared_edges": round(self.shared, 4),
            "covered": round(self.covered, 4),
        }  # fmt: skip


class Guided(MapTransform):
    """Gives the operators of measurements a guide; without one, passes them on.

    Args:
        keys: measurements with their operators, their intensities scaled to the prior's range.
        guide: a volume, a DICOM folder, or a folder with a volume for each case, called as the measurement's file or
            <case>.nii.gz, or named as "guide" in the data (interslice.files.companions); None for no guide.
        registration: "auto", or "header" to place the guide as the headers say.
        limits: of the size of a file and of memory.
        at_check: a switch: compare the guide when a case is read to be checked, too. Off where what is measured is
            aligned before it is reconstructed, and only then.

    Raises:
        UsageError: there is no such file or folder, or the registration is none of these.
        ValueError: with the names of both files: the guide cannot be read, is no usable volume, shows another place or
            another person, or a folder has none for the case.
    """

    def __init__(self, keys, guide: str | None = None, registration: str = "auto",
                 limits: Limits | None = None, at_check: bool | str = True) -> None:  # fmt: skip
        super().__init__(keys)
        self.guide = None if guide is None else path_of("guide", guide)
        self.registration = choice("guide_registration", registration, REGISTRATIONS)
        if self.guide is not None and not self.guide.exists():
            raise UsageError(f"guide {self.guide} does not exist: name a scan of the same patient, or a folder of them")
        self.at_check = is_on(at_check, "at_check")
        self.load = LoadVolumed("guide", limits=limits)
        self._poses: dict[str, Pose] = {}  # a case is read twice: to be checked, and to be reconstructed

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        own = d.pop("guide", None)
        for key in self.key_iterator(d) if self.guide is not None else ():
            measurement = d[key]
            try:
                path = self._path_for(measurement) if own is None else Path(own)
                if self.at_check or not d.get(ONLY_CHECKED):
                    self._give(measurement, path)
                else:
                    read_guide(self.load, path)
            except ValueError as error:
                if isinstance(error, UsageError):
                    raise
                name = measurement.meta.get("filename_or_obj", "the measurement")
                raise ValueError(f"{name}: {error}") from None
        return d

    def _path_for(self, measurement: MetaTensor) -> Path:
        if not self.guide.is_dir() or is_dicom_source(self.guide):
            return self.guide
        names = [f"{measurement.meta.get('case', 'case')}.nii.gz"]
        file = Path(str(measurement.meta.get("filename_or_obj", "")))
        if file.is_file():
            names.insert(0, file.name)
        for name in names:
            if (self.guide / name).is_file():
                return self.guide / name
        raise ValueError(f"{self.guide} has no guide for it: expected {' or '.join(dict.fromkeys(names))} there")

    def _give(self, measurement: MetaTensor, path: Path) -> None:
        operator, y = operator_of(measurement), measurement.as_tensor()[0].float().cpu()
        affine = operator.domain_affine(measurement.affine).cpu().numpy()
        guide = read_guide(self.load, path)
        key = digest(y, affine, guide.affine, guide.as_tensor())
        if key not in self._poses:
            self._poses[key] = pose_of(guide, y, operator, affine, self.registration == "auto")
        pose = self._poses[key]
        check_pose(pose, path)
        volume = resampled(guide, affine, operator.domain_shape, pose.matrix)
        measurement.meta["operator"] = operator.with_guide(volume)
        centre = middle_of(affine, operator.domain_shape)
        add_prepared(measurement, "guide", {"file": str(path.absolute()), "registration": self.registration}
                     | pose.record(centre))  # fmt: skip
        if said := doubts_about(pose, guide, operator, measurement):
            add_doubts(measurement, *said)


def read_guide(load: LoadVolumed, path: Path) -> MetaTensor:
    """(1, X, Y, Z) in a range of 2. Raises ValueError, with its name, unless it is a volume of some slices."""
    guide = load({"guide": str(path)})["guide"]
    try:
        check_volume(guide)
        if min(guide.shape[1:]) < FEWEST:
            raise ValueError(
                f"{path}: {' x '.join(map(str, guide.shape[1:]))} voxels are too few for a guide, which has {FEWEST} "
                "or more along each axis"
            )
        lower, upper = intensity_range(guide)
    except ValueError as error:
        raise ValueError(f"its guide cannot be used: {error}") from None
    return guide.float().sub_(lower).mul_(2 / (upper - lower)).sub_(1)


def pose_of(guide: MetaTensor, y: torch.Tensor, operator: LinearOperator, affine: np.ndarray, registered: bool) -> Pose:
    """The best of the places that were tried; that of the headers, unless it is to be `registered`."""
    seen = operator.linear_reconstruction(y)
    judged = partial(judge_pose, guide=guide, seen=seen, operator=operator, affine=affine)
    best = judged(np.eye(4))
    if not registered:
        return best
    fixed, moving = Nifti1Image(seen.numpy(), affine), Nifti1Image(guide.as_tensor()[0].numpy(), guide.affine.numpy())
    for by_headers in (True, False):
        if best.shared >= SHARED and not by_headers:
            break  # the headers were about right
        try:
            matrix, _ = register(fixed, moving, by_headers=by_headers, samples=LOOKED_AT)
        except RuntimeError:  # ITK's: they hardly overlap
            continue
        found = judged(matrix)
        best = found if found.shared > best.shared + BETTER else best
    return best


def judge_pose(
    matrix: np.ndarray, guide: MetaTensor, seen: torch.Tensor, operator: LinearOperator, affine: np.ndarray
) -> Pose:
    """What is shared, and covered, in one place; `seen` is S y."""
    placed = resampled(guide, affine, operator.domain_shape, matrix)
    known = torch.isfinite(placed)
    subject = seen > foreground_threshold(seen.numpy())
    covered = float(known[subject].float().mean()) if subject.any() else 0.0
    blurred = operator.linear_reconstruction(operator.forward(placed.nan_to_num(operator.background)))
    blurred[~known] = torch.nan
    # Fine voxels show noise and hardly any edge: those of about a millimetre are compared.
    blocks = [max(1, round(COMPARED / s)) for s in np.linalg.norm(affine[:3, :3], axis=0)]
    return Pose(matrix, shared_edges(block_means(seen, blocks), block_means(blurred, blocks)), covered)


def resampled(guide: MetaTensor, affine: np.ndarray, shape: tuple[int, ...], matrix: np.ndarray) -> torch.Tensor:
    """v, (X, Y, Z) by cubic splines; NaN outside of the guide, whose finer voxels are blurred to the grid's before."""
    voxels, own = guide.as_tensor()[0].numpy(), guide.affine.numpy()
    to_guide = np.linalg.inv(own) @ matrix @ affine
    # Of widths that add up in squares: a voxel of the grid, in voxels of the guide along each of its axes.
    widths = np.abs(to_guide[:3, :3]).max(1)
    blur = np.sqrt(np.maximum(widths**2 - 1, 0)) / FWHM
    if blur.max() > 0.1:
        voxels = gaussian_filter(voxels, blur, mode="nearest", truncate=3)
    where = {"matrix": to_guide[:3, :3], "offset": to_guide[:3, 3], "output_shape": shape}
    placed = affine_transform(voxels, **where, order=3, mode="nearest")
    # Falls off from 1 to 0 within a voxel past the last centres, and so is a half at the border of the last voxels.
    inside = affine_transform(np.ones_like(voxels), **where, order=1, mode="grid-constant")
    placed[inside < BORDER] = np.nan
    return torch.from_numpy(placed)


def check_pose(pose: Pose, path: Path) -> None:
    """Raise ValueError for a guide that is none."""
    if pose.covered < COVERED:
        raise ValueError(
            f"its guide {path} shows {pose.covered:.0%} of the subject, and at least {COVERED:.0%} are needed: name a "
            "scan of the same part of the body, or leave the guide out"
        )
    if pose.shared < SHARED:
        raise ValueError(
            f"its guide {path} shares {pose.shared:.2f} of its edges (chance is 0, another person's scan up to 0.15, "
            f"and {SHARED:g} is the least): is it of another person, or could it not be registered? Leave it out, or "
            "give one that was registered before"
        )


def doubts_about(pose: Pose, guide: MetaTensor, operator: LinearOperator, measurement: MetaTensor) -> list[str]:
    """What makes a guide less useful than it seems."""
    said = []
    if pose.covered < WELL_COVERED:
        said.append(f"the guide shows {pose.covered:.0%} of the subject; elsewhere there is none")
    if (axis := operator.averaged_axis) is not None:
        thick, slices = measurement.affine[:3, axis].cpu().numpy(), guide.affine[:3, :3].numpy()
        pitch = float(np.linalg.norm(thick))
        along = float(np.abs(np.linalg.inv(slices) @ (thick / pitch)).max())  # voxels of the guide in a mm of it
        if 1 / along > THIN * pitch:
            said.append(
                f"the guide's voxels are {1 / along:.3g} mm long across the slices, which are {pitch:.3g} mm apart: it "
                "shows little that they do not"
            )
    return said
