"""Results onto the disk: volumes and JSON, each whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import torch

from interslice.files.compressed import gzip_writer
from interslice.files.paths import path_of
from interslice.files.placement import Placement
from interslice.files.whole import written_whole


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN and infinity, which JSON lacks, become null."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(finite(content), indent=4, allow_nan=False) + "\n")


def finite(value):
    """`value`, with None in place of every NaN and infinity in it, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_nifti(path: Path, volume: torch.Tensor, placement: Placement | None = None) -> None:
    """Write a MetaTensor (1, X, Y, Z) as float32 NIfTI in mm with its affine, whole or not at all.

    `placement`: of the NIfTI file that the volume was made from, whose two matrices and codes go out; without it, the
    affine goes out as both, in the scanner's coordinates.
    """
    affine = np.asarray(volume.affine, dtype=np.float64)
    image = (placement or Placement.scanner(affine)).image(np.asarray(volume.as_tensor()[0].cpu(), np.float32), affine)
    with written_whole(path) as partial, partial.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with gzip_writer(file) as compressed:
                image.to_stream(compressed)
        else:
            image.to_stream(file)


def check_writable(folder: str | Path) -> Path:
    """Return the folder, to be made when its first file is written; nothing of it is left of a run that ends before.

    Raises:
        OSError: nothing can be written there; names the fix.
    """
    folder = path_of("output_dir", folder)
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), folder)
    try:
        probe = there / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # another machine may have a process of this number
    except OSError as error:
        raise OSError(
            f"output_dir {folder} cannot be written ({error.strerror}): choose another --output_dir"
        ) from None
    return folder
