"""What a reconstruction found beside its volume: how it was made, how well it fits, and maps on the volume's grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from monai.data import MetaTensor

from interslice.files.carried import carried

MAPS = {"std": "standard deviation of the draws", "filled": "filled in by the prior"}
"""What maps there are, and their titles. Maps are differences: they have the volume's unit, and no offset."""


@carried
@dataclass(frozen=True)
class Findings:
    """Kept in the metadata of a result as "findings", from the sampler to the files; a value, not to be changed.

    Attributes:
        scan: the measurement operator, in words.
        noise: the noise field, in words.
        num_steps: network passes over the volume of each.
        start_fraction: share of the schedule that they began from.
        num_draws: samples that the result is the mean of.
        relative_residual: |A x - y| / |y|, A x of the result and y measured.
        resumed_after: steps of the sampler that an interrupted run had done.
        doubts: what is doubtful about it, in words (interslice.physics.judge).
        noise_level: of the measurement, as a share of the intensity range, that the data step went by; 0 for exact
            data, None for a step that knows no level.
        antithetic: whether the draws come in pairs of opposite noise.
        volumes_on: where they lay while it was made: "device", "host" or "disk" (interslice.sampling.volumes).
        maps: name, one of MAPS, -> (1, X, Y, Z) on the grid and in the unit of the result.
    """

    scan: str = ""
    noise: str = ""
    num_draws: int = 1
    relative_residual: float = 0.0
    resumed_after: int = 0
    doubts: tuple[str, ...] = ()
    noise_level: float | None = None
    antithetic: bool = False
    volumes_on: str = "device"
    num_steps: int | None = None
    start_fraction: float | None = None
    maps: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(self.maps.keys() - MAPS.keys()):
            raise ValueError(f"no map is called {', '.join(unknown)}: name it in MAPS of interslice/files/findings.py")

    def with_map(self, name: str, volume: torch.Tensor) -> Findings:
        """The same and one more map."""
        return replace(self, maps={**self.maps, name: volume})

    def with_maps(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Findings:
        """The same with every map changed: placed on a larger grid, or brought to other units."""
        return replace(self, maps={name: change(volume) for name, volume in self.maps.items()})

    def record(self) -> dict:
        """All but the maps, by name, for run.json."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "maps"}


def findings_of(result: MetaTensor) -> Findings:
    """What a result carries; nothing was found of a volume that no sampler made."""
    return result.meta.get("findings") or Findings()
