"""Results: back to the scanner's intensities and orientation, and safely onto the disk.

Every file is written under a hidden name and then renamed, so that a run that is killed leaves no half-written result.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Hashable, Mapping
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, allow_missing_keys_mode


@contextmanager
def written_whole(path: Path):
    """Yields a hidden path beside `path` with the same suffixes; renames it to `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path):
    """Yields a hidden empty folder beside `path`; puts it in the place of `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    old = path.with_name(f".old-{os.getpid()}-{path.name}")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(old)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN and infinity, which JSON lacks, become null."""
    with written_whole(path) as partial:
        partial.write_text(json.dumps(_finite(content), indent=4, allow_nan=False) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_nifti(path: Path, volume: torch.Tensor) -> None:
    """Write a MetaTensor (1, X, Y, Z) as float32 NIfTI in mm with its affine, whole or not at all."""
    affine = np.asarray(volume.affine, dtype=np.float64)
    image = nib.Nifti1Image(np.asarray(volume.as_tensor()[0].cpu(), dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    with written_whole(path) as partial:
        nib.save(image, partial)


def check_writable(folder: str | Path) -> Path:
    """Create `folder` and return it; raises OSError, naming the fix, where nothing can be written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"output_dir {folder} cannot be written ({error.strerror}): choose another --output_dir"
        ) from None
    return folder


MAPS = ("std", "filled")
"""Maps that a result carries in its metadata (X, Y, Z): the standard deviation of the draws, the prior's part."""


class Restored(MapTransform):
    """Undoes the invertible steps of the preprocessing on a result and its maps: intensities and orientation.

    The result keeps its own grid; its affine follows the orientation. A map of "pred" becomes "pred_std" and the like.

    Args:
        keys: results whose history is that of the measurement they were made from.
        preprocessing: the transforms to undo.
        image_key: the key they were applied to.
    """

    def __init__(self, keys, preprocessing: Compose, image_key: str = "image") -> None:
        super().__init__(keys)
        self.preprocessing, self.image_key = preprocessing, image_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            result = d[key].clone()
            maps = {name: result.meta.pop(name) for name in MAPS if name in result.meta}
            d[key] = self._undo(result)
            # Label servers resize a result to the grid that these name in the metadata of its image.
            grid = {"spatial_shape": list(d[key].shape[1:]), "original_affine": d[key].affine.clone()}
            d[key].meta |= grid
            if isinstance(d.get(self.image_key), MetaTensor):
                d[self.image_key] = d[self.image_key].clone()
                d[self.image_key].meta |= grid
            for name, change in maps.items():
                # Maps are differences: they take the gain of the scaling, and not its offset.
                d[f"{key}_{name}"] = d[key] - self._undo(result - change.to(result.device)[None])
        return d

    def _undo(self, result: torch.Tensor) -> torch.Tensor:
        with allow_missing_keys_mode(self.preprocessing):
            return self.preprocessing.inverse({self.image_key: result.clone()})[self.image_key]


def result_volumes(data: Mapping[Hashable, torch.Tensor], key: str = "pred") -> dict[str, torch.Tensor]:
    """The volumes (1, X, Y, Z) of a restored result by the suffix of their files.

    "recon": the result; "std": standard deviation of the draws; "filled": what the prior filled in; "measured": what
    the measurement determines, the result less what was filled in.
    """
    volumes = {"recon": data[key]} | {n: data[f"{key}_{n}"] for n in MAPS if f"{key}_{n}" in data}
    if "filled" in volumes:
        volumes["measured"] = data[key] - volumes["filled"]
    return volumes
