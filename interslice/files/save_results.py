"""The volumes of a case, as NIfTI, as DICOM series, or both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from interslice.files.case_folder import Writer
from interslice.files.deidentify import dates_of
from interslice.files.dicom_write import STORAGE, save_series
from interslice.files.find import case_of
from interslice.files.joined import carry_beside, write_series
from interslice.files.kept_volumes import Kept
from interslice.files.restore import result_volumes
from interslice.files.series import TimePoint
from interslice.files.source import Source, source_of
from interslice.files.values import choice
from interslice.files.write import write_nifti

FORMATS = ("nifti", "dicom", "both")


class SaveResults(Writer):
    """Writes a result and its maps: `<case>_<suffix>.nii.gz`, and as DICOM the folder `<case>_<suffix>`.

    The folder has one file per slice; see `result_volumes` for the suffixes.

    Args:
        output_format: "nifti", "dicom" or "both".
        modality: "MR" or "CT", of DICOM series whose input was none and had no word of it beside it.
        deidentify: keep nothing that could tell the patient; a switch, or "shift_dates" (interslice.files.deidentify).
    """

    def __init__(self, output_format: str = "nifti", modality: str = "MR", deidentify: bool | str = False) -> None:
        self.output_format = choice("output_format", output_format, FORMATS)
        self.modality, self.dates = choice("modality", modality, tuple(STORAGE)), dates_of(deidentify)

    def write(self, result: dict, folder: Path) -> None:
        """Raises ValueError where the result holds NaN or infinity, which is none."""
        check_numbers(result["pred"])
        case = case_of(result["image"])
        for suffix, volume in result_volumes(result["pred"]).items():
            save_volume(
                volume, folder / f"{case}_{suffix}", self.output_format, source_of(result["image"]), suffix=suffix,
                modality=self.modality, dates=self.dates,
            )  # fmt: skip

    def keep(self, result: dict, point: TimePoint, kept: Kept) -> None:
        check_numbers(result["pred"])
        for suffix, volume in result_volumes(result["pred"]).items():
            kept.keep(point.index, suffix, volume)

    def join(self, result: dict, kept: Kept, folder: Path) -> None:
        """As 4-D NIfTI, with what lies beside the input."""
        case, placement = case_of(result["image"]), source_of(result["image"]).nifti
        placement = placement.without_text() if placement and self.dates else placement
        for suffix, volume in result_volumes(result["pred"]).items():
            affine = np.asarray(volume.affine, np.float64)
            write_series(folder / f"{case}_{suffix}.nii.gz", kept, suffix, volume.shape[1:], affine, placement)
        carry_beside(kept.series, folder / f"{case}_recon.nii.gz", named=self.dates is None)


def check_numbers(pred: torch.Tensor) -> None:
    """Raise ValueError where a result holds NaN or infinity."""
    if not torch.stack(pred.as_tensor().aminmax()).isfinite().all():  # NaN is the least and the most
        raise ValueError("the reconstruction holds NaN or infinity: check the checkpoint and the options of the solver")


def save_volume(volume: torch.Tensor, path: Path, output_format: str, source: Source,
                dates: str | None = None, **about) -> None:  # fmt: skip
    """Write a volume (1, X, Y, Z) as `<path>.nii.gz`, as the DICOM folder `path`, or as both.

    `source`: of the measurement that the volume was made from; the modality that it states goes before that of `about`,
    which goes to `interslice.files.dicom_write.save_series`. `dates`: write nothing that could tell the patient; see
    `interslice.files.deidentify.dates_of`.
    """
    if output_format != "dicom":
        placement = source.nifti.without_text() if source.nifti and dates else source.nifti
        write_nifti(path.with_name(f"{path.name}.nii.gz"), volume, placement)
    if output_format != "nifti":
        about |= {"modality": source.modality} if source.modality else {}
        save_series(volume, path, source.dicom, dates=dates, **about)
