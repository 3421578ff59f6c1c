"""The volumes of a training, side by side in one tensor on the device that trains.

    value = low + step (level + 32768)        level: int16, step = (high - low) / 65535, so at most step / 2 off

Volumes come scaled to [0, 1] and are cut off at CUT, beyond which nothing is tissue: then step / 2 <= 3.1e-5.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from interslice.files.find import case_name
from interslice.files.limits import Limits
from interslice.files.machine import in_gigabytes
from interslice.files.switch import is_on
from interslice.files.values import number, whole_number
from interslice.prior.coarser import SIZES, at_voxel_size, voxel_sizes
from interslice.prior.patches import sharp_slice_axes
from interslice.usage import UsageError

CUT = (-1.0, 3.0)
LEVELS = 65536
TOLD = 4
"""Volumes after which the memory for all is estimated."""


@dataclass(frozen=True)
class Entry:
    """One volume of the pool, on the CPU: int16 levels (X, Y, Z), and what they mean."""

    name: str
    levels: torch.Tensor
    low: float
    step: float
    axes: tuple[int, ...]
    weight: float

    @property
    def area(self) -> float:
        """Pixels of a slice, the mean over the axes that it may be cut across."""
        return sum(self.levels.numel() / self.levels.shape[a] for a in self.axes) / len(self.axes)


def quantised(volume: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """(levels, low, step) of a volume of any shape, cut off at CUT."""
    values = volume.float().clamp(*CUT)
    low, high = float(values.min()), float(values.max())
    step = max(high - low, 1e-6) / (LEVELS - 1)
    return ((values - low) / step).round_().sub_(LEVELS // 2).to(torch.int16), low, step


class VolumePool:
    """Volumes read once, quantised, and laid on the device; patches are gathered from it by index.

    A volume is drawn as often as its slices are large, times its weight. Coarser copies are volumes of their own.

    Args:
        data: [{"image": path}, ...].
        transform: from such an item to a volume (1, X, Y, Z) in "image", its subject in [0, 1].
        device: where the pool lies.
        limits: of memory, on the device and in the machine.
        weights: beginning of a file's name -> how often it is drawn, against 1 of others; the longest one that fits.
        coarser: whether each volume is there at coarser voxels too.
        coarser_sizes: mm, the least and the largest of these.
        slice_axes: axes to slice across, or "sharp" to take them from the spacing.
        seed: of the coarser sizes.
        num_workers: threads that read; 0 takes as many as there are processors, at most 8. No result depends on it.

    Attributes:
        levels: all volumes, flat, int16.
        shape, strides: of each volume (V, 3), in voxels.
        offset: the first voxel of each (V,).
        low, step, weight: of each volume (V,); see the module. Weights need not sum to 1.
        axes: (V, 3), 1 for the axes that a volume may be sliced across, else 0.

    Raises:
        ValueError: there is no volume, one has no sharp plane, or they do not fit into memory.
    """

    def __init__(self, data: Sequence[Mapping], transform: Callable[[dict], dict], device: torch.device | str = "cpu",
                 limits: Limits | None = None, weights: Mapping[str, float] | None = None,
                 coarser: bool | str = True, coarser_sizes: Sequence[float] = SIZES,
                 slice_axes: Sequence[int] | str = "sharp", seed: int = 0, num_workers: int = 0) -> None:  # fmt: skip
        self.data, self.transform, self.device = list(data), transform, torch.device(device)
        self.limits, self.weights = limits or Limits(), volume_weights(weights or {})
        self.coarser, self.coarser_sizes = is_on(coarser, "coarser"), coarser_sizes
        self.slice_axes, self.seed = slice_axes, seed
        self.threads = whole_number("num_workers", num_workers) or min(8, os.cpu_count() or 1)
        if not self.data:
            raise ValueError("there is no volume to train on: check dataset_dir")
        self.levels = torch.empty(0, dtype=torch.int16, device=self.device)
        self._entries: list[Entry] = []
        self.add(self._read_all())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> list[str]:
        """Of the volumes, each as often as it is there."""
        return [entry.name for entry in self._entries]

    def read(self, item: Mapping) -> list[Entry]:
        """A volume and its coarser copies."""
        volume = self.transform(dict(item))["image"]
        name = case_name(item["image"]) if isinstance(item["image"], str | Path) else str(item.get("case", ""))
        volumes = [volume]
        if self.coarser and isinstance(volume, MetaTensor):
            sizes = voxel_sizes(float(volume.pixdim.min()), name, self.seed, self.coarser_sizes)
            volumes += [at_voxel_size(volume, size) for size in sizes]
        weight = weight_of(name, self.weights)
        found = []
        for copy in volumes:
            axes = self.slice_axes
            if axes == "sharp":
                axes = sharp_slice_axes(copy.pixdim) if isinstance(copy, MetaTensor) else (0, 1, 2)
            levels, low, step = quantised(copy.as_tensor()[0] if isinstance(copy, MetaTensor) else copy[0])
            found.append(Entry(name, levels.contiguous(), low, step, tuple(axes), weight))
        return found

    def add(self, entries: Sequence[Entry]) -> None:
        """Lay more volumes on the device, behind those that are there."""
        used = self.levels.numel()
        levels = torch.empty(used + sum(e.levels.numel() for e in entries), dtype=torch.int16, device=self.device)
        levels[:used] = self.levels
        self.levels = levels
        for entry in entries:
            levels[used : used + entry.levels.numel()] = entry.levels.flatten().to(self.device)
            used += entry.levels.numel()
            # Of what lies in the pool only the shape is kept.
            self._entries.append(Entry(entry.name, entry.levels.to("meta"), *_rest(entry)))
        self._tabulate()

    def _tabulate(self) -> None:
        shapes = [tuple(e.levels.shape) for e in self._entries]
        sizes = torch.tensor([math.prod(s) for s in shapes])
        self.shape = torch.tensor(shapes, device=self.device)
        self.offset = (sizes.cumsum(0) - sizes).to(self.device)
        strides = [(s[1] * s[2], s[2], 1) for s in shapes]
        self.strides = torch.tensor(strides, device=self.device)
        self.low, self.step, self.weight = (
            torch.tensor(values, dtype=torch.float32, device=self.device)
            for values in zip(*((e.low, e.step, e.weight * e.area) for e in self._entries))
        )
        axes = [[float(a in e.axes) for a in range(3)] for e in self._entries]
        self.axes = torch.tensor(axes, device=self.device)

    def at(self, volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Values (...) of the volumes numbered (...), at the voxels (..., 3) of each."""
        return self.values(volume, (index * self.strides[volume]).sum(-1) + self.offset[volume])

    def values(self, volume: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """Values (...) at places (...) of `levels`, which are of the volumes numbered (...)."""
        return self.levels[flat].float().add_(LEVELS // 2).mul_(self.step[volume]).add_(self.low[volume])

    def _read_all(self) -> list[Entry]:
        """All volumes, in the order of `data`, whatever is read first."""
        there = {"cpu": self.limits.memory("cpu"), self.device.type: self.limits.memory(str(self.device))}
        found: dict[int, list[Entry]] = {}
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: dict[Future, int] = {}
            rest = list(enumerate(self.data))
            try:
                with tqdm(total=len(rest), desc="reading", unit="volume", leave=False, delay=5) as bar:
                    while rest or waiting:
                        while rest and len(waiting) < 2 * self.threads:
                            n, item = rest.pop(0)
                            waiting[pool.submit(self.read, item)] = n
                        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                        for future in done:
                            found[waiting.pop(future)] = future.result()
                            bar.update()
                        self._check_memory(found, there)
            finally:
                for future in waiting:
                    future.cancel()
        return [entry for n in sorted(found) for entry in found[n]]

    def _check_memory(self, found: Mapping[int, Sequence[Entry]], there: Mapping[str, float]) -> None:
        """Raise ValueError where the volumes, as far as they are read and beyond, do not fit."""
        if len(found) < min(TOLD, len(self.data)):
            return
        # Volumes that were read and the pool that they are laid into are there together for a moment.
        each = 4.0 if torch.device(self.device).type == "cpu" else 2.0
        taken = sum(each * e.levels.numel() for entries in found.values() for e in entries)
        needed = taken / len(found) * len(self.data)
        for device, left in there.items():
            if needed > left:
                said = "" if len(found) == len(self.data) else f", by the first {len(found)},"
                raise ValueError(
                    f"the {len(self.data)} volumes of dataset_dir{said} take about {in_gigabytes(needed)} of memory "
                    f"({each:.0f} bytes a voxel, with coarser copies), and {in_gigabytes(left)} are available on "
                    f"{device}: "
                    "give fewer volumes, --coarser no, or a machine with more (--max_memory off tries it all the same)"
                )


def _rest(entry: Entry) -> tuple:
    return entry.low, entry.step, entry.axes, entry.weight


def volume_weights(weights: object) -> dict[str, float]:
    """Weights by the beginnings of names, checked: numbers above 0."""
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise UsageError(
            "volume_weights must be a mapping from the beginnings of names to numbers, such as "
            f"{{'synthetic_': 0.2}}, got {weights!r}"
        )
    return {name: float(number("volume_weights", w, above=0)) for name, w in weights.items()}


def weight_of(name: str, weights: Mapping[str, float]) -> float:
    """That of the longest beginning that fits; 1 if none does."""
    return weights[max(fits, key=len)] if (fits := [w for w in weights if name.startswith(w)]) else 1.0
