"""DICOM out: read back by other programs in the right place, and derived from its source."""

import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pydicom.uid import CTImageStorage

from interslice import __version__
from interslice.files.deidentify import MODIFIED, REMOVED
from interslice.files.dicom_read import find_stack
from interslice.files.dicom_write import KINDS, rescale_slope, save_series, series_number
from interslice.files.read import LoadVolumed
from tests.support.dicom_files import PATIENT, write_changed, write_enhanced, write_localiser, write_series
from tests.support.scans import INFERENCE, OBLIQUE, thick_voxels

AFFINE = OBLIQUE @ np.diag([-1.0, 1.2, 4.0, 1.0])
FINE = OBLIQUE @ np.diag([-1.0, 1.2, 1.0, 1.0])
VOXELS = np.round(thick_voxels()).astype(int)


def volume(shape=(12, 10, 7), affine=FINE, seed=0, scale=300.0):
    voxels = scale * torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, affine=torch.from_numpy(affine))


def headers(folder):
    return [pydicom.dcmread(p) for p in sorted(folder.iterdir())]


@pytest.fixture
def source(tmp_path):
    write_series(tmp_path / "source", VOXELS, AFFINE)
    return tmp_path / "source"


# -- values and places ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [None, "single", "enhanced"])
def test_our_reader_gets_the_volume_back(tmp_path, kind):
    if kind == "single":
        write_series(tmp_path / "source", VOXELS, AFFINE)
    if kind == "enhanced":
        write_enhanced(tmp_path / "source" / "one.dcm", VOXELS, AFFINE)
    result = volume()
    assert save_series(result, tmp_path / "out", find_stack(tmp_path / "source") if kind else None) == 7
    back = LoadVolumed("image")({"image": str(tmp_path / "out")})["image"]
    np.testing.assert_allclose(back.affine, FINE, atol=1e-6)
    step = float(headers(tmp_path / "out")[0].RescaleSlope)
    assert step == rescale_slope(float(result.abs().max()))
    np.testing.assert_allclose(back, result.as_tensor(), atol=step / 2 * (1 + 1e-6))


@given(st.floats(1e-3, 1e6))
def test_the_step_of_stored_values_is_the_smallest_power_of_two_that_fits(largest):
    slope = rescale_slope(largest)
    assert np.log2(slope) % 1 == 0 and largest / slope <= 32767 < 2 * largest / slope


def test_whole_numbers_come_back_exactly(tmp_path):
    whole = volume().round().clamp(-3000, 3000)
    save_series(whole, tmp_path / "out")
    assert torch.equal(LoadVolumed("image")({"image": str(tmp_path / "out")})["image"].as_tensor(), whole.as_tensor())


def test_an_empty_map_is_written(tmp_path):
    save_series(0 * volume(), tmp_path / "out", suffix="std")
    assert all(not any(ds.PixelData) for ds in headers(tmp_path / "out"))


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_dcm2niix_reads_the_same_volume(tmp_path, modality):
    converter = shutil.which("dcm2niix")
    if converter is None:
        pytest.skip("dcm2niix is not installed (Debian: dcm2niix)")
    result = volume()
    save_series(result, tmp_path / "out", modality=modality)
    (tmp_path / "nifti").mkdir()
    subprocess.run([converter, "-o", str(tmp_path / "nifti"), str(tmp_path / "out")], check=True, capture_output=True)
    (path,) = (tmp_path / "nifti").glob("*.nii")
    theirs = nib.as_closest_canonical(nib.load(path))
    ours = nib.as_closest_canonical(nib.Nifti1Image(result[0].numpy(), FINE))
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-5)
    step = rescale_slope(float(result.abs().max()))
    np.testing.assert_allclose(theirs.get_fdata(), ours.get_fdata(), atol=step)


def as_ct(ds, k):
    """A header of `write_series` as a CT scanner makes it."""
    for keyword in ("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime",
                    "EchoTime", "EchoTrainLength", "FlipAngle", "MagneticFieldStrength"):  # fmt: skip
        del ds[keyword]
    ds.Modality, ds.KVP, ds.ConvolutionKernel, ds.RescaleType, ds.FilterType = "CT", "120", "B30f", "HU", "WEDGE"
    ds.RescaleSlope, ds.RescaleIntercept, ds.GantryDetectorTilt = "1", "-1024", "0"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "single CT", "enhanced", "none", "none CT"])
@pytest.mark.parametrize("dates", [None, REMOVED, MODIFIED])
@pytest.mark.parametrize("suffix", ["recon", "std"])
def test_an_independent_checker_finds_no_error(tmp_path, kind, dates, suffix):
    checker = shutil.which("dciodvfy")
    if checker is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    if kind == "single":
        write_series(tmp_path / "source", VOXELS, AFFINE)
    if kind == "enhanced":
        write_enhanced(tmp_path / "source" / "one.dcm", VOXELS, AFFINE)
    if kind == "single CT":
        write_changed(tmp_path / "source", as_ct, storage=CTImageStorage)
    modality = "CT" if "CT" in kind else "MR"
    origin = None if "none" in kind else tmp_path / "source"
    stack = None if origin is None else find_stack(origin)
    save_series(volume(), tmp_path / "out", stack, suffix=suffix, modality=modality, dates=dates)
    for path in sorted((tmp_path / "out").iterdir())[:2]:
        said = subprocess.run([checker, "-new", str(path)], capture_output=True, encoding="latin-1").stderr
        assert f"{modality}Image" in said.split("\n")  # it knew what it was looking at
        assert not re.findall("(?m)^Error.*", said)


# -- what it is derived from ----------------------------------------------------------------------
def test_patient_study_and_acquisition_are_carried_over(tmp_path, source):
    save_series(volume(), tmp_path / "out", find_stack(source))
    old, new = headers(source)[0], headers(tmp_path / "out")
    carried = [*PATIENT, "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID", "EchoTime", "ScanningSequence",
               "Manufacturer", "MagneticFieldStrength", "AcquisitionDate", "BodyPartExamined"]  # fmt: skip
    for ds in new:
        assert {k: ds[k].value for k in carried} == {k: old[k].value for k in carried}
        assert ds.ImageType[:2] == ["DERIVED", "SECONDARY"] and "not for diagnosis" in ds.DerivationDescription
        assert ds.SeriesDescription == "t2_tse_tra diffusion recon" and ds.SeriesNumber == 9030
        assert ds.ContributingEquipmentSequence[-1].SoftwareVersions == __version__
        assert not [e for e in ds if e.tag.is_private]
        references = {i.ReferencedSOPInstanceUID for i in ds.SourceImageSequence}
        assert references == {h.SOPInstanceUID for h in headers(source)}
    assert len({ds.SOPInstanceUID for ds in new}) == len(new) == 7
    assert {ds.SeriesInstanceUID for ds in new} not in ({old.SeriesInstanceUID}, set())
    assert len({ds.SeriesInstanceUID for ds in new}) == 1
    assert [ds.InstanceNumber for ds in new] == list(range(1, 8))


def test_what_differs_between_slices_is_not_carried_over(tmp_path):
    write_series(tmp_path / "source", VOXELS, AFFINE, slope=0.5)
    for k, path in enumerate(sorted((tmp_path / "source").iterdir())):
        ds = pydicom.dcmread(path)
        ds.WindowCenter, ds.WindowWidth, ds.TriggerTime = 100 + k, 200, 10 * k
        ds.save_as(path)
    save_series(volume(), tmp_path / "out", find_stack(tmp_path / "source"))
    for ds in headers(tmp_path / "out"):
        assert "TriggerTime" not in ds and not 100 <= ds.WindowCenter <= 105
        assert (float(ds.RescaleIntercept), ds.PixelRepresentation) == (0, 1)


@pytest.mark.parametrize(
    ("tag", "kind"), [(0x00000100, ("US", 1)), (0x00020010, ("UI", "1.2")), (0x00041130, ("CS", "A"))]
)
def test_what_belongs_to_no_image_is_not_carried_over(tmp_path, source, tag, kind):
    """A message, a file's own header and a directory have groups of their own, which an archive may leave behind."""
    stack = find_stack(source)
    stack.header.add_new(tag, *kind)
    save_series(volume(), tmp_path / "out", stack)
    assert all(tag not in ds for ds in headers(tmp_path / "out"))


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("stated", ["MONOCHROME1", "MONOCHROME2", "some"])
def test_what_is_in_the_source_s_intensities_is_shown_as_it_is(tmp_path, source, stated, suffix):
    """White is the lowest value of MONOCHROME1; a spread or a difference has its own zero, which stays black."""
    for k, path in enumerate(sorted(source.iterdir())):
        ds = pydicom.dcmread(path)
        ds.PhotometricInterpretation = stated if stated != "some" else f"MONOCHROME{1 + k % 2}"
        ds.save_as(path)
    values = LoadVolumed("image")({"image": str(source)})["image"]
    save_series(volume(), tmp_path / "out", find_stack(source), suffix=suffix)
    inverted = stated == "MONOCHROME1" and suffix in ("recon", "measured")
    assert {ds.PhotometricInterpretation for ds in headers(tmp_path / "out")} == {f"MONOCHROME{1 if inverted else 2}"}
    np.testing.assert_array_equal(values[0], VOXELS)  # the numbers are read as they stand
    back = LoadVolumed("image")({"image": str(tmp_path / "out")})["image"]
    assert torch.allclose(back.as_tensor(), volume().as_tensor(), atol=0.1)


@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from(list(KINDS)))
def test_every_series_number_has_one_that_fits(source, suffix):
    number = series_number(source, suffix)
    assert -(2**31) <= number < 2**31 and len({series_number(source, k) for k in KINDS}) == len(KINDS)
    if abs(source) < 2 * 10**8:
        assert number == 9000 + 10 * source + list(KINDS).index(suffix)


def test_a_series_numbered_by_its_time_is_written(tmp_path, source):
    for path in source.iterdir():
        ds = pydicom.dcmread(path)
        ds.SeriesNumber = 2026112616
        ds.save_as(path)
    save_series(volume(), tmp_path / "out", find_stack(source))
    assert {ds.SeriesNumber for ds in headers(tmp_path / "out")} == {261135160}


def test_volumes_of_a_case_without_a_source_share_a_study(tmp_path):
    for suffix in ("recon", "std"):
        save_series(volume(), tmp_path / suffix, suffix=suffix)
    recon, std = (headers(tmp_path / s)[0] for s in ("recon", "std"))
    assert recon.StudyInstanceUID == std.StudyInstanceUID and recon.FrameOfReferenceUID == std.FrameOfReferenceUID
    assert recon.SeriesInstanceUID != std.SeriesInstanceUID and recon.SeriesNumber != std.SeriesNumber
    assert recon.PatientName == "" and "SourceImageSequence" not in recon


def test_a_second_run_replaces_the_series_with_new_identities(tmp_path):
    save_series(volume(), tmp_path / "out")
    first = {ds.SOPInstanceUID for ds in headers(tmp_path / "out")}
    save_series(volume((12, 10, 5)), tmp_path / "out")
    second = {ds.SOPInstanceUID for ds in headers(tmp_path / "out")}
    assert len(second) == 5 and not first & second


# -- refused --------------------------------------------------------------------------------------
def test_sheared_axes_and_nan_are_refused_and_nothing_is_written(tmp_path):
    sheared = FINE.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 0]
    with pytest.raises(
        ValueError, match="off right angles.* perpendicular .*: write --output_format nifti, or resample"
    ):
        save_series(volume(affine=sheared), tmp_path / "out")
    broken = volume()
    broken[0, 3, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        save_series(broken, tmp_path / "out")
    with pytest.raises(ValueError, match=r"modality must be one of \['CT', 'MR'\], got 'PT'"):
        save_series(volume(), tmp_path / "out", modality="PT")
    assert list(tmp_path.iterdir()) == []


# -- a run ----------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("output_format", "nifti", "dicom"), [("dicom", 0, 2), ("both", 2, 2), ("nifti", 2, 0)])
def test_a_run_writes_the_formats_that_are_asked_for(
    output_format, nifti, dicom, run_here, tiny_overrides, tmp_path, source
):
    run_here("inference", INFERENCE, tiny_overrides(source, output_format=output_format, num_draws=2))
    case = tmp_path / "results" / "source"
    assert len(list(case.glob("*.nii.gz"))) == nifti
    folders = [p for p in case.iterdir() if p.is_dir()]
    assert len(folders) == dicom
    for folder in folders:
        assert len(list(folder.iterdir())) == 24
    if output_format == "both":
        theirs = LoadVolumed("image")({"image": str(case / "source_recon")})["image"]
        ours = nib.load(case / "source_recon.nii.gz")
        np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)
        np.testing.assert_allclose(theirs[0], ours.get_fdata(), atol=1.1 / 32767 * ours.get_fdata().max())
        assert headers(case / "source_recon")[0].PatientID == "P4711"


@pytest.mark.parametrize("kind", ["single", "enhanced"])
def test_a_folder_is_searched_once_and_what_it_holds_is_said_once(
    kind, run_here, tiny_overrides, tmp_path, monkeypatch, capfd
):
    """A run reads its input twice and writes two series that refer to it: headers are parsed in the search alone."""
    folder = tmp_path / "source"
    if kind == "single":
        write_series(folder, VOXELS, AFFINE)
    else:
        write_enhanced(folder / "one.dcm", VOXELS, AFFINE)
    write_localiser(folder)
    parsed, pixels = [], []

    def counted(path, *arguments, **options):
        (parsed if options.get("stop_before_pixels") else pixels).append(path)
        return read(path, *arguments, **options)

    read = pydicom.dcmread
    monkeypatch.setattr("interslice.files.dicom_stack.pydicom.dcmread", counted)
    run_here("inference", INFERENCE, tiny_overrides(folder, output_format="dicom", num_draws=2))
    files = 6 if kind == "single" else 1
    assert len(parsed) == len(set(parsed)) == files + 3
    assert len(pixels) == 2 * files
    assert capfd.readouterr().err.count("left out") == 1
