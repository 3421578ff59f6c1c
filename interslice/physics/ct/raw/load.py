"""Raw data as the projections of a run: folders of DICOM-CT-PD, and TIFF stacks of Helix2Fan.

p' = p water / water of the file       the water that HU are reckoned with may differ from the scanner's
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from interslice.files.doubts import add_doubts
from interslice.files.find import case_name
from interslice.files.limits import Limits
from interslice.files.scan import Refusal, unreadable
from interslice.physics.ct.raw.ct_pd import RawOptions, RawScan, read_ct_pd
from interslice.physics.ct.raw.helix2fan import read_helix2fan
from interslice.physics.ct.raw.rebin import rebinned

TIFF = (".tif", ".tiff")


def is_raw(path: Path) -> bool:
    """Whether a path is read here."""
    return path.is_dir() or path.name.lower().endswith(TIFF)


def raw_projections(path: Path, options: RawOptions, limits: Limits, water: float | None = None) -> MetaTensor:
    """Projections (1, views, columns, rows) with their geometry and doubts in `meta`.

    Args:
        water: attenuation in 1/mm to which values are brought where the file states its own.

    Raises:
        ValueError: what is wrong, with the path.
    """
    if not path.is_dir() and options != RawOptions():
        raise ValueError(f"{path}: raw#every, z_range, rebin and slice_spacing are of DICOM-CT-PD: leave them out")
    try:
        scan = read_ct_pd(path, options, limits) if path.is_dir() else read_helix2fan(path, limits)
        check_values(scan)
        if options.rebin == "fan" and path.is_dir():
            values, geometry, noise = rebinned(scan.values, scan.geometry, scan.noise, options.slice_spacing, limits)
            scan = replace(scan, values=values, geometry=geometry, noise=noise)
    except Refusal as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a file can be damaged in as many ways as readers can fail
        raise ValueError(f"{path}: {unreadable(error)}") from None
    values, gain = scan.values, 1.0 if water is None or scan.water is None else water / scan.water
    values *= gain
    meta = {"filename_or_obj": str(path), "case": case_name(path, TIFF), "geometry": scan.geometry}
    if scan.noise is not None:
        meta["noise"] = scan.noise.changed(np.float32(gain))
    projections = MetaTensor(torch.from_numpy(values)[None], meta=meta)
    add_doubts(projections, *scan.said)
    return projections


def check_values(scan: RawScan) -> None:
    """Raise Refusal for values that are no line integrals."""
    low, high = float(scan.values.min()), float(scan.values.max())
    if not (-20 < low <= high < 20):  # NaN is in no range
        raise Refusal(f"values from {low:g} to {high:g} are no line integrals (0 to about 10): is the file damaged?")
    if low == high == 0:
        raise Refusal("every value is zero")
    if scan.water is not None and not 0.005 < scan.water < 0.1:
        raise Refusal(f"the attenuation of water is stated as {scan.water:g}/mm; X-rays of CT have about 0.02")
