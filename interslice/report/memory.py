"""Refuses, before any work, what the machine has no memory or disk for.

    memory of a run = OVERHEAD + the largest of
        looking       what finds the bands of thick slices (interslice.physics.thick.as_acquired)
        sampling      what the inferer says (`working_bytes`) and the measurement, once more
        results       result and maps, brought back to the scanner's intensities and written
        page          the same with what the page shows, how its linear reconstruction is made, and what packs it
        evaluation    the truth, every method, and what makes a baseline, or what the metrics make of a method

Where sampling has no room on the device, its volumes go to the host's memory, or to the disk
(interslice.sampling.volumes): then the device has to hold the network's activations and a few parts, and so has the
memory in place of the volumes.

The constants are chosen by the peaks of a few runs (docs/reference/limits.md; `python -m scripts.studies.memory`). A
run is refused only where SURE of the estimate is more than there is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.limits import Limits
from interslice.files.machine import free_disk, in_gigabytes
from interslice.files.memory import Parts, array_bytes, largest, with_more
from interslice.files.paths import path_of
from interslice.files.source import series_of
from interslice.files.switch import is_on
from interslice.physics.measurement import operator_of
from interslice.physics.thick.as_acquired import seeing_bytes
from interslice.sampling.volumes import SURE, part_bytes
from interslice.usage import UsageError

OVERHEAD = 250e6
"""Bytes that libraries take when they are used first, and that the allocator keeps of smaller arrays."""
RESULT, PER_MAP = 3.0, 2.0
"""Volumes at once while a result is restored and written, and for each map beside it."""
PAGE = 1.0
"""More of them while the page is made."""
METRICS = 8.0
"""Volumes that the metrics of one method take."""
NIFTI, DICOM, SHOWN, KEPT = 2.0, 2.0, 0.5, 4.0
"""Bytes of a voxel on the disk: in compressed NIfTI, less than usual; in DICOM; in the page; while a series lasts."""


class CheckMemoryd(MapTransform):
    """Passes on measurements whose reconstruction fits into memory, and whose results fit onto the disk.

    Args:
        keys: measurements with their operators, in the prior's range.
        inferer, network: what will reconstruct them.
        sampler: its number of draws says how many maps there will be.
        limits: of memory.
        device: of the inferer.
        output_dir, output_format: where results go, and as what.
        report, evidence: switches of the run: what else is written.
        baselines: of an evaluation; none where nothing is evaluated.

    Raises:
        UsageError: `baselines` are not named reconstructions.
        ValueError: too little memory, or disk: the number, what takes it, and what to change.
    """

    def __init__(self, keys, inferer, network: torch.nn.Module, sampler, limits: Limits,
                 device: torch.device | str = "cpu", output_dir: str = ".", output_format: str = "nifti",
                 report: bool | str = True, evidence: bool | str = False,
                 baselines: Mapping[str, Callable] | None = None) -> None:  # fmt: skip
        super().__init__(keys)
        self.inferer, self.network, self.sampler, self.limits = inferer, network, sampler, limits
        self.device, self.output_dir, self.output_format = torch.device(device), output_dir, output_format
        self.report, self.evidence = is_on(report, "report"), is_on(evidence, "evidence")
        if baselines is not None and not isinstance(baselines, Mapping):
            raise UsageError(f"baselines must be nothing or reconstructions by name, @baselines, got {baselines!r}")
        self.baselines = baselines

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        for key in self.key_iterator(data):
            self.check(data[key])
        return dict(data)

    def check(self, measurement: MetaTensor) -> None:
        """Raise ValueError as above."""
        if self.limits.off:
            return
        operator = operator_of(measurement)
        sampling, after = self.estimate(measurement)
        storage, device, on_disk = getattr(self.sampler, "storage", None), str(self.device), 0.0
        place = "device" if storage is None else storage.of(self.device, sum(sampling.values())).place
        travelling = {
            "network": sampling.get("network", 0.0), "parts": part_bytes(operator), "operator": operator.kept_bytes(),
            "overhead": OVERHEAD,
        }  # fmt: skip
        staying = {name: size for name, size in sampling.items() if name not in travelling}
        looking = {"bands": seeing_bytes(measurement), "overhead": OVERHEAD}
        if place == "disk":
            on_disk = sum(staying.get(name, 0.0) for name in ("volumes", "draws", "start"))
            staying = {"measurement": staying["measurement"], "volumes": self.sampler.coupled_bytes(operator)}
        at_once = sampling if place == "device" else travelling
        if self.device.type == "cuda":
            self._fits(at_once, device, operator.smaller)
            # The last case may still be written while this one is sampled.
            at_host = {} if place == "device" else {"volumes": sum(staying.values())}
            self._fits(largest(with_more(after, **at_host), looking), "cpu", operator.smaller)
        else:
            self._fits(
                largest(at_once if place != "host" else sampling, staying, after, looking), "cpu", operator.smaller
            )
        point = series_of(measurement)
        needed = self.disk_bytes(operator.domain_shape, 1 if point is None else len(point.series.chosen)) + on_disk
        there = free_disk(path_of("output_dir", self.output_dir))
        if there is not None and SURE * needed > there:
            raise ValueError(
                f"its results take about {in_gigabytes(needed)}, and {in_gigabytes(there)} are free at "
                f"{self.output_dir}: choose another --output_dir, or write less (--report False, --num_draws 1)"
            )

    def estimate(self, measurement: MetaTensor) -> tuple[Parts, Parts]:
        """Bytes that will be taken, by what takes them: while a measurement is sampled, and after."""
        operator, y = operator_of(measurement), measurement.as_tensor()[0]
        spacing = operator.domain_affine(measurement.affine)[:3, :3].norm(dim=0).tolist()
        sampling = self.inferer.working_bytes(y, operator, spacing, self.network)
        sampling = sampling | {"measurement": array_bytes(y.shape), "overhead": OVERHEAD}
        if operator.guided:
            sampling |= {"guide": array_bytes(operator.domain_shape)}
        if self.device.type == "cuda":
            sampling = with_more(sampling, measurement=array_bytes(y.shape), operator=operator.kept_bytes())
        volume, maps = array_bytes(operator.domain_shape), (self.sampler.num_draws > 1) + 2 * self.evidence
        after = {"results": (RESULT + PER_MAP * maps) * volume, "overhead": OVERHEAD}
        if self.report:
            # It shows the linear reconstruction as well.
            after |= {"page": PAGE * volume + operator.starting_bytes(), "measurement": sampling["measurement"]}
        if self.baselines is not None:
            making = (getattr(b, "working_bytes", lambda _: 0.0)(operator) for b in self.baselines.values())
            after["evaluation"] = (1 + len(self.baselines)) * volume + max(METRICS * volume, *making, 0.0)
        return sampling, after

    def disk_bytes(self, shape: tuple[int, ...], volumes: int = 1) -> float:
        """Bytes that the results take, at least; those of a series of so many volumes lie there twice."""
        voxels, maps = array_bytes(shape) / 4, (self.sampler.num_draws > 1) + 2 * self.evidence
        each = NIFTI * (self.output_format != "dicom") + DICOM * (self.output_format != "nifti")
        each = each if volumes == 1 else volumes * (each + KEPT)
        return voxels * ((1 + maps) * each + self.report * SHOWN * (2 + maps))

    def _fits(self, parts: Parts, device: str, smaller: str) -> None:
        needed, there = sum(parts.values()), self.limits.memory(device)
        if SURE * needed <= there:
            return
        where = "memory" if device == "cpu" else f"the memory of {device}"
        told = ((n, name) for name, n in parts.items() if n > 0.05 * needed and name != "overhead")
        shares = sorted(told, reverse=True)
        what = f" ({', '.join(f'{name} {in_gigabytes(n)}' for n, name in shares)})" if shares else ""
        fixes = [fix for _, name in shares if (fix := self._fix(name))]
        fixes += [smaller] + ["--device cpu"] * (device != "cpu")
        raise ValueError(
            f"to reconstruct it takes about {in_gigabytes(needed)} of {where}{what}, and {in_gigabytes(there)} are "
            f"available: {', '.join(fixes)}, or a machine with more (--max_memory off tries it all the same)"
        )

    def _fix(self, name: str) -> str:
        """The option that makes a part smaller, if there is one."""
        if name == "draws":
            return "--num_draws 1"
        if name in ("page", "evaluation") and self.report:
            return "--report False"
        return "--slice_batch_size 1" if name == "network" else ""
