"""One reader of volumes for MONAI's loaders, which asks the reader of the file's format.

A format has one reader: MONAI would try its own in turn, and takes another one for NRRD where pynrrd is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from monai.data import ImageReader
from nibabel.affines import voxel_sizes

from interslice.files.content import check_content
from interslice.files.find import FORMATS, OTHER_HALF, SUFFIXES
from interslice.files.limits import Limits
from interslice.files.metaimage_read import check_metaimage, read_metaimage
from interslice.files.mgh_read import read_mgh
from interslice.files.nifti_read import open_nifti, read_nifti
from interslice.files.nrrd_read import check_nrrd, read_nrrd
from interslice.files.scan import Refusal, Scan, unreadable
from interslice.files.sidecar import read_sidecar
from interslice.files.source import Source

READERS = {"NIfTI": read_nifti, "FreeSurfer": read_mgh, "NRRD": read_nrrd, "MetaImage": read_metaimage}


class VolumeReader(ImageReader):
    """MONAI's reader protocol for the path of one volume; a warning for each doubt about its place.

    Metadata: affine (RAS, mm), spatial_shape, and slice_thickness in mm, 0 where nothing is known of it, with who
    states it in slice_thickness_by.

    Args:
        limits: of size and memory.

    Attributes:
        source: of the volume that was read last.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__()
        self.limits = limits or Limits()

    def verify_suffix(self, filename) -> bool:
        return True

    def read(self, data: Sequence[str], **_) -> Scan:
        """Raises ValueError, naming the file, for what is no volume of a known format, or is damaged."""
        path, *others = (Path(p) for p in data)
        if others:
            raise ValueError(f"expected one volume, got {len(data)}: {', '.join(data)}")
        _reader_of(path)
        try:
            check_content(path)
            scan = self.scan(path)
        except Refusal as error:
            raise ValueError(f"{path}: {error}") from None
        except Exception as error:  # a file can be damaged in as many ways as readers can fail
            raise ValueError(f"{path}: {unreadable(error)}") from None
        sidecar = read_sidecar(path, voxel_sizes(scan.affine))
        self.source = Source(nifti=scan.nifti, modality=sidecar.modality)
        for doubt in (*scan.doubts, *sidecar.doubts):
            warnings.warn(f"{path}: {doubt}", stacklevel=2)
        if not sidecar.thickness:
            return scan
        return replace(scan, thickness=sidecar.thickness, thickness_by=sidecar.by)

    def scan(self, path: Path) -> Scan:
        """By the reader of the file's format."""
        return _reader_of(path)(path, self.limits)

    def get_data(self, img: Scan) -> tuple[np.ndarray, dict]:
        shape = img.voxels.shape
        meta = {
            "affine": img.affine.copy(),
            "original_affine": img.affine.copy(),
            "spatial_shape": np.array(shape[:3]),
            "original_channel_dim": float("nan") if len(shape) <= 3 else -1,  # NaN: MONAI's word for none
            "space": "RAS",
            "slice_thickness": img.thickness,
            "slice_thickness_by": img.thickness_by,
        }
        return img.voxels, meta


def check_image(path: Path, limits: Limits) -> None:
    """Raise ValueError for a file whose header no reader should see, or states too much; others are not looked at."""
    name = path.name.lower()
    if name.endswith(FORMATS["NIfTI"]):
        open_nifti(path, limits)
    elif name.endswith(FORMATS["NRRD"]):
        check_nrrd(path, limits)
    elif name.endswith(FORMATS["MetaImage"]):
        check_metaimage(path, limits)


def _reader_of(path: Path) -> Callable[[Path, Limits], Scan]:
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {path.readlink()}, which is not there: fetch it (git annex get)")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a volume, or a folder with a DICOM series")
    name = path.name.lower()
    for format_name, suffixes in FORMATS.items():
        if name.endswith((*suffixes, *OTHER_HALF) if format_name == "NIfTI" else suffixes):
            return READERS[format_name]
    raise ValueError(f"{path}: expected DICOM, or a name that ends with one of {', '.join(SUFFIXES)}")
