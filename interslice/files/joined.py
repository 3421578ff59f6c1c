"""Volumes that are done become one 4-D NIfTI file, voxels passed on piece by piece, and what lies beside the input.

    dim        X, Y, Z, volumes          pixdim[4], toffset, unit of time: of the input; of DICOM, RepetitionTime in s
    .bval .bvec    columns of the volumes that were chosen: voxel axes are those of the input
    .json          without what a result does not have: thick slices, and their times

A selection with a step has its time between volumes multiplied by it, and begins later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from interslice.files.compressed import gzip_of
from interslice.files.dicom_time import seconds_between
from interslice.files.find import case_name
from interslice.files.kept_volumes import Kept
from interslice.files.placement import Placement, units_of
from interslice.files.series import Series
from interslice.files.sidecar import sidecar_of
from interslice.files.whole import written_whole
from interslice.files.write import write_json

TABLES = (".bval", ".bvec")
NOT_OF_RESULT = ("SliceThickness", "SpacingBetweenSlices", "SliceTiming", "SliceEncodingDirection", "NumberOfSlices",
                 "dcmmeta_shape", "dcmmeta_affine")  # fmt: skip
"""Of a sidecar, what is said of slices as they were measured."""


def write_series(path: Path, kept: Kept, suffix: str, shape: Sequence[int], affine: np.ndarray,
                 placement: Placement | None) -> None:  # fmt: skip
    """Write the volumes of one kind as 4-D NIfTI, whole or not at all.

    Args:
        path: ends in .nii.gz.
        kept: the volumes.
        suffix: the kind.
        shape: (X, Y, Z) of each.
        affine: (4, 4), voxel to RAS in mm.
        placement: of the file that they were made from.
    """
    header = series_header((placement or Placement.scanner(affine)), kept.series, shape, affine)
    pieces = [header.binaryblock, bytes(int(header["vox_offset"]) - len(header.binaryblock))]

    def content():
        yield from pieces
        yield from kept.voxels(suffix)

    with written_whole(path) as partial, partial.open("wb") as file:
        file.writelines(gzip_of(content()))


def series_header(placement: Placement, series: Series, shape: Sequence[int], affine: np.ndarray) -> nib.Nifti1Header:
    """The header of the file of all volumes."""
    empty = np.broadcast_to(np.float32(0), (*shape, len(series.chosen)))
    header = placement.image(empty, affine).header
    header.set_data_dtype("<f4")
    first, step = series.chosen[0], step_of(series)
    if series.stacks:
        header["pixdim"][4] = seconds_between(series.stacks[0])
        header.set_xyzt_units("mm", "sec")
    between = float(header["pixdim"][4])
    header["toffset"] = float(placement.header["toffset"]) + first * between
    header["pixdim"][4] = between * step
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, 1, 0
    return header


def step_of(series: Series) -> int:
    """From one chosen volume to the next; 0 where it differs, so that no one time is between them."""
    steps = np.unique(np.diff(series.chosen))
    return int(steps[0]) if len(steps) == 1 else 0


def repetition_of(stated: object, series: Series) -> dict[str, float]:
    """RepetitionTime of the chosen volumes, for a sidecar that states that of all; nothing where they have none."""
    if not isinstance(stated, (int, float)) or isinstance(stated, bool) or not step_of(series):
        return {}
    return {"RepetitionTime": stated * step_of(series)}


def time_of(header: nib.Nifti1Header) -> dict:
    """For the record: the time between volumes and its unit."""
    return {"spacing": round(float(header["pixdim"][4]), 6), "unit": units_of(header)[1]}


def carry_beside(series: Series, target: Path, named: bool) -> None:
    """Copy what lies beside a file, `<name>.bval`, `.bvec` and `.json`, to beside its result.

    Args:
        series: of a file; nothing lies beside DICOM.
        target: the result; its name, less .nii.gz, is that of the copies.
        named: whether what the JSON file says may be passed on: it can name the patient.
    """
    if series.stacks:
        return
    source = Path(series.data)
    stem = source.with_name(case_name(source))
    for suffix in TABLES:
        beside = stem.with_name(stem.name + suffix)
        if beside.is_file() and (rows := columns_of(beside, series)) is not None:
            with written_whole(target.with_name(case_name(target) + suffix)) as partial:
                partial.write_text("".join(" ".join(row) + "\n" for row in rows))
    if named and (found := sidecar_of(source)).is_file():
        try:
            fields = json.loads(found.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # its reader has said so
            return
        if isinstance(fields, dict):
            kept = {name: value for name, value in fields.items() if name not in NOT_OF_RESULT}
            kept |= repetition_of(kept.pop("RepetitionTime", None), series)
            write_json(target.with_name(f"{case_name(target)}.json"), kept)


def columns_of(table: Path, series: Series) -> list[list[str]] | None:
    """The columns of the chosen volumes; None of a table that is not of this series."""
    try:
        rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError):
        return None
    if not rows or any(len(row) != series.count for row in rows):
        return None
    return [[row[index] for index in series.chosen] for row in rows]
