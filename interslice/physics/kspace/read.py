"""Reading measured k-space.

    fastMRI      HDF5 with `kspace`, complex (slices, coils, readout, phase) or (slices, readout, phase), and perhaps
                 `mask`, (phase,), (readout, phase) or (slices, readout, phase), and `ismrmrd_header`, XML
                 (Zbontar et al., "fastMRI: an open dataset and benchmarks for accelerated MRI", arXiv 1811.08839, 2018)
    ISMRMRD      HDF5 with a group of `data` and `xml` (interslice.physics.kspace.ismrmrd)

k-space becomes (1, C, Z, KY, KX, 2) with the readout along KY, so that the volume's axes are (phase encoding, readout,
slice). Where the readout was oversampled its field of view is cut to the one shown. MONAI's FastMRIReader reads neither
the header nor files without a mask, and checks nothing; it would also load the images that lie beside k-space.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from interslice.files.doubts import add_doubts
from interslice.files.find import case_name
from interslice.files.limits import LARGEST_TEXT, Limits
from interslice.files.machine import in_gigabytes
from interslice.files.scan import Refusal, unreadable
from interslice.physics.kspace.heaps import check_heaps
from interslice.physics.kspace.ismrmrd import Encoding, read_header, read_ismrmrd
from interslice.physics.kspace.layout import LAYOUTS, centred, with_coils_second
from interslice.physics.kspace.own_data import check_own_data
from interslice.physics.kspace.scanner import check_kspace
from interslice.usage import UsageError

SUFFIXES = (".h5", ".hdf5", ".mrd")
COPIES = 8.0
"""Of k-space that reading it, estimating the coils' maps and scaling it hold at once (docs/reference/limits.md)."""


def read_kspace(path: str | Path, layout: str = "auto", limits: Limits | None = None) -> MetaTensor:
    """k-space (1, C, Z, KY, KX, 2) of a file, with its mask in `meta` if it was known, and the affine of its volume.

    Args:
        layout: of fastMRI files: "auto" finds it from the energy; "as_stored" takes k-space for what is said above;
            "three_d" does the third transform, too, unasked.
        limits: of the size of a file and of memory.

    Raises:
        FileNotFoundError: no file.
        ValueError: not k-space, damaged, of another shape, not Cartesian, NaN, all 0; with the file's name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a file of k-space ({', '.join(SUFFIXES)})")
    try:
        if not path.name.lower().endswith(SUFFIXES):
            raise Refusal(
                f"not k-space, which is {', '.join(SUFFIXES)}: set --dataset_dir to a file of k-space or a folder of "
                "them, or add configs/evaluate.json to simulate k-space from volumes"
            )
        measurement, said = _read(path, layout, limits or Limits())
        check_kspace(measurement)
    except Refusal as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a file can be damaged in as many ways as readers can fail
        raise ValueError(f"{path}: {unreadable(error)}") from None
    measurement.meta |= {"filename_or_obj": str(path), "case": case_name(path, SUFFIXES)}
    add_doubts(measurement, *said)
    return measurement


def _read(path: Path, layout: str, limits: Limits) -> tuple[MetaTensor, list[str]]:
    """A measurement, and what was mended of it, in words."""
    encoding, mask, affine, said = None, None, None, []
    check_heaps(path)
    with h5py.File(path, "r") as file:
        check_own_data(file)
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group) and {"data", "xml"} <= set(item)]
        if "kspace" in file:
            kspace, mask, said = _from_fastmri(file, layout, limits)
            if "ismrmrd_header" in file:
                encoding = read_header(_text(file["ismrmrd_header"])[()])
            else:
                warnings.warn(f"{path}: no ismrmrd_header: voxels are taken to be 1 x 1 x 1 mm", stacklevel=4)
        elif len(groups) == 1:
            encoding = read_header(_text(file[groups[0]]["xml"])[0])
        else:
            raise Refusal(
                f"the file holds {', '.join(file) or 'nothing'}: expected `kspace` (fastMRI), or one group with `data` "
                "and `xml` (ISMRMRD)"
            )
    if mask is None and encoding is not None and groups:
        kspace, mask, affine = read_ismrmrd(path, groups[0], encoding, limits)
        mask = mask[0] if (mask == mask[0]).all() else mask
    return assemble(kspace, mask, encoding, affine), said


def _text(stored: h5py.Dataset) -> h5py.Dataset:
    """A text as it is; raises ValueError for one that is too long to describe anything."""
    if stored.size * stored.dtype.itemsize > LARGEST_TEXT:
        raise Refusal(f"{stored.name} is a text of {in_gigabytes(stored.size * stored.dtype.itemsize)}: damaged")
    return stored


def _from_fastmri(file: h5py.File, layout: str, limits: Limits) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """k-space (C, Z, KY, KX), 0 where the mask is 0; the mask, (KY, KX) or (Z, KY, KX), or None; what was mended."""
    stored = file["kspace"]
    compound = set(stored.dtype.names or ()) == {"real", "imag"}  # MATLAB's complex numbers
    if not (compound or np.issubdtype(stored.dtype, np.complexfloating)):
        raise Refusal(f"kspace is {stored.dtype}: expected complex numbers")
    if stored.ndim not in (3, 4) or min(stored.shape) < 1:
        raise Refusal(
            f"kspace has the shape {stored.shape}: expected (slices, coils, readout, phase) or (slices, readout, phase)"
        )
    limits.check(stored.shape, parts=2, copies=COPIES)
    kspace = from_compound(stored[()]) if compound else stored[()].astype(np.complex64, copy=False)
    # What is not finite is refused later, and has no energy to go by.
    look = layout != "as_stored" and bool(np.isfinite(kspace).all())
    kspace, moved = with_coils_second(kspace) if look else (kspace, [])
    kspace = kspace[None] if kspace.ndim == 3 else np.ascontiguousarray(kspace.swapaxes(0, 1))
    mask = _mask_of(file, kspace)
    kspace, mask, said = centred(kspace, mask, layout) if look else (kspace, mask, [])
    return kspace if mask is None else kspace * mask, mask, moved + said


def from_compound(stored: np.ndarray) -> np.ndarray:
    """complex64 of an array with the fields "real" and "imag"."""
    values = np.empty(stored.shape, np.complex64)
    values.real, values.imag = stored["real"], stored["imag"]
    return values


def _mask_of(file: h5py.File, kspace: np.ndarray) -> np.ndarray | None:
    """The mask of a file, (KY, KX) or (Z, KY, KX), or None, for its k-space (C, Z, KY, KX)."""
    if "mask" not in file:
        return None
    allowed, stored = [kspace.shape[-n:] for n in (1, 2, 3)], file["mask"]
    if stored.shape not in allowed:
        raise Refusal(f"the mask has the shape {stored.shape}: expected one of {', '.join(map(str, allowed))}")
    mask = np.asarray(stored[()]) != 0
    return np.broadcast_to(mask, kspace.shape[-2:]) if mask.ndim == 1 else mask


def assemble(
    kspace: np.ndarray, mask: np.ndarray | None, encoding: Encoding | None, affine: np.ndarray | None
) -> MetaTensor:
    """k-space complex (C, Z, KY, KX), KY along the readout, as a measurement.

    Args:
        mask: (KY, KX), (Z, KY, KX), or None to take what is not 0.
        encoding: sizes in mm; by default voxels of 1 mm.
        affine: of the volume (4, 4), before the readout is cut; by default its middle is the origin, the phase encoding
            runs to the left, the readout to posterior and the slices to superior.
    """
    rows, columns = kspace.shape[-2:]
    spacing = (1.0, 1.0, 1.0)
    kept = rows
    if encoding is not None:
        fov = encoding.field_of_view
        spacing = (fov[1] / columns, fov[0] / rows, encoding.shown[2] / encoding.matrix[2])
        kept = min(rows, 2 * round(rows * encoding.shown[0] / fov[0] / 2))
    if kept < rows and readout_is_complete(kspace, mask):
        kspace = cut_readout(kspace, kept)
        mask = None if mask is None else mask[..., :kept, :]
        if affine is not None:
            affine = affine.copy()
            affine[:3, 3] += affine[:3, 1] * (rows // 2 - kept // 2)
    if affine is None:
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        z, rows, columns = kspace.shape[1:]
        affine[:3, 3] = -affine[:3, :3] @ [columns // 2, rows // 2, (z - 1) / 2]
    meta = {} if mask is None else {"mask": torch.from_numpy(np.array(mask))}
    parts = torch.view_as_real(torch.from_numpy(np.ascontiguousarray(kspace)))
    return MetaTensor(parts[None], affine=torch.from_numpy(affine), meta=meta)


def readout_is_complete(kspace: np.ndarray, mask: np.ndarray | None) -> bool:
    """True if every line was measured from end to end: only then can it be transformed."""
    measured = (kspace != 0).any(0) if mask is None else mask
    return bool((measured.all(-2) == measured.any(-2)).all())


def cut_readout(kspace: np.ndarray, kept: int) -> np.ndarray:
    """k-space (..., KY, KX) of the middle `kept` rows of its image."""
    rows = kspace.shape[-2]
    image = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, -2), axis=-2, norm="ortho"), -2)
    first = rows // 2 - kept // 2
    image = image[..., first : first + kept, :]
    cut = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(image, -2), axis=-2, norm="ortho"), -2)
    return cut.astype(np.complex64)


class LoadKspaced(MapTransform):
    """Paths become k-space (1, C, Z, KY, KX, 2) with `mask` in its metadata, checked; see `read_kspace`.

    Raises:
        ValueError: an unknown layout.

    Args:
        limits: of the size of a file and of memory.
    """

    suffixes = SUFFIXES

    def __init__(self, keys, layout: str = "auto", limits: Limits | None = None) -> None:
        super().__init__(keys)
        if layout not in LAYOUTS:
            raise UsageError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}: correct --read#0#layout")
        self.layout, self.limits = layout, limits or Limits()

    def __call__(self, data: Mapping[Hashable, str]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = read_kspace(d[key], self.layout, self.limits)
            d[key].meta["case"] = d.get("case") or d[key].meta["case"]
        return d
