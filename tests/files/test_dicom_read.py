"""DICOM in: whatever the files are called, the right slices in the right order and place, or a clear refusal."""

import copy
import json
import re

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import decollate_batch, list_data_collate
from pydicom.uid import EnhancedMRImageStorage, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from interslice.files.check import check_volume
from interslice.files.dicom_read import find_stack
from interslice.files.find import list_volumes
from interslice.files.read import LoadVolumed
from interslice.files.source import source_of
from tests.support.dicom_files import header, save, write_enhanced, write_localiser, write_series
from tests.support.scans import INFERENCE, OBLIQUE, head_voxels, thick_voxels, write_volume

AFFINE = OBLIQUE @ np.diag([-1.0, 1.2, 4.0, 1.0])
VOXELS = np.round(thick_voxels()).astype(int)


def load(source, **options):
    return LoadVolumed("image", **options)({"image": str(source)})["image"]


# -- order, place, values -------------------------------------------------------------------------
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    angles=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
    size=st.tuples(st.floats(0.3, 2), st.floats(0.3, 2), st.floats(2, 9)),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_any_orientation_is_read_in_place(tmp_path_factory, angles, size, origin):
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(*angles) @ np.diag(size), origin)
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, VOXELS, affine)
    image = load(folder)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(image[0], VOXELS)


def test_slices_that_were_taken_the_other_way_lie_where_they_were(tmp_path):
    """A left-handed numbering: the first slice is the highest. The reader's order ascends; the places are the same."""
    down = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    write_series(tmp_path, VOXELS, down)
    image = load(tmp_path)
    np.testing.assert_array_equal(image[0], VOXELS[:, :, ::-1])
    np.testing.assert_allclose(image.affine.numpy() @ [0, 0, 5, 1], down @ [0, 0, 0, 1], atol=1e-5)


def test_each_slice_is_rescaled_by_its_own_header(tmp_path):
    write_series(tmp_path, VOXELS, AFFINE, slope=0.5)
    k = np.arange(6)
    np.testing.assert_allclose(load(tmp_path)[0], VOXELS * (k + 1) * 0.5 - k, rtol=1e-6)


def test_a_multi_frame_file_is_read_like_single_frames(tmp_path):
    write_enhanced(tmp_path / "series" / "one.dcm", VOXELS, AFFINE, thickness=3.0)
    for source in (tmp_path / "series", tmp_path / "series" / "one.dcm"):
        image = load(source)
        np.testing.assert_array_equal(image[0], 2 * VOXELS - np.arange(6))
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
        assert image.meta["slice_thickness"] == 3.0


def test_multi_frame_files_of_one_frame_each_are_read_like_single_frames(tmp_path):
    square = np.round(head_voxels((18, 18, 6))).astype(int)
    uid = "1.2.3.4.5.6"
    for k in range(6):
        affine = AFFINE.copy()
        affine[:3, 3] = (AFFINE @ [0, 0, k, 1])[:3]
        ds = write_enhanced(tmp_path / f"{k}.dcm", square[:, :, k : k + 1], affine)
        ds.SeriesInstanceUID = uid
        save(ds, tmp_path / f"{k}.dcm", EnhancedMRImageStorage)
    np.testing.assert_array_equal(load(tmp_path)[0], 2 * square)


@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_the_high_bits_are_no_intensities(tmp_path, signed):
    voxels = VOXELS - 100 * signed
    for k, ds in enumerate(write_series(tmp_path, VOXELS, AFFINE)):
        pixels = np.ascontiguousarray(voxels[:, :, k].T).astype("<i2").view("<u2") & 0x0FFF
        pixels[:3] |= 0x1000
        ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = pixels.tobytes(), 12, 11, int(signed)
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    np.testing.assert_array_equal(load(tmp_path)[0], voxels)


def test_volumes_of_other_formats_are_read_as_before(tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), AFFINE)
    image = load(path)
    np.testing.assert_array_equal(image[0], thick_voxels())
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEG2000Lossless], ids=lambda s: s.name)
def test_compressed_pixels_are_decoded(tmp_path, syntax):
    write_series(tmp_path, VOXELS, AFFINE)
    for path in tmp_path.iterdir():
        compress(path, syntax)
    assert {pydicom.dcmread(p).file_meta.TransferSyntaxUID for p in tmp_path.iterdir()} == {syntax}
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)


def compress(path, syntax):
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def test_directions_that_differ_by_rounding_are_one_stack(tmp_path):
    """As some scanners write them: the last digits of the direction cosines change from slice to slice."""
    for k, ds in enumerate(write_series(tmp_path, VOXELS, AFFINE)):
        ds.ImageOrientationPatient = [f"{v + (-1) ** k * 2e-5:.6f}" for v in ds.ImageOrientationPatient]
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)


# -- which of many --------------------------------------------------------------------------------
def test_a_localiser_and_other_files_are_left_out_and_named(tmp_path, capfd):
    write_series(tmp_path, VOXELS, AFFINE)
    write_localiser(tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    report = header(number=9)
    report.Modality, report.SOPInstanceUID = "SR", "1.2.3.99"
    save(report, tmp_path / "report.dcm")
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)
    said = capfd.readouterr().err
    assert re.search(r"reading series 3 't2_tse_tra', 6 images.*; left out", said)
    assert said.count("series 1 'localizer', 1 images, ORIGINAL/PRIMARY/LOCALIZER") == 3


def test_two_series_have_to_be_told_apart_by_number_or_uid(tmp_path):
    first = write_series(tmp_path, VOXELS, AFFINE, number=3)
    write_series(tmp_path, VOXELS[:, :, :4] + 1, AFFINE, number=4, description="t1")
    with pytest.raises(ValueError, match="(?s)holds 2 stacks of slices; name one by --series.*series 3.*series 4 't1'"):
        load(tmp_path)
    np.testing.assert_array_equal(load(tmp_path, series=4)[0], VOXELS[:, :, :4] + 1)
    np.testing.assert_array_equal(load(tmp_path, series=str(first[0].SeriesInstanceUID))[0], VOXELS)
    with pytest.raises(ValueError, match="no series number or UID 7 of at least 3 parallel MR or CT slices; found"):
        load(tmp_path, series=7)


def test_echoes_of_one_series_are_stacks_of_their_own(tmp_path):
    headers = write_series(tmp_path, VOXELS, AFFINE)
    for k, ds in enumerate(headers):
        other = copy.deepcopy(ds)
        other.SOPInstanceUID, other.EchoTime = f"1.2.9.{k}", "200"
        save(other, tmp_path / f"echo{k}.dcm")
    with pytest.raises(ValueError, match="holds 2 stacks of slices"):
        find_stack(tmp_path)


# -- refused --------------------------------------------------------------------------------------
def test_missing_slices_are_found_and_placed(tmp_path):
    write_series(tmp_path, np.concatenate([VOXELS, VOXELS], 2), np.diag([1.0, 1.0, 4.0, 1.0]), skip=(3, 4, 8))
    with pytest.raises(ValueError, match="3 slices are missing, between 8.00 and 20.00 mm, 28.00 and 36.00 mm .*4.00"):
        load(tmp_path)


def test_uneven_slices_are_refused(tmp_path):
    headers = write_series(tmp_path, VOXELS, np.diag([1.0, 1.0, 4.0, 1.0]))
    headers[2].ImagePositionPatient = ["0", "0", "9"]
    for k, ds in enumerate(headers):
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    with pytest.raises(ValueError, match="slices are not evenly spaced, between 4.00 and 9.00 mm"):
        load(tmp_path)


def test_several_images_at_one_place_are_refused(tmp_path):
    for k, ds in enumerate(write_series(tmp_path, VOXELS, AFFINE)):
        again = copy.deepcopy(ds)
        again.SOPInstanceUID = f"1.2.9.{k}"
        save(again, tmp_path / f"again{k}.dcm")
    with pytest.raises(ValueError, match="share a place with another.*several time points"):
        load(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path):
    headers = write_series(tmp_path, VOXELS, np.diag([1.0, 1.0, 4.0, 1.0]))
    for k, ds in enumerate(headers):
        ds.ImagePositionPatient = ["0", f"{k}", f"{4 * k}"]
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    with pytest.raises(ValueError, match="14.0 degrees off a right angle .* --resample_shear yes"):
        check_volume(load(tmp_path))


def test_slices_off_their_line_are_refused(tmp_path):
    for k, ds in enumerate(write_series(tmp_path, VOXELS, np.diag([1.0, 1.0, 4.0, 1.0]))):
        ds.ImagePositionPatient = ["0", f"{(k - 2) ** 2}", f"{4 * k}"]
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    with pytest.raises(ValueError, match=r"slices lie up to \d\.\d\d mm off a straight line"):
        load(tmp_path)


def test_truncated_pixels_are_named(tmp_path):
    write_series(tmp_path, VOXELS, AFFINE)
    path = next(tmp_path.glob("*_000.dcm"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match="_000.dcm: the pixels cannot be decoded"):
        load(tmp_path)


def test_a_folder_without_a_stack_says_what_was_there(tmp_path):
    write_localiser(tmp_path)
    with pytest.raises(ValueError, match="(?s)no series of at least 3 parallel MR or CT slices; found.*localizer"):
        load(tmp_path)


def test_slices_that_the_header_counts_and_the_folder_lacks_are_said(tmp_path, capfd):
    for k, ds in enumerate(write_series(tmp_path, VOXELS, AFFINE)):
        ds.ImagesInAcquisition = 8
        save(ds, tmp_path / f"3_{(7 * k) % 101:03d}.dcm")
    load(tmp_path)
    assert "6 images, ORIGINAL/PRIMARY/M, but its header speaks of 8: slices at the ends" in capfd.readouterr().err


# -- a run ----------------------------------------------------------------------------------------
def test_a_folder_of_series_is_a_folder_of_cases(tmp_path):
    for name in ("b", "a"):
        write_series(tmp_path / name, VOXELS, AFFINE)
    write_enhanced(tmp_path / "c" / "one.dcm", VOXELS, AFFINE)
    assert list_volumes(tmp_path) == [{"image": str(tmp_path / name)} for name in "abc"]


def test_the_thickness_of_the_header_reaches_the_operator(run_here, tiny_overrides, tmp_path):
    """Slices 4 mm apart and 3 mm thick: the mean of three fine voxels of every four is the measured value."""
    fine = head_voxels((20, 18, 24))
    thick = np.round(fine.reshape(20, 18, 6, 4)[..., :3].mean(-1)).astype(int)
    write_series(tmp_path / "scan", thick, np.diag([1.0, 1.0, 4.0, 1.0]), thickness=3.0)
    run_here("inference", INFERENCE, tiny_overrides(tmp_path / "scan"))
    recon = nib.load(tmp_path / "results" / "scan" / "scan_recon.nii.gz")
    assert recon.shape == (20, 18, 23)
    means = np.stack([recon.get_fdata()[..., k : k + 3].mean(-1) for k in range(0, 23, 4)], -1)
    np.testing.assert_allclose(means, thick, atol=1e-3 * thick.max())
    np.testing.assert_allclose(recon.affine[2, 3], -1.0, atol=1e-5)  # slice 0 is centred at 0 and 3 mm thick
    record = json.loads((tmp_path / "results" / "scan" / "run.json").read_text(encoding="utf-8"))
    assert record["input_shape"] == [20, 18, 6]


def test_a_bad_series_is_skipped_and_the_others_are_done(run_here, tiny_overrides, tmp_path):
    write_series(tmp_path / "scans" / "good", VOXELS, AFFINE)
    write_series(tmp_path / "scans" / "holes", VOXELS, AFFINE, skip=(2,))
    with pytest.raises(SystemExit, match="1 of 2 volumes have no result:(?s:.*)1 slices are missing"):
        run_here("inference", INFERENCE, tiny_overrides(tmp_path / "scans"))
    assert (tmp_path / "results" / "good" / "good_recon.nii.gz").is_file()


def test_a_loader_that_is_asked_for_the_metadata_too_gives_the_stack_with_them(tmp_path):
    write_series(tmp_path, np.round(thick_voxels()), OBLIQUE)
    load = LoadVolumed("image")
    load._loader.image_only = False  # as MONAI Label sets it
    loaded = load({"image": str(tmp_path)})
    assert loaded["image_meta_dict"]["source"].dicom is source_of(loaded["image"]).dicom is not None


def test_a_series_in_a_batch_with_a_file_of_another_kind_stays_a_series(tmp_path):
    write_series(tmp_path / "series", np.round(thick_voxels()), OBLIQUE)
    write_volume(tmp_path / "scan.nii.gz", thick_voxels())
    load = LoadVolumed("image")
    items = [load({"image": str(path)})["image"] for path in (tmp_path / "scan.nii.gz", tmp_path / "series")]
    file, series = decollate_batch(list_data_collate(items))
    assert source_of(file).dicom is None and source_of(series).dicom is source_of(items[1]).dicom is not None
