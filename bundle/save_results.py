"""Writes the results of a run, case by case, as NIfTI, as DICOM series, or both."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Engine, Events

from bundle.dicom_output import save_series
from bundle.inputs import case_name
from bundle.outputs import check_writable, result_volumes, write_nifti

FORMATS = ("nifti", "dicom", "both")


def is_true(value: bool | str) -> bool:
    """A switch of a config, or of a command line, where true and false arrive as text; ValueError for other text."""
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, got {value!r}")
    return value.lower() == "true" if isinstance(value, str) else bool(value)


class SaveResults:
    """Handler: writes each result and its maps into the folder of its case, before the next case begins.

    `<output_dir>/<case>/<case>_<suffix>.nii.gz`, and as DICOM the folder `<case>_<suffix>` with one file per slice; see
    `result_volumes` for the suffixes.

    Args:
        output_dir: folder of the cases.
        output_format: "nifti", "dicom" or "both".
        series: which stack of a DICOM folder was read; see `bundle.dicom_input.find_stack`.
        modality: "MR" or "CT", of DICOM series whose input was none.
        deidentify: strip what could tell the patient from DICOM series; also as the text "true" of a command line.
    """

    def __init__(self, output_dir: str, output_format: str = "nifti", series: int | str | None = None,
                 modality: str = "MR", deidentify: bool | str = False) -> None:  # fmt: skip
        if output_format not in FORMATS:
            raise ValueError(f"output_format must be one of {FORMATS}, got {output_format!r}")
        self.output_dir, self.output_format = check_writable(output_dir), output_format
        self.series, self.modality, self.deidentify = series, modality, is_true(deidentify)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        for result in engine.state.output:
            source = result["image"].meta["filename_or_obj"]
            case = case_name(source)
            for suffix, volume in result_volumes(result).items():
                save_volume(
                    volume, self.output_dir / case / f"{case}_{suffix}", self.output_format, source, series=self.series,
                    suffix=suffix, modality=self.modality, deidentified=self.deidentify,
                )  # fmt: skip


def save_volume(volume: torch.Tensor, path: Path, output_format: str, source: str, **about) -> None:
    """Write a volume (1, X, Y, Z) as `<path>.nii.gz`, as the DICOM folder `path`, or as both, and say so.

    `about` goes to `bundle.dicom_output.save_series`.
    """
    if output_format != "dicom":
        write_nifti(path.with_name(f"{path.name}.nii.gz"), volume)
        print(f"wrote {path}.nii.gz", flush=True)
    if output_format != "nifti":
        number = save_series(volume, path, source, **about)
        print(f"wrote {path}: {number} DICOM files", flush=True)
