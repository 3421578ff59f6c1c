"""What Helix2Fan writes: a helix rebinned to fan beams of a flat detector, a TIFF stack (views, columns, slices).

Its angles alpha (radians) are -phi - 270 degrees of the scanner's phi (ct_pd.py), so that theta = -alpha - 90 degrees;
its columns run along u, its slices from `z_positions[0]` along the scanner's z, against the frame's. Lengths are in mm:
`dso`, `ddo`, `du`, `dv_rebinned`; `hu_factor` is the attenuation of water in 1/mm. All stand as JSON in the file's
ImageDescription. Source: the program's own files (github.com/faebstn96/helix2fan; Wagner et al., 2023).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bundle.files.limits import Limits
from bundle.files.machine import GIGA, in_gigabytes
from bundle.files.scan import Refusal, unreadable
from bundle.physics.ct.ct_pd import WORLD, RawScan, water_of
from bundle.physics.ct.geometry import ScanGeometry

SUFFIXES = (".tif", ".tiff")
NEEDED = ("angles", "rotview", "dso", "ddo", "du", "dv_rebinned", "z_positions")


def read_helix2fan(path: Path, limits: Limits | None = None) -> RawScan:
    """Line integrals (views, columns, slices) and their geometry.

    Raises:
        Refusal: the file is damaged, too large, lacks what a fan beam needs, or is another of its stacks.
    """
    import tifffile  # asked for by these files alone

    most = (limits or Limits()).max_gigabytes * GIGA
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            shape, size = tuple(series.shape), float(np.prod(series.shape)) * 4
            if size > most:
                raise Refusal(
                    f"it unpacks to {in_gigabytes(size)}, and at most {in_gigabytes(most)} are read: --max_gigabytes "
                    f"{int(np.ceil(size / GIGA))}"
                )
            fields = fields_of(str(file.pages[0].description or ""))
            missing = [name for name in NEEDED if fields.get(name) is None]
            if missing:
                raise Refusal(f"no stack of Helix2Fan: its description lacks {', '.join(missing)}")
            if len(shape) != 3 or shape[0] != int(fields["rotview"]):
                raise Refusal(
                    f"a stack of {' x '.join(map(str, shape))} is no fan beam of {int(fields['rotview'])} views: give "
                    "the file that ends in _flat_fan_projections.tif"
                )
            values = series.asarray()
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(unreadable(error)) from None
    values = np.ascontiguousarray(values[:, :, ::-1], np.float32)
    return RawScan(values, geometry_of(fields, shape), water_of(fields.get("hu_factor")))


def fields_of(description: str) -> dict:
    """The JSON of a description, with either kind of quotes; empty where it is none."""
    for text in (description, description.replace("'", '"')):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return fields if isinstance(fields, dict) else {}
    return {}


def geometry_of(fields: dict, shape: tuple[int, int, int]) -> ScanGeometry:
    """The fan beam of these fields; Refusal where they are no numbers."""
    try:
        alpha = np.array(fields["angles"], float)[: int(fields["rotview"])]
        spacing, lowest = float(fields["dv_rebinned"]), float(fields["z_positions"][0])
        distances = {"source_to_isocenter": float(fields["dso"]),
                     "source_to_detector": float(fields["dso"]) + float(fields["ddo"])}  # fmt: skip
        size = float(fields["du"])
    except (TypeError, ValueError, IndexError) as error:
        raise Refusal(f"the description of the stack does not hold numbers: {error}") from None
    if len(alpha) != shape[0]:
        raise Refusal(f"{len(alpha)} angles are stated for {shape[0]} views")
    return ScanGeometry(
        beam="fan", angles=tuple(np.degrees(-alpha) - 90.0), num_columns=shape[1], column_size=size, num_rows=shape[2],
        row_size=spacing, row_offset=-(lowest + spacing * (shape[2] - 1) / 2), **distances,
        world=tuple(tuple(float(sign * (a == b)) for b in range(4)) for a, sign in enumerate((*WORLD["HFS"], 1))),
    )  # fmt: skip
