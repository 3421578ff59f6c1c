"""Writes the results of a run, case by case, as NIfTI, as DICOM series, or both."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Engine, Events

from bundle.files.deidentify import dates_of
from bundle.files.dicom_write import STORAGE, save_series
from bundle.files.find import case_of
from bundle.files.restore import result_volumes
from bundle.files.source import Source, source_of
from bundle.files.values import choice
from bundle.files.write import check_writable, write_nifti

FORMATS = ("nifti", "dicom", "both")


class SaveResults:
    """Handler: writes each result and its maps into the folder of its case, before the next case begins.

    `<output_dir>/<case>/<case>_<suffix>.nii.gz`, and as DICOM the folder `<case>_<suffix>` with one file per slice; see
    `result_volumes` for the suffixes.

    Args:
        output_dir: folder of the cases.
        output_format: "nifti", "dicom" or "both".
        modality: "MR" or "CT", of DICOM series whose input was none and had no word of it beside it.
        deidentify: keep nothing that could tell the patient; a switch, or "shift_dates" (bundle.files.deidentify).
    """

    def __init__(self, output_dir: str, output_format: str = "nifti", modality: str = "MR",
                 deidentify: bool | str = False) -> None:  # fmt: skip
        self.output_dir = check_writable(output_dir)
        self.output_format = choice("output_format", output_format, FORMATS)
        self.modality, self.dates = choice("modality", modality, tuple(STORAGE)), dates_of(deidentify)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        for result in engine.state.output:
            case = case_of(result["image"])
            for suffix, volume in result_volumes(result["pred"]).items():
                save_volume(
                    volume, self.output_dir / case / f"{case}_{suffix}", self.output_format,
                    source_of(result["image"]), suffix=suffix, modality=self.modality,
                    dates=self.dates,
                )  # fmt: skip


def save_volume(volume: torch.Tensor, path: Path, output_format: str, source: Source,
                dates: str | None = None, **about) -> None:  # fmt: skip
    """Write a volume (1, X, Y, Z) as `<path>.nii.gz`, as the DICOM folder `path`, or as both, and say so.

    `source`: of the measurement that the volume was made from; the modality that it states goes before that of `about`,
    which goes to `bundle.files.dicom_write.save_series`. `dates`: write nothing that could tell the patient; see
    `bundle.files.deidentify.dates_of`.
    """
    if output_format != "dicom":
        placement = source.nifti.without_text() if source.nifti and dates else source.nifti
        write_nifti(path.with_name(f"{path.name}.nii.gz"), volume, placement)
        print(f"wrote {path}.nii.gz", flush=True)
    if output_format != "nifti":
        about |= {"modality": source.modality} if source.modality else {}
        number = save_series(volume, path, source.dicom, dates=dates, **about)
        print(f"wrote {path}: {number} DICOM files", flush=True)
