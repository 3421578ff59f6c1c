"""The record of a run: what was done to each case, with what, and what it took; `<output_dir>/<case>/run.json`."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import psutil
import torch

from interslice.files.acquired import acquired_of
from interslice.files.case_folder import Writer
from interslice.files.combined import record_of_combined
from interslice.files.deidentify import dates_of
from interslice.files.findings import findings_of
from interslice.files.fingerprint import fingerprint
from interslice.files.kept_volumes import Kept
from interslice.files.nameless import without_paths
from interslice.files.prepared_record import prepared_of
from interslice.files.record import RECORD, count
from interslice.files.series import TimePoint
from interslice.files.series_record import record_of_series, record_of_volume
from interslice.files.source import source_of
from interslice.files.write import write_json

if sys.platform != "win32":
    import resource


def peak_memory_mb(device: torch.device | str = "cpu") -> float:
    """Peak resident memory of this process in MB, or of the GPU `device` if that is more."""
    if sys.platform == "win32":
        info = psutil.Process().memory_info()
        resident = getattr(info, "peak_wset", info.rss) / 1024**2
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    on_gpu = torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else 0
    return max(resident, on_gpu / 1024**2)


def describe(value):
    """A setting as JSON can hold it; of a part its class and public settings: Proximal(rho=0.01, ...)."""
    if value is None or isinstance(value, (str, bool, int, float, list, tuple, dict)):
        return value
    if type(value).__repr__ is not object.__repr__:
        return str(value)
    settings = (f"{k}={describe(v)!r}" for k, v in vars(value).items() if not k.startswith("_"))
    return f"{type(value).__name__}({', '.join(settings)})"


class RunRecord(Writer):
    """Writes `run.json` beside each result: versions, seed, settings, device, time, calls, memory, and the files.

    Args:
        settings: ids of the run and their values; parts are written as their class and settings.
        sampler: adds its own settings (interslice.sampling.DiffusionInverseInferer).
        device: the device of the run.
        network_calls: returns the number of network calls so far.
        deidentify: a switch, or "shift_dates": name no file; the data and the weights are told by their fingerprints.
    """

    def __init__(self, settings: dict, sampler, device: torch.device, network_calls: Callable[[], int],
                 deidentify: bool | str = False) -> None:  # fmt: skip
        self.device, self.network_calls = device, network_calls
        self.named = dates_of(deidentify) is None
        settings = settings if self.named else without_paths(settings)
        self.settings = {k: describe(v) for k, v in (settings | sampler.settings).items()}

    def start(self) -> None:
        self.started, self.calls, self.seconds = time.perf_counter(), self.network_calls(), None

    def take(self, result: dict) -> dict:
        return result | {"record": self._of_iteration(result)}

    def write(self, result: Mapping, folder: Path) -> None:
        files = {path.name: count(path) for path in sorted(folder.iterdir())}
        seconds = round(time.perf_counter() - result["writing_since"], 2)
        write_json(folder / RECORD, self.of(result) | {"writing_seconds": seconds, "files": files})

    def keep(self, result: Mapping, point: TimePoint, kept: Kept) -> None:
        kept.finish(point.index, self.of(result))

    def join(self, result: Mapping, kept: Kept, folder: Path) -> None:
        files = {path.name: count(path) for path in sorted(folder.iterdir())}
        seconds = round(time.perf_counter() - result["writing_since"], 2)
        record = record_of_series(kept.records(), kept.series)
        write_json(folder / RECORD, record | {"writing_seconds": seconds, "files": files})

    def of(self, result: Mapping) -> dict:
        """The record of one result that was taken, "image" and "pred", or of the iteration that was just completed."""
        record = result["record"] if "record" in result else self._of_iteration(result)
        return record | {"peak_memory_mb": round(peak_memory_mb(self.device), 1)}

    def _of_iteration(self, result: Mapping) -> dict:
        if self.seconds is None:  # one time for all results
            self.seconds = round(time.perf_counter() - self.started, 2)
        source = source_of(result["image"])
        return {
            "source": os.path.abspath(result["image"].meta["filename_or_obj"]) if self.named else None,
            "fingerprint": fingerprint(
                source.time or source.group or source.dicom or result["image"].meta["filename_or_obj"]
            ),
            **record_of_combined(result["image"], self.named),
            "seconds": self.seconds,
            "network_calls": self.network_calls() - self.calls,
            **prepared_of(result["image"], self.named),
            **findings_of(result["pred"]).record(),
            "peak_memory_mb": None,
            "acquired": acquired_of(result["image"]),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            **record_of_volume(result["image"]),
            "input_shape": list(result["image"].shape[1:]),
            "output_shape": list(result["pred"].shape[1:]),
            "output_spacing_mm": [round(float(s), 5) for s in result["pred"].pixdim],
            "settings": self.settings,
            "versions": {
                "python": platform.python_version(), "torch": torch.__version__, "monai": monai.__version__,
                "numpy": np.__version__, "nibabel": nib.__version__,
            },
        }  # fmt: skip
