"""Small measurements, written well: what is damaged later, and what lies beside it.

Everything follows from `seed`. Lengths are mm. A measurement is one file, or a folder of DICOM, and what belongs to it
bears the same name.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import itk
import nibabel as nib
import nrrd
import numpy as np
import torch
from monai.data import MetaTensor
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage

from interslice.files.dicom_write import save_series
from interslice.prior.network import SliceUNet

SHAPE = (14, 12, 5)
"""Voxels of a thick scan of 1 x 1 x 4 mm."""
AFFINE = np.diag([-1.0, 1.0, 4.0, 1.0])
VIEWS, COLUMNS, ROWS = 12, 16, 3
"""Of projections."""
SLICES, COILS, READOUT, PHASE = 4, 2, 16, 12
"""Of k-space."""
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>16</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>32</x><y>24</y><z>4</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>16</x><y>12</y><z>1</z></matrixSize>
<fieldOfView_mm><x>32</x><y>24</y><z>4</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>11</maximum><center>6</center>
</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""
SIDECAR = {"Modality": "MR", "SliceThickness": 3.5, "SpacingBetweenSlices": 4.0, "EchoTime": 0.1, "Manufacturer": "A"}


def blob(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A bright ball with texture in dark air: float32, 0 to about 1000."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    return (np.random.default_rng(seed).random(shape) * 40 + inside * 700).astype(np.float32)


def write_weights(path: Path, seed: int = 0, legacy: bool = False) -> Path:
    """A tiny network with random weights; `legacy`: in torch's old format, which is no zip file."""
    network, generator = SliceUNet((8, 16), norm_num_groups=4), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    return path


def write_legacy_weights(path: Path, seed: int = 0) -> Path:
    """In torch's old format."""
    return write_weights(path, seed, legacy=True)


def write_nifti(path: Path, seed: int = 0) -> Path:
    """.nii, .nii.gz, or the header .hdr of a pair."""
    kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
    nib.save(kind(blob(SHAPE, seed), AFFINE), path)
    return path


def write_truth(path: Path, seed: int = 0) -> Path:
    """A volume of 1 mm voxels in Hounsfield units, which an evaluation simulates a scan of."""
    nib.save(nib.Nifti1Image(2 * blob((14, 12, 12), seed) - 1000, np.diag([-1.0, 1.0, 1.0, 1.0])), path)
    return path


def write_mgh(path: Path, seed: int = 0) -> Path:
    """.mgh, or .mgz, compressed."""
    nib.save(nib.MGHImage(blob(SHAPE, seed), AFFINE), path)
    return path


def write_sidecar(path: Path, seed: int = 0) -> Path:
    """A NIfTI file with the JSON file of a converter beside it."""
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(SIDECAR), encoding="utf-8")
    return write_nifti(path, seed)


def write_metaimage(path: Path, seed: int = 0) -> Path:
    """.mha, or .mhd with its .raw."""
    image = itk.image_from_array(np.ascontiguousarray(blob(SHAPE, seed).T))
    image.SetSpacing([1.0, 1.0, 4.0])
    itk.imwrite(image, str(path), compression=False)
    return path


def write_nrrd(path: Path, seed: int = 0) -> Path:
    """.nrrd, or .nhdr with its data file."""
    header = {
        "space": "left-posterior-superior", "space directions": np.diag([1.0, 1.0, 4.0]), "space origin": np.zeros(3),
        "kinds": ["domain"] * 3,
    }  # fmt: skip
    nrrd.write(str(path), blob(SHAPE, seed), header)
    return path


def write_dicom(folder: Path, seed: int = 0) -> Path:
    """A folder with a series of single-frame MR images, one a slice."""
    save_series(MetaTensor(torch.from_numpy(blob(SHAPE, seed))[None], affine=torch.from_numpy(AFFINE)), folder)
    for k, file in enumerate(sorted(folder.iterdir())):  # identities and dates that are the same in every run
        ds = dcmread(file)
        ds.StudyInstanceUID = ds.SeriesInstanceUID = ds.FrameOfReferenceUID = f"1.2.3.{seed + 1}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{seed + 1}.{k + 1}"
        ds.SeriesDate = ds.ContentDate = "20200101"
        ds.SeriesTime = ds.ContentTime = "120000"
        ds.save_as(file, enforce_file_format=True)
    return folder


def write_enhanced(folder: Path, seed: int = 0) -> Path:
    """The same as one multi-frame file."""
    files = sorted(write_dicom(folder, seed).iterdir())
    frames = [dcmread(file) for file in files]
    ds, shared, measures, plane = frames[0], Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = ds.PixelSpacing, ds.SliceThickness
    plane.ImageOrientationPatient = ds.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    ds.PerFrameFunctionalGroupsSequence = []
    for frame in frames:
        own, place = Dataset(), Dataset()
        place.ImagePositionPatient = frame.ImagePositionPatient
        own.PlanePositionSequence = [place]
        ds.PerFrameFunctionalGroupsSequence.append(own)
    pixels = b"".join(frame.PixelData for frame in frames)
    ds.SharedFunctionalGroupsSequence, ds.NumberOfFrames, ds.PixelData = [shared], len(frames), pixels
    for keyword in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"):
        del ds[keyword]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for file in files:
        file.unlink()
    ds.save_as(folder / "frames.dcm", enforce_file_format=True)
    return folder


def line_integrals(seed: int = 0) -> np.ndarray:
    """(views, columns, rows) float32, of a disc between columns of air."""
    columns = np.linspace(-1, 1, COLUMNS)
    chord = 1.2 * np.sqrt(np.clip(0.6 - columns**2, 0, None))
    noise = 0.002 * np.random.default_rng(seed).random((VIEWS, COLUMNS, ROWS))
    return (np.broadcast_to(chord[None, :, None], noise.shape) + noise).astype(np.float32)


def write_projections(path: Path, seed: int = 0) -> Path:
    """.npz with its geometry in JSON beside it; a parallel beam."""
    np.savez(path, projections=line_integrals(seed))
    geometry = {
        "beam": "parallel", "angles": [180.0 * i / VIEWS for i in range(VIEWS)], "num_columns": COLUMNS,
        "column_size": 4.0, "num_rows": ROWS, "row_size": 4.0,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(geometry), encoding="utf-8")
    return path


def write_rtk(path: Path, seed: int = 0) -> Path:
    """A stack of projections (.mha) with RTK's geometry (.xml) beside it; a cone beam."""
    image = itk.image_from_array(np.ascontiguousarray(line_integrals(seed).transpose(0, 2, 1)))
    image.SetSpacing([4.0, 4.0, 1.0])
    image.SetOrigin([-2.0 * (COLUMNS - 1), -2.0 * (ROWS - 1), 0.0])
    itk.imwrite(image, str(path))
    views = "".join(
        f"<Projection><GantryAngle>{360 * i / VIEWS:g}</GantryAngle>"
        "<Matrix>-500 0 0 1500 0 -500 0 -900 0 0 1 -300</Matrix></Projection>\n"
        for i in range(VIEWS)
    )
    path.with_suffix(".xml").write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n<RTKThreeDCircularGeometry version="3">\n'
        "<SourceToIsocenterDistance>500</SourceToIsocenterDistance>\n"
        f"<SourceToDetectorDistance>900</SourceToDetectorDistance>\n{views}</RTKThreeDCircularGeometry>\n",
        encoding="utf-8",
    )
    return path


def kspace(seed: int = 0) -> np.ndarray:
    """complex64 (slices, coils, readout, phase) of a bright box, centre at N // 2."""
    rng = np.random.default_rng(seed)
    image = np.zeros((SLICES, 1, READOUT, PHASE), np.complex64)
    image[:, :, 4:-4, 3:-3] = 1 + 0.3 * rng.random((SLICES, 1, READOUT - 8, PHASE - 6))
    coils = np.stack([np.linspace(0.5, 1.5, PHASE), np.linspace(1.5, 0.5, PHASE)])[None, :, None]
    shifted = np.fft.ifftshift(image * coils, (-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), (-2, -1)).astype(np.complex64)


def write_fastmri(path: Path, seed: int = 0) -> Path:
    """k-space with a mask and a header in HDF5, as the fastMRI data set has it."""
    mask = np.ones(PHASE, np.float32)
    mask[[0, 2, 9, 11]] = 0
    with h5py.File(path, "w") as file:
        file["kspace"], file["mask"], file["ismrmrd_header"] = kspace(seed) * mask, mask, HEADER
    return path


def write_ismrmrd(path: Path, seed: int = 0) -> Path:
    """The same as ISMRMRD acquisitions."""
    import ismrmrd  # for this kind alone

    lines, values = [], kspace(seed)
    for z in range(SLICES):
        for line in (i for i in range(PHASE) if i not in (0, 2, 9, 11)):
            one = ismrmrd.Acquisition.from_array(
                np.ascontiguousarray(values[z, :, :, line]), center_sample=READOUT // 2
            )
            one.idx.kspace_encode_step_1, one.idx.slice = line, z
            one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
            one.position[:] = (0.0, 0.0, 4.0 * z)
            lines.append(one)
    with ismrmrd.File(str(path), "w") as file:
        file["dataset"].acquisitions = lines
    with h5py.File(path, "a") as file:
        file["dataset"].create_dataset("xml", data=[HEADER], dtype=h5py.special_dtype(vlen=bytes))
    return path
