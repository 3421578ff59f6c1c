"""Raw data of scanners: what is taken of them, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bundle.files.limits import Limits
from bundle.files.values import choice, number, rising_pair, whole_number
from bundle.physics.ct.counting import RayNoise
from bundle.physics.ct.ct_pd import RawScan, read_ct_pd
from bundle.physics.ct.rebin import rebinned

REBIN = ("none", "fan")


@dataclass
class RawData:
    """What is taken of scanners' own projections (ct_pd.py, helix2fan.py).

    Args:
        water: attenuation of water in 1/mm that line integrals are brought to, from what a file is calibrated by.
        every: take every n-th view of DICOM-CT-PD.
        heights: (lowest, highest) z in mm of the views to take, as its headers count; all by default.
        rebin: "fan": helices become fan beams (rebin.py); "none".
        slice_spacing: of these, mm; by default that of the detector's rows at the isocenter.
    """

    water: float = 0.0192
    every: int = 1
    heights: Sequence[float] | None = None
    rebin: str = "none"
    slice_spacing: float | None = None

    def __post_init__(self) -> None:
        number("water", self.water, above=0, kind="a number of 1/mm")
        whole_number("every", self.every, 1)
        self.heights = None if self.heights is None else rising_pair("heights", self.heights)
        choice("rebin", self.rebin, REBIN)
        if self.slice_spacing is not None:
            number("slice_spacing", self.slice_spacing, above=0, kind="a number of mm")

    def read_folder(self, folder: Path, limits: Limits) -> RawScan:
        """A folder of DICOM-CT-PD. Raises Refusal as `read_ct_pd` and `rebinned` do."""
        scan = read_ct_pd(folder, self.every, self.heights, limits)
        if self.rebin == "fan":
            values, geometry, noise = rebinned(scan.values, scan.geometry, scan.noise, self.slice_spacing)
            scan = replace(scan, values=values, geometry=geometry, noise=noise)
        return self.calibrated(scan)

    def calibrated(self, scan: RawScan) -> RawScan:
        """The same with line integrals as if water attenuated by `water`."""
        if scan.water is None:
            return scan
        gain = np.float32(self.water / scan.water)
        scan.values[...] *= gain
        noise = None if scan.noise is None else RayNoise(scan.noise.variance * gain**2)
        return replace(scan, noise=noise, water=self.water)
