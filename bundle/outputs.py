"""Results: back to the scanner's intensities and orientation, and safely onto the disk.

Per case: `<output_dir>/<case>/<case>_recon.nii.gz` and `run.json`. Every file is written under a hidden name and
then renamed, so that a run that is killed leaves no half-written result.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import contextmanager
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose, MapTransform, allow_missing_keys_mode

from bundle.inputs import case_name


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
            for name, change in maps.items():
                # Maps are differences: they take the gain of the scaling, and not its offset.
                d[f"{key}_{name}"] = d[key] - self._undo(result - change.to(result.device)[None])
        return d

    def _undo(self, result: torch.Tensor) -> torch.Tensor:
        with allow_missing_keys_mode(self.preprocessing):
            return self.preprocessing.inverse({self.image_key: result.clone()})[self.image_key]


class SaveReconstructiond(MapTransform):
    """Writes each result to `<output_dir>/<case>/<case>_<suffix>.nii.gz`, and its maps beside it.

    `_std`: standard deviation of the draws; `_filled`: what the prior filled in; `_measured`: what the measurement
    determines, the result less what was filled in.
    """

    def __init__(self, keys, output_dir: str, suffix: str = "recon") -> None:
        super().__init__(keys)
        self.output_dir, self.suffix = check_writable(output_dir), suffix

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            case = case_name(data[key].meta["filename_or_obj"])
            volumes = {self.suffix: data[key]} | {n: data[f"{key}_{n}"] for n in MAPS if f"{key}_{n}" in data}
            if "filled" in volumes:
                volumes["measured"] = data[key] - volumes["filled"]
            for name, volume in volumes.items():
                path = self.output_dir / case / f"{case}_{name}.nii.gz"
                write_nifti(path, volume)
                print(f"wrote {path}", flush=True)
        return dict(data)


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB, and of the GPU where there is one."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident = resident / 1024 if sys.platform != "darwin" else resident / 1024**2
    return max(resident, torch.cuda.max_memory_allocated() / 1024**2 if torch.cuda.is_available() else 0.0)


def describe(value):
    """A setting as JSON can hold it; of a part its class and public settings: ConjugateGradient(rho=0.01, ...)."""
    if value is None or isinstance(value, (str, bool, int, float, list, tuple, dict)):
        return value
    if type(value).__repr__ is not object.__repr__:
        return str(value)
    settings = (f"{k}={describe(v)!r}" for k, v in vars(value).items() if not k.startswith("_"))
    return f"{type(value).__name__}({', '.join(settings)})"


class RunRecord:
    """Handler: writes `run.json` beside each result: versions, seed, settings, device, time, calls, memory.

    Args:
        output_dir: where the cases are written.
        settings: the resolved ids of the run; parts are written as their class and settings.
        device: the device of the run.
        network_calls: returns the number of network calls so far.
    """

    def __init__(self, output_dir: str, settings: dict, device: torch.device, network_calls: Callable[[], int]) -> None:
        self.output_dir, self.settings = Path(output_dir), {k: describe(v) for k, v in settings.items()}
        self.device, self.network_calls = device, network_calls

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        self.started, self.calls = time.perf_counter(), self.network_calls()

    def write(self, engine: Engine) -> None:
        for result in engine.state.output:
            source = str(result["image"].meta["filename_or_obj"])
            record = {
                "source": source,
                "seconds": round(time.perf_counter() - self.started, 2),
                "network_calls": self.network_calls() - self.calls,
                "scan": result["pred"].meta.get("scan"),
                "noise": result["pred"].meta.get("noise"),
                "relative_residual": result["pred"].meta.get("relative_residual"),
                "peak_memory_mb": round(peak_memory_mb(), 1),
                "device": str(self.device),
                "threads": torch.get_num_threads(),
                "input_shape": list(result["image"].shape[1:]),
                "output_shape": list(result["pred"].shape[1:]),
                "output_spacing_mm": [round(float(s), 5) for s in result["pred"].pixdim],
                "settings": self.settings,
                "versions": {
                    "python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__,
                    "numpy": np.__version__, "nibabel": nib.__version__,
                },
            }  # fmt: skip
            write_json(self.output_dir / case_name(source) / "run.json", record)
