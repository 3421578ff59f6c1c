"""Where a NIfTI header places its voxels, and how the header of a result places those of a result.

A header may place its voxels twice: by the qform, a rotation with the spacing in "pixdim", and by the sform, any
affine. Each has a code: 0 unknown, 1 the scanner, 2 aligned to another scan, 3 Talairach, 4 and 5 a template. The sform
places the voxels if its code is not 0, else the qform, as in nibabel and FSL; where another program would place them
elsewhere, `doubts` says so. Both matrices and their codes go out as they came in, on the result's grid. Source: the
NIfTI-1 standard, nifti1.h, section "3D image (volume) orientation and location in space".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
"""What nibabel calls a header's unit of length, in mm."""
KEPT = ("descrip", "intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name", "dim_info")
"""Fields that say nothing of the grid's size, and hold of a result as of its measurement."""
TEXT = ("descrip", "intent_name")
"""Those of them that are free text."""
APART = 0.1
"""Places that differ by less than this share of the smallest spacing are one place."""


@dataclass(frozen=True, eq=False)
class Placement:
    """What a NIfTI header says of its grid.

    Attributes:
        header: as it was read.
        affine: (4, 4), voxel to RAS in mm, the one in use.
        qform, sform: (4, 4), in mm, or None where the code is 0.
    """

    header: nib.Nifti1Header
    affine: np.ndarray
    qform: np.ndarray | None
    sform: np.ndarray | None

    @classmethod
    def of(cls, image: nib.Nifti1Image) -> Placement:
        """Of a file, with lengths in mm."""
        header = image.header
        to_mm = np.diag([*[MILLIMETRES[units_of(header)[0]]] * 3, 1.0])
        qform, sform = (None if m is None else to_mm @ m for m in (image.get_qform(coded=True)[0],
                                                                   image.get_sform(coded=True)[0]))  # fmt: skip
        return cls(header, to_mm @ image.affine, qform, sform)

    @classmethod
    def scanner(cls, affine: np.ndarray) -> Placement:
        """Of voxels that came otherwise, whose affine is that of the scanner."""
        header = nib.Nifti1Header()
        header["qform_code"] = header["sform_code"] = 1
        return cls(header, affine, affine, affine)

    def doubts(self, shape: tuple[int, ...]) -> list[str]:
        """In words, what makes other programs place a volume of this shape elsewhere, or what was converted."""
        said = []
        unit = units_of(self.header)[0]
        if MILLIMETRES[unit] != 1:
            said.append(f"lengths are in {unit}, and are converted to mm")
        zooms = np.array(self.header.get_zooms()[:3]) * MILLIMETRES[unit]
        if self.qform is None and self.sform is None:
            said.append("no orientation is stated (qform_code = sform_code = 0): left and right are not known")
        elif self.qform is not None and self.sform is not None and (off := apart(self.qform, self.sform, shape)) > 0:
            said.append(
                f"sform (code {self._code('sform')}) and qform (code {self._code('qform')}) place voxels up to "
                f"{off:.1f} mm apart; the sform is used, as nibabel and FSL do, but ITK may use the qform"
            )
        elif not np.allclose(zooms, spacing := voxel_sizes(self.affine)[: len(zooms)], rtol=0.01):
            said.append(
                f"spacing is {np.round(spacing, 4).tolist()} mm by the sform, which is used, and "
                f"{np.round(zooms, 4).tolist()} mm by pixdim"
            )
        return said

    def image(self, voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
        """Voxels (X, Y, Z) on another grid of the same space, `affine` (4, 4), placed twice as the source is."""
        moved = np.linalg.inv(self.affine) @ affine
        if self.qform is None and self.sform is None:
            image = nib.Nifti1Image(voxels, None)
            image.header.set_zooms(voxel_sizes(affine))
        else:
            image = nib.Nifti1Image(voxels, affine)
            for name in ("qform", "sform"):
                form = getattr(self, name)
                moved_form = None if form is None else form @ moved
                getattr(image, f"set_{name}")(moved_form, self._code(name), update_affine=False)
        for field in KEPT:
            image.header[field] = self.header[field]
        time = units_of(self.header)[1]
        image.header.set_xyzt_units("mm", None if time == "unknown" else time)
        image.header["pixdim"][4] = self.header["pixdim"][4]
        return image

    def straightened(self, affine: np.ndarray) -> Placement:
        """Of the same space, where a sheared volume was resampled on the grid `affine` (4, 4).

        A sheared grid was placed by the sform. The qform, a rotation, never placed it, and is dropped.
        """
        header = self.header.copy()
        header["qform_code"] = 0
        return Placement(header, affine, None, affine)

    def without_text(self) -> Placement:
        """The same place, in a header without the text that its writer put there, which may name the patient."""
        header = self.header.copy()
        for field in TEXT:
            header[field] = b""
        return replace(self, header=header)

    def _code(self, form: str) -> int:
        return int(self.header[f"{form}_code"])


def units_of(header: nib.Nifti1Header) -> tuple[str, str]:
    """Units of length and time, as nibabel calls them; unknown where the header has a code that the standard lacks."""
    try:
        return header.get_xyzt_units()
    except KeyError:
        return "unknown", "unknown"


def apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far (mm) two affines place a corner of a volume of this shape apart; 0 if by less than APART voxels."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1).T
    off = np.linalg.norm(apply_affine(one, corners) - apply_affine(other, corners), axis=-1).max()
    return float(off) if off > APART * voxel_sizes(one).min() else 0.0
