"""Thick slices as they were acquired: bands taken out, and what the scan says of its thickness and resolution.

It goes before the operator is built, which takes the findings where its options ask for them (`thickness: estimate`,
`in_plane: measured`), and before intensities are scaled. Measurements of other kinds pass as they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.acquired import acquired_of, add_acquired
from interslice.files.doubts import add_doubts
from interslice.files.memory import array_bytes
from interslice.files.source import series_of
from interslice.physics.measurement import SIMULATED, Scanner
from interslice.physics.thick.bands import find_bands
from interslice.physics.thick.estimate import estimated_thickness
from interslice.physics.thick.in_plane import in_plane_resolution
from interslice.physics.thick.profile import Table
from interslice.physics.thick.scanner import ESTIMATE, ThroughPlaneSampling

FAR = 2.0
"""Times by which the estimated thickness differs from the used one, at least, to be said (docs/how_to/acquired.md)."""
COPIES = 8.0
"""Of a scan, at once, while its bands are looked for: itself, smoothed, its slopes, logarithms and steps, and masks."""


def seeing_bytes(measurement: MetaTensor) -> float:
    """Bytes that it takes to look at a measurement, the measurement among them; of others than thick slices 0."""
    return COPIES * array_bytes(measurement.shape) if "packages" in acquired_of(measurement) else 0.0


class AsAcquiredd(MapTransform):
    """Evens interleaved slices, and lets scans carry what they say of themselves (interslice.files.acquired).

    Args:
        keys: thick scans (1, X, Y, Z) in the scanner's intensities.
        scanner: `packages` and `profile` of a ThroughPlaneSampling; of any other scanner, nothing is done.
        name: of the id of the configs that describes the scanner, for what is said.
    """

    def __init__(self, keys, scanner: Scanner, name: str = "operator") -> None:
        super().__init__(keys)
        self.scanner, self.name = scanner, name

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        if isinstance(self.scanner, ThroughPlaneSampling):
            for key in self.key_iterator(d):
                d[key] = self._seen(d[key])
        return d

    def _seen(self, scan: MetaTensor) -> MetaTensor:
        spacing, made_by = scan.pixdim.tolist(), scan.meta.get(SIMULATED)
        try:
            axis = self.scanner.thick_axis(tuple(spacing)) if made_by is None else made_by.axis
        except ValueError:  # `check` says it
            return scan
        # All volumes of a series are taken alike: it must not flicker, and has one grid.
        of_series = {} if (point := series_of(scan)) is None else point.series.acquired
        scan = self._evened(scan, axis, spacing, of_series.get("packages", self.scanner.packages))
        voxels = scan.as_tensor()[0]
        if resolved := in_plane_resolution(voxels, axis, spacing):
            add_acquired(scan, in_plane_resolution_mm=[round(r, 3) for r in resolved])
            self._say_resolution(scan, resolved, [s for a, s in enumerate(spacing) if a != axis])
        estimate = estimated_thickness(voxels, axis, spacing, self.scanner.profile)
        if estimate is not None:
            add_acquired(scan, thickness_estimated_mm=round(estimate, 3))
        if made_by is None:
            self._say_thickness(scan, estimate, spacing[axis])
        add_acquired(scan, **of_series)
        return scan

    def _evened(self, scan: MetaTensor, axis: int, spacing, packages: int | str) -> MetaTensor:
        try:
            bands = find_bands(scan.as_tensor()[0].float(), axis, packages, spacing)
        except ValueError as error:
            raise ValueError(f"{scan.meta.get('filename_or_obj', 'the image')}: {error}") from None
        scan = scan.clone() if bands.packages > 1 else scan
        add_acquired(scan, packages=bands.packages)
        if bands.packages == 1:
            return scan
        scan[0] = bands.evened(scan.as_tensor()[0].float())
        add_acquired(scan, packages_step_percent=round(100 * bands.step, 3))
        add_doubts(
            scan,
            f"its slices have bands: {bands}, as of {bands.packages} packages. They were evened before "
            f"the reconstruction (--{self.name}#packages 1 leaves them)",
        )
        return scan

    def _say_resolution(self, scan: MetaTensor, resolved, fine) -> None:
        if min(resolved) <= min(fine) or self.scanner.in_plane == "measured":
            return
        # Stacks have one grid, which is set: its spacing is no matter of one of them.
        fix = f". --{self.name}#in_plane measured reconstructs at what it resolves" if self.name == "operator" else ""
        add_doubts(
            scan,
            f"its spectrum ends at {resolved[0]:.2g} x {resolved[1]:.2g} mm, and its voxels have {fine[0]:.2g} x "
            f"{fine[1]:.2g} mm: the scanner filled the rest with zeros{fix}",
        )

    def _say_thickness(self, scan: MetaTensor, estimate: float | None, pitch: float) -> None:
        stated = float(scan.meta.get("slice_thickness", 0))
        asked = self.scanner.thickness == ESTIMATE
        if estimate is None:
            if asked:
                add_doubts(scan, "its slices do not tell how thick they are: the thickness is not estimated")
            return
        if isinstance(self.scanner.profile, Table) and not asked:
            return
        given = self.scanner.thickness if not asked and self.scanner.thickness else None
        used = given or (pitch - self.scanner.gap if self.scanner.gap is not None else stated or pitch)
        by = "given" if given or self.scanner.gap is not None else "stated" if stated else "the slices' distance"
        said = f"its slices look {estimate:.2g} mm thick, and {used:.2g} mm is {by}"
        if asked:
            print(f"{scan.meta.get('filename_or_obj', 'the image')}: {said}", flush=True)
        elif max(estimate / used, used / estimate) > FAR:
            add_doubts(scan, f"{said}: --{self.name}#thickness estimate goes by what they look like")
