"""A marked voxel keeps its place through every format and orientation, by the reading of other libraries.

A file is written by one library, read by ours, and judged by nibabel, ITK or dcm2niix; so is the result made of it.
"""

import itertools
import shutil
import subprocess
import warnings

import itk
import nibabel as nib
import nrrd
import numpy as np
import pytest
from monai.transforms import Compose, Orientationd
from nibabel.affines import apply_affine
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from interslice.files.check import CheckVolumed
from interslice.files.find import FORMATS, SUFFIXES, case_name, list_volumes
from interslice.files.read import LoadVolumed
from interslice.files.source import source_of
from interslice.files.volume_read import READERS
from interslice.files.write import write_nifti
from tests.support.dicom_files import write_series

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (9, 8, 7)
MARKED = (6, 2, 5)
VOXELS = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
VOXELS[MARKED] = 1000
READ = Compose([LoadVolumed("image"), CheckVolumed("image"), Orientationd("image", axcodes="RAS", labels=None)])

TURNS = {"axial": (0, 0, 0), "sagittal": (0, 90, 90), "coronal": (90, 0, 0), "oblique": (10, -8, 25)}
ORDERS = [*itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))]


def grid(turn, axes=(0, 1, 2), signs=(1, 1, 1)):
    """(4, 4), RAS: a grid whose axes run in any order and direction."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ np.diag((0.9, 1.1, 5.0))
    affine[:3, 3] = -20, 11, -3
    return affine @ inv_ornt_aff(ornt_transform(io_orientation(np.eye(4)), list(zip(axes, signs))), SHAPE)


GRIDS = {name: grid(turn) for name, turn in TURNS.items()}
GRIDS |= {f"{name}, left-handed": grid(turn, signs=(-1, 1, 1)) for name, turn in TURNS.items()}
GRIDS |= {f"oblique {axes} {signs}": grid(TURNS["oblique"], axes, signs) for axes, signs in ORDERS[1::7]}


# -- writers: (path without suffix, affine) -> path ----------------------------------------------------
def by_nibabel(suffix, kind=nib.Nifti1Image, axes=(), big=False):
    def write(path, affine):
        header = kind.header_class(endianness=">") if big else None
        image = kind(VOXELS.reshape(SHAPE + axes).astype(np.float32), affine, header)
        nib.save(image, f"{path}{suffix}")
        return path.with_name(path.name + suffix)

    return write


def by_itk(suffix, compressed=False):
    def write(path, affine):
        lps, path = LPS @ affine, path.with_name(path.name + suffix)
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image = itk.image_from_array(np.ascontiguousarray(VOXELS.T))
        image.SetSpacing(spacing)
        image.SetOrigin(lps[:3, 3])
        image.SetDirection(itk.matrix_from_array(lps[:3, :3] / spacing))
        itk.imwrite(image, str(path), compression=compressed)
        return path

    return write


def by_pynrrd(space, signs, suffix=".nrrd", leading=False):
    def write(path, affine):
        there, path = np.diag([*signs, 1.0]) @ affine, path.with_name(path.name + suffix)
        directions = np.vstack([np.full((1 if leading else 0, 3), np.nan), there[:3, :3].T])
        kinds = ["vector"] * leading + ["domain"] * 3
        header = {"space": space, "space directions": directions, "space origin": there[:3, 3], "kinds": kinds}
        nrrd.write(str(path), VOXELS[None] if leading else VOXELS, header)
        return path

    return write


def dicom(path, affine):
    write_series(path, VOXELS, affine)
    return path


FILES = {
    "nii": by_nibabel(".nii"), "nii.gz": by_nibabel(".nii.gz"), "hdr and img": by_nibabel(".hdr", nib.Nifti1Pair),
    "NIfTI-2": by_nibabel(".nii.gz", nib.Nifti2Image), "NIfTI-2 pair": by_nibabel(".hdr", nib.Nifti2Pair),
    "big-endian": by_nibabel(".nii", big=True), "big-endian pair": by_nibabel(".hdr", nib.Nifti1Pair, big=True),
    "trailing axes": by_nibabel(".nii.gz", axes=(1, 1)), "nii by ITK": by_itk(".nii"),
    "mgh": by_nibabel(".mgh", nib.MGHImage), "mgz": by_nibabel(".mgz", nib.MGHImage),
    "nrrd": by_itk(".nrrd"), "gzipped nrrd": by_itk(".nrrd", True), "nhdr": by_itk(".nhdr"),
    "nrrd LPS": by_pynrrd("left-posterior-superior", (-1, -1, 1)), "nrrd RAS": by_pynrrd("RAS", (1, 1, 1)),
    "nrrd LAS": by_pynrrd("left-anterior-superior", (-1, 1, 1)),
    "nrrd of one component": by_pynrrd("LPS", (-1, -1, 1), leading=True),
    "nhdr RAS": by_pynrrd("RAS", (1, 1, 1), ".nhdr"),
    "mha": by_itk(".mha"), "compressed mha": by_itk(".mha", True), "mhd and raw": by_itk(".mhd"),
    "mhd and zraw": by_itk(".mhd", True), "DICOM": dicom,
}  # fmt: skip


# -- judges: where is the marked voxel (mm, RAS)? ------------------------------------------------------
def nibabel_place(path):
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).squeeze()
    return apply_affine(image.affine, np.unravel_index(voxels.argmax(), voxels.shape))


def itk_place(path):
    image = itk.imread(str(path), itk.F)
    voxels = itk.array_from_image(image).T
    marked = np.unravel_index(voxels.argmax(), voxels.shape)
    steps = np.asarray(image.GetDirection()) * np.array(image.GetSpacing())
    return LPS[:3, :3] @ (np.array(image.GetOrigin()) + steps @ marked)


def dcm2niix_place(folder):
    subprocess.run(["dcm2niix", "-z", "n", "-f", "out", "-o", folder.parent, folder], check=True, capture_output=True)
    return nibabel_place(folder.parent / "out.nii")


NOT_BY_ITK = ("NIfTI-2", "NIfTI-2 pair", "trailing axes", "mgh", "mgz", "nrrd of one component")


def judges_of(kind, path):
    """Those that read this kind of file."""
    if kind == "DICOM":
        return [dcm2niix_place] if shutil.which("dcm2niix") else []
    by_nibabel = path.name.endswith((*FORMATS["NIfTI"], *FORMATS["FreeSurfer"]))
    return [nibabel_place] * by_nibabel + [itk_place] * (kind not in NOT_BY_ITK)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("orientation", GRIDS)
def test_a_point_keeps_its_place(tmp_path, kind, orientation):
    affine = GRIDS[orientation]
    path = FILES[kind](tmp_path / "scan", affine)
    place = apply_affine(affine, MARKED)
    for judge in judges_of(kind, path):
        np.testing.assert_allclose(judge(path), place, atol=1e-3, err_msg=judge.__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        volume = READ({"image": str(path)})["image"]
    assert case_name(path) == "scan" and volume.max() == 1000
    marked = np.unravel_index(int(volume[0].argmax()), volume.shape[1:])
    np.testing.assert_allclose(apply_affine(np.asarray(volume.affine), marked), place, atol=1e-3)
    write_nifti(tmp_path / "result.nii", volume, source_of(volume).nifti)
    for judge in (nibabel_place, itk_place):
        np.testing.assert_allclose(judge(tmp_path / "result.nii"), place, atol=1e-3, err_msg=judge.__name__)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("options", ["-z y", "-z n", "-e y"], ids=["nii.gz", "nii", "nrrd"])
@pytest.mark.parametrize("orientation", TURNS)
def test_what_dcm2niix_makes_of_a_series_lies_where_the_series_lies(tmp_path, orientation, options):
    folder = dicom(tmp_path / "series", GRIDS[orientation])
    command = ["dcm2niix", *options.split(), "-f", "made", "-o", tmp_path, folder]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = (v["image"] for v in list_volumes(tmp_path) if case_name(v["image"]) == "made")
    volume = READ({"image": path})["image"]
    marked = np.unravel_index(int(volume[0].argmax()), volume.shape[1:])
    place = apply_affine(GRIDS[orientation], MARKED)
    np.testing.assert_allclose(apply_affine(np.asarray(volume.affine), marked), place, atol=1e-2)


def test_every_suffix_has_its_reader():
    assert READERS.keys() == FORMATS.keys() and len(set(SUFFIXES)) == len(SUFFIXES)


def test_the_halves_of_a_pair_are_one_volume(tmp_path):
    header = FILES["hdr and img"](tmp_path / "scan", GRIDS["oblique"])
    assert list_volumes(tmp_path) == [{"image": str(header)}]
    other = READ({"image": str(tmp_path / "scan.img")})["image"]
    np.testing.assert_array_equal(other, READ({"image": str(header)})["image"])
    assert case_name(tmp_path / "scan.img") == "scan"
