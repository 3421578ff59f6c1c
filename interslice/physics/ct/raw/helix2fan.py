"""Reading what Helix2Fan writes: `<scan>_flat_fan_projections.tif`, fan-beam sinograms of a flat detector.

An array (views of a turn, columns, slices) of float32 line integrals, and as JSON in the TIFF's ImageDescription

    angles, rotview      of the helix, in radians; the first `rotview` are those of the fan
    dso, dsd             from the source to the isocenter and to the detector, mm
    nu, du               columns and their size, mm         dv_rebinned     distance of slices, mm
    z_positions          of the helix; slice k lies at the first of them + k dv_rebinned
    hu_factor            attenuation of water, 1/mm

(Wagner et al., ISBI 2023, arXiv 2211.01111; github.com/faebstn96/helix2fan.) It counts angles as -phi - 3 pi / 2
(mod 2 pi) of DICOM-CT-PD's phi, and columns from the last. In the frame of
interslice.physics.ct.raw.frame, thus theta = phi, columns are in order, and slices are turned: z = -z0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile

from interslice.files.limits import Limits
from interslice.files.scan import Refusal
from interslice.physics.ct.geometry import ScanGeometry
from interslice.physics.ct.raw.ct_pd import RawScan
from interslice.physics.ct.raw.frame import ASSUMED, world_of

FIELDS = ("angles", "rotview", "dso", "dsd", "nu", "du", "dv_rebinned", "z_positions", "hu_factor")


def read_helix2fan(path: Path, limits: Limits | None = None) -> RawScan:
    """Read a stack and its geometry.

    Raises:
        ValueError: no metadata of Helix2Fan, an array of another size than they say, or the stack of a helix.
    """
    with tifffile.TiffFile(path) as file:
        described = file.pages[0].tags.get("ImageDescription")
        about = fields_of("" if described is None else str(described.value))
        shape = file.series[0].shape
        nu, turn = int(about["nu"]), int(about["rotview"])
        if len(shape) != 3 or shape[:2] != (turn, nu):
            helix = " (a helix, one of its intermediate files?)" if shape[0] == len(about["angles"]) else ""
            raise Refusal(
                f"the stack is {' x '.join(map(str, shape))}{helix}; rotview and nu say {turn} views of {nu} columns: "
                "name the file *_flat_fan_projections.tif"
            )
        (limits or Limits()).check(shape)
        values = file.asarray().astype(np.float32)
    if len(about["angles"]) < turn:
        raise Refusal(f"angles has {len(about['angles'])} values, rotview says {turn} views")
    z = about["z_positions"][0] + np.arange(shape[2]) * about["dv_rebinned"]
    seen = values.any(1).all(0)
    if not seen.any():
        raise Refusal("no slice is seen by all views")
    first, last = int(np.argmax(seen)), len(seen) - int(np.argmax(seen[::-1]))
    said = [f"a stack of Helix2Fan states no patient position: the patient is taken to lie {ASSUMED}"]
    if last - first < len(seen):
        said.append(f"{len(seen) - last + first} slices at the ends, which not all views see, are left out")
    values, z = values[:, :, first:last][:, :, ::-1], -z[first:last][::-1]
    geometry = ScanGeometry(
        beam="fan",
        angles=tuple(np.rad2deg(-np.array(about["angles"][:turn]) - 1.5 * np.pi).tolist()),
        num_columns=nu,
        column_size=about["du"],
        num_rows=len(z),
        row_size=about["dv_rebinned"],
        source_to_isocenter=about["dso"],
        source_to_detector=about["dsd"],
        row_offset=float(z.mean()),
        world=world_of(ASSUMED),
    )
    return RawScan(np.ascontiguousarray(values), geometry, about["hu_factor"], tuple(said))


def fields_of(description: str) -> dict:
    """The metadata of a stack; Refusal where one is missing or no number."""
    try:
        about = json.loads(description)
    except ValueError:
        about = None
    if not isinstance(about, Mapping) or (missing := [name for name in FIELDS if name not in about]):
        lack = "" if not isinstance(about, Mapping) else f"; {', '.join(missing)} missing"
        raise Refusal(f"the TIFF has no metadata of Helix2Fan in its ImageDescription{lack}: save an .npz with a .json")
    for name in FIELDS:
        values = np.atleast_1d(np.array(about[name], object))
        good = all(isinstance(v, (int, float)) and np.isfinite(v) for v in values) and len(values)
        if not good or (name not in ("angles", "z_positions") and not (len(values) == 1 and values[0] > 0)):
            raise Refusal(f"{name} of the TIFF's metadata must be finite{' and positive' * (len(values) == 1)}")
    return dict(about)
