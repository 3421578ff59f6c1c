"""Reading measured CT projections with their geometry.

    <case>.npz, .nii, .nii.gz, .mha, .mhd, .nrrd    with  <case>.json    (docs/ct_geometry.schema.json)
    an ITK-readable stack                           with  <case>.xml     (the Reconstruction Toolkit's geometry)

With a JSON geometry the array is (views, columns, rows), in an .npz under the name `projections`. An RTK stack is an
image of (columns, rows, views). The values are line integrals, without unit; or counts, if the JSON file states what is
counted through air (counted.py). It may also state the `grid` to reconstruct on.

A folder of DICOM-CT-PD is one scan, and a .tif is a stack of Helix2Fan: interslice.physics.ct.raw,
docs/how_to/ct_raw.md.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.doubts import add_doubts
from interslice.files.find import case_name
from interslice.files.limits import Limits, read_text
from interslice.files.npz import check_npz
from interslice.files.scan import Refusal, unreadable
from interslice.files.volume_read import check_image
from interslice.physics.ct import Grid, ScanGeometry
from interslice.physics.ct.counted import Counted, read_field
from interslice.physics.ct.raw.ct_pd import RawOptions, holds_ct_pd
from interslice.physics.ct.raw.load import TIFF, is_raw, raw_projections
from interslice.physics.ct.rtk_geometry import read_rtk_geometry

SUFFIXES = (".npz", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", *TIFF)
LARGEST_LINE_INTEGRAL = 20.0
"""exp(-20): no detector counts that; larger values are not line integrals."""


class LoadProjectionsd(MapTransform):
    """Paths become projections (1, views, columns, rows) with their geometry in `meta`, checked.

    Args:
        keys: paths.
        limits: of the size of a file and of memory.
        raw: which views are read of a scanner's raw data.
        water: attenuation in 1/mm that HU are reckoned with; raw data that state their own are brought to it. None
            leaves them as they were measured, for what begins there (beam_hardening.py).

    Raises:
        FileNotFoundError: no file, or no geometry beside it.
        ValueError: a damaged file, another size than the geometry's, NaN, values that are no line integrals.

    Warns of counts that are zero or saturated and of views that are empty (counted.py).
    """

    suffixes = SUFFIXES
    holds = staticmethod(holds_ct_pd)
    """Whether a folder is one scan."""

    def __init__(self, keys, limits: Limits | None = None, raw: RawOptions | None = None,
                 water: float | None = None) -> None:  # fmt: skip
        super().__init__(keys)
        self.limits, self.raw, self.water = limits or Limits(), raw or RawOptions(), water

    def __call__(self, data: Mapping[Hashable, str]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            path = Path(d[key])
            if is_raw(path) and path.exists():
                d[key] = raw_projections(path, self.raw, self.limits, self.water)
            else:
                d[key] = read_projections(path, self.limits)
            d[key].meta["case"] = d.get("case") or d[key].meta["case"]
        return d


def read_projections(path: str | Path, limits: Limits | None = None) -> MetaTensor:
    """See LoadProjectionsd."""
    path, limits = Path(path), limits or Limits()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a file of projections ({', '.join(SUFFIXES)})")
    folder, case = path.parent, case_name(path, SUFFIXES)
    described, rtk = folder / f"{case}.json", folder / f"{case}.xml"
    counted, grid, noise, mended = None, None, None, []
    try:
        if described.is_file():
            fields = _read_fields(described)
            counted = Counted.taken_from(fields, folder, lambda field: read_field(field, limits, _read_array))
            grid = fields.pop("grid", None)
            geometry = ScanGeometry.from_json(json.dumps(fields))
            values = _readable(_read_array, path, limits)
        elif rtk.is_file():
            values, geometry = _readable(_read_stack, path, rtk, limits)
        else:
            raise FileNotFoundError(f"no geometry beside the projections: expected {described.name} or {rtk.name}")
        if grid is not None:
            grid = Grid.from_fields(grid)
        _check_size(values, geometry)
        if counted is not None:
            values, noise, mended = counted.read(values, path)
        _check_line_integrals(values, path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from None
    except Refusal as error:
        raise ValueError(f"{path}: {error}") from None
    meta = {"filename_or_obj": str(path), "case": case, "geometry": geometry}
    if grid is not None:
        meta["grid"] = grid
    if counted is not None and counted.air_counts is not None:
        meta["air_counts"] = float(counted.air_counts)
    if noise is not None:
        meta["noise"] = noise
    projections = MetaTensor(torch.from_numpy(values)[None], meta=meta)
    add_doubts(projections, *mended)
    return projections


def _readable(read: Callable, path: Path, *others):
    """What `read` returns; a file can be damaged in as many ways as readers can fail."""
    try:
        return read(path, *others)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(unreadable(error)) from None


def _read_fields(path: Path) -> dict:
    try:
        fields = json.loads(read_text(path))
    except Refusal:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise Refusal(f"{path.name} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Refusal(f"{path.name} is not a JSON object with the fields of a geometry")
    return fields


def _read_array(path: Path, limits: Limits) -> np.ndarray:
    """(views, columns, rows) float32."""
    name = path.name.lower()
    check_image(path, limits)
    if name.endswith(".npz"):
        check_npz(path, "projections", limits)
        with np.load(path, allow_pickle=False) as arrays:
            if "projections" not in arrays:
                raise Refusal(f"the file holds {', '.join(arrays.files) or 'nothing'}, but no array `projections`")
            values = arrays["projections"]
    elif name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        if np.issubdtype(image.get_data_dtype(), np.complexfloating):
            raise Refusal("the projections are complex numbers: save line integrals or counts")
        values = image.get_fdata(dtype=np.float32)
    else:
        values = np.ascontiguousarray(itk.array_from_image(itk.imread(str(path))).T)
    if values.ndim == 2:  # one slice
        values = values[..., None]
    if values.ndim != 3:
        raise Refusal(f"projections are (views, columns, rows), got an array of shape {values.shape}")
    if np.iscomplexobj(values):
        raise Refusal("the projections are complex numbers: save line integrals or counts")
    return np.ascontiguousarray(values, dtype=np.float32)


def _read_stack(path: Path, rtk: Path, limits: Limits) -> tuple[np.ndarray, ScanGeometry]:
    """An RTK projection stack (columns, rows, views) and its geometry; positions come from the image's header."""
    if path.name.lower().endswith(".npz"):
        raise Refusal(f"{rtk.name} describes an image with spacing and origin, which an .npz lacks: use JSON")
    check_image(path, limits)
    image = itk.imread(str(path))
    values = itk.array_from_image(image)  # views, rows, columns
    if values.ndim != 3:
        raise Refusal(f"an RTK projection stack has three axes, got {values.shape}")
    spacing, origin = np.asarray(image.GetSpacing()), np.asarray(image.GetOrigin())
    if not np.allclose(np.asarray(image.GetDirection())[:2, :2], np.eye(2)):
        raise Refusal("the detector's axes are turned in the image header: save the stack with an identity direction")
    size = (values.shape[2], values.shape[1])
    geometry = read_rtk_geometry(rtk, size, tuple(map(float, spacing[:2])), tuple(map(float, origin[:2])))
    return np.ascontiguousarray(values.transpose(0, 2, 1), dtype=np.float32), geometry


def _check_size(values: np.ndarray, geometry: ScanGeometry) -> None:
    if values.shape != geometry.range_shape:
        raise Refusal(
            f"the projections are {values.shape} (views, columns, rows), the geometry says {geometry.range_shape}: "
            "correct one of them"
        )


def _check_line_integrals(values: np.ndarray, path: Path) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise Refusal(f"{bad} values are NaN or infinite; repair the projections, or leave those views out")
    if values.max() > LARGEST_LINE_INTEGRAL or values.min() < -LARGEST_LINE_INTEGRAL:
        raise Refusal(
            f"values from {values.min():g} to {values.max():g} are not line integrals (0 to about 10); for counts, "
            "state air_counts in the geometry file"
        )
    if not values.any():
        raise Refusal("every value is zero")
    empty = [i for i, view in enumerate(values) if not view.any()]
    if empty:
        warnings.warn(f"{path}: views {empty} are all zero; a view that failed is better left out", stacklevel=4)
