"""Folders as discs and archives give them: every file belongs to a scan, or is left out with its reason."""

import copy
import shutil

import nibabel as nib
import numpy as np
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import CTImageStorage, generate_uid

from interslice.files.cases import Cases
from interslice.files.dicom_read import find_stack
from interslice.files.dicom_search import linked, search
from interslice.files.dicom_slice import is_dicom
from interslice.files.find import find_volumes
from interslice.files.read import LoadVolumed
from interslice.files.source import source_of
from tests.support.dicom_files import save
from tests.support.dicom_files import write_changed as write
from tests.support.scans import INFERENCE, OBLIQUE, thick_voxels, write_volume

AFFINE = OBLIQUE @ np.diag([-1.0, 1.2, 4.0, 1.0])
STRAIGHT = np.diag([1.0, 1.0, 4.0, 1.0])
VOXELS = np.round(thick_voxels()).astype(int)


def load(source, **options):
    return LoadVolumed("image", **options)({"image": str(source)})["image"]


def without(*keywords):
    def edit(ds, _):
        for keyword in keywords:
            delattr(ds, keyword)

    return edit


def without_preamble(path, meta=True):
    """The file as old ones are: no 128 bytes and "DICM"; `meta`: with the group that says how it is encoded."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    path.write_bytes(content[132:] if meta else content[144 + length :])


# -- a folder of studies ----------------------------------------------------------------------------
def test_every_study_of_an_archive_is_found(run_here, tiny_overrides, tmp_path, capfd):
    studies = tmp_path / "studies"
    write(studies / "flat")
    write(studies / "disc" / "DICOM" / "ST000000" / "SE000001")
    write(studies / "disc" / "DICOM" / "ST000000" / "SE000002", number=4)
    (studies / "disc" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(8))
    write(studies / "old")
    write(studies / "masked")
    write_volume(studies / "masked" / "lesion.nii.gz", thick_voxels())
    for path in (studies / "old").iterdir():
        without_preamble(path)
    write_volume(studies / "scan.nii.gz", thick_voxels(), STRAIGHT)
    write_volume(studies / "notes" / "template.nii.gz", thick_voxels())
    run_here("inference", INFERENCE, tiny_overrides(studies))
    names = ["disc_DICOM_ST000000_SE000001", "disc_DICOM_ST000000_SE000002", "flat", "masked", "old", "scan"]
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == names
    masked, flat = (nib.load(tmp_path / "results" / n / f"{n}_recon.nii.gz").get_fdata() for n in ("masked", "flat"))
    np.testing.assert_array_equal(masked, flat)
    said = capfd.readouterr().err
    assert (
        "1 file: of another format beside a DICOM series; to reconstruct it, name the file itself (lesion.nii.gz)"
        in said
    )
    assert f"left out {studies / 'notes'}: 1 volumes in a folder inside" in said
    assert "6 reconstructed, 0 finished before, 0 skipped, 0 failed, 1 left out" in said


def test_a_disc_with_its_index_is_read_as_another_library_wrote_it(tmp_path):
    disc = FileSet()
    for number in (3, 4):
        write(tmp_path / f"made{number}", number=number)
        for path in sorted((tmp_path / f"made{number}").iterdir()):
            disc.add(path)
    disc.write(tmp_path / "disc")
    for source in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        cases = Cases(str(source), LoadVolumed("image"), reader=LoadVolumed("image"), output_dir=str(tmp_path / "out"))
        assert len(cases.usable) == 2 and not cases.refused and not cases.left_out
        for item in cases.usable:
            np.testing.assert_array_equal(LoadVolumed("image")(item)["image"][0], VOXELS)


@pytest.mark.parametrize("meta", [True, False])
def test_files_without_preamble_are_read(tmp_path, meta):
    write(tmp_path)
    for path in tmp_path.iterdir():
        without_preamble(path, meta)
    image = load(tmp_path)
    np.testing.assert_array_equal(image[0], VOXELS)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(
    "start", [[8, 0, 4, 0], [2, 0, 0, 0], [8, 22, 18773, 4], [8, 96, 21315, 2], [2, 16, 0, 0], [8, 5, 10, 0]]
)
def test_raw_voxels_are_no_dicom(tmp_path, start):
    path = tmp_path / "scan.raw"
    path.write_bytes(np.array([*start, *range(500)], "<u2").tobytes())
    assert not is_dicom(path)


def test_parts_of_a_series_in_several_folders_are_put_together(tmp_path):
    """As on discs of so many files per folder: no part passes for the whole."""
    write(tmp_path / "disc" / "0000", voxels=np.dstack([VOXELS, VOXELS]))
    write(tmp_path / "disc" / "0000" / "x", number=4, voxels=VOXELS + 1)
    (tmp_path / "disc" / "0001").mkdir()
    for name in ("10", "11"):
        (tmp_path / "disc" / "0000" / name).rename(tmp_path / "disc" / "0001" / name)
    cases = Cases(str(tmp_path / "disc"), LoadVolumed("image"), reader=LoadVolumed("image"), output_dir=str(tmp_path))
    assert [item["case"] for item in cases.usable] == ["0000", "0000_x"]
    image = LoadVolumed("image")(cases.usable[0])["image"]
    np.testing.assert_array_equal(image[0], np.dstack([VOXELS, VOXELS]))
    assert image.meta["case"] == "0000" and source_of(image).dicom is cases.usable[0]["image"]


def test_copies_of_a_series_in_two_folders_are_two_cases(tmp_path):
    write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert [len(s.stacks) for s in linked(map(search, (tmp_path / "a", tmp_path / "b")))] == [1, 1]


def part_of(source, target, names):
    target.mkdir(parents=True)
    for name in names:
        shutil.copy(source / f"{name:02d}", target)


def loaded(root):
    """{case: voxels} of all that is usable."""
    cases = Cases(str(root), LoadVolumed("image"), reader=LoadVolumed("image"), output_dir=str(root / "out"))
    assert not cases.refused
    return {item["case"]: LoadVolumed("image")(dict(item))["image"][0] for item in cases.usable}


@pytest.mark.parametrize(
    "parts",
    [
        {"a": range(6), "b": range(5, 12)},  # one slice in both
        {"a": range(6), "b": range(6, 12), "c": range(6)},  # a part that was copied
        {"a": range(6), "a2": range(6), "b": range(6, 12)},
        {"a": (0, 3, 4, 9), "b": (1, 2, 5, 6), "c": (7, 8, 10, 11)},  # as file names fall
    ],
    ids=["overlap", "copy after", "copy between", "scattered"],
)
def test_parts_of_a_series_are_never_taken_for_the_whole(tmp_path, parts, capfd):
    whole = np.dstack([VOXELS, VOXELS + 1])
    write(tmp_path / "source", voxels=whole)
    for name, places in parts.items():
        part_of(tmp_path / "source", tmp_path / "disc" / name, places)
    cases = Cases(str(tmp_path / "disc"), LoadVolumed("image"), reader=LoadVolumed("image"), output_dir=str(tmp_path))
    (item,) = cases.usable
    np.testing.assert_array_equal(LoadVolumed("image")(dict(item))["image"][0], whole)
    if sum(map(len, parts.values())) > 12:
        assert "a copy of another" in capfd.readouterr().err


def test_two_scans_of_one_series_that_reach_into_each_other_stay_two(tmp_path):
    """As of an anonymiser that gives all series one UID: half a slice apart, they would make one of half steps."""
    uid = generate_uid()
    for name, shift in (("a", 0.0), ("b", 2.0)):
        affine = STRAIGHT.copy()
        affine[2, 3] = shift
        write(tmp_path / name, lambda ds, k: setattr(ds, "SeriesInstanceUID", uid), affine=affine)
    assert {case: v.shape for case, v in loaded(tmp_path).items()} == {"a": VOXELS.shape, "b": VOXELS.shape}


def test_the_series_that_is_asked_for_need_not_be_in_every_folder(tmp_path, capfd):
    write(tmp_path / "disc" / "a", number=3)
    write(tmp_path / "disc" / "b", number=4)
    reader = LoadVolumed("image", series=4)
    cases = Cases(str(tmp_path / "disc"), reader, reader=reader, output_dir=str(tmp_path))
    assert [item["case"] for item in cases.usable] == ["b"] and not cases.refused
    assert cases.left_out == {str(tmp_path / "disc" / "a"): "no series 4"}
    cases.finish()  # which ends nothing
    reader = LoadVolumed("image", series=5)
    with pytest.raises(ValueError, match="(?s)no usable volume.*no series number or UID 5"):
        Cases(str(tmp_path / "disc"), reader, reader=reader, output_dir=str(tmp_path))


def test_links_in_circles_end(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert [item["case"] for item in find_volumes(tmp_path).items] == ["a"]


def test_results_inside_of_the_source_are_not_read_again(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "results" / "a" / "a_recon")
    assert [item["case"] for item in find_volumes(tmp_path, results=tmp_path / "results").items] == ["a"]


# -- files beside -------------------------------------------------------------------------------------
def test_every_file_is_accounted_for(tmp_path, capfd):
    headers = write(tmp_path)
    shutil.copy(tmp_path / "02", tmp_path / "02 (1)")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "torn.dcm").write_bytes(b"no DICOM at all")
    (tmp_path / "readme.txt").write_text("no DICOM")
    for name, edit in {
        "report": {"Modality": "SR"}, "picture": {"SamplesPerPixel": 3}, "flat": {"PixelSpacing": ["1", "nan"]},
        "skew": {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]},
    }.items():  # fmt: skip
        ds = copy.deepcopy(headers[0])
        ds.SOPInstanceUID = generate_uid()
        for keyword, value in edit.items():
            setattr(ds, keyword, value)
        save(ds, tmp_path / name)
    found = search(tmp_path)
    assert {p.name for files in found.left_out.values() for p in files} == {p.name for p in tmp_path.iterdir()} - {
        f"{k:02d}" for k in range(6)
    }
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)
    said = capfd.readouterr().err
    for line in (
        "1 file: a copy of another (02 (1))", "1 file: empty, a copy that was cut off perhaps (empty.dcm)",
        "1 file: no DICOM, damaged perhaps (torn.dcm)", "1 file: no DICOM (readme.txt)",
        "1 file: no MR or CT, but SR (report)", "1 file: a picture in colours (picture)",
        "1 file: PixelSpacing is 1\\nan; it must be two lengths in mm (flat)",
        "1 file: ImageOrientationPatient is 1\\0\\0\\1\\0\\0; it must be two directions at a right angle (skew)",
    ):  # fmt: skip
        assert line in said


def test_dicom_without_images_does_not_hide_volumes(tmp_path):
    report = write(tmp_path / "made")[0]
    report.Modality = "SR"
    (tmp_path / "in").mkdir()
    save(report, tmp_path / "in" / "report.dcm")
    write_volume(tmp_path / "in" / "scan.nii.gz", thick_voxels())
    found = find_volumes(tmp_path / "in")
    assert [item["case"] for item in found.items] == ["scan"]
    assert found.left_out == {str(tmp_path / "in" / "report.dcm"): "DICOM, but no image of MR or CT"}


def test_dicom_does_not_hide_measurements_of_another_kind(tmp_path):
    write(tmp_path / "in")
    (tmp_path / "in" / "brain.h5").write_bytes(b"x")
    assert [i["case"] for i in find_volumes(tmp_path / "in", (".h5",), dicom=False).items] == ["brain"]


def test_a_slice_that_is_a_link_to_nothing_is_named(tmp_path, capfd):
    write(tmp_path)
    (tmp_path / "05").unlink()
    (tmp_path / "05").symlink_to(tmp_path / "nothing")
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS[:, :, :5])
    assert "1 file: a link to nothing (05)" in capfd.readouterr().err


def test_a_number_that_is_none_is_named_with_its_attribute(tmp_path):
    write(tmp_path)
    for path in tmp_path.iterdir():  # pydicom would not write it
        path.write_bytes(path.read_bytes().replace(b"DS\x02\x004 ", b"DS\x02\x004,"))
    with pytest.raises(ValueError, match="6 files: SliceThickness is no number .*4,"):
        find_stack(tmp_path)


def test_a_changed_copy_is_no_copy(tmp_path):
    headers = write(tmp_path)
    headers[2].PixelData = bytes(len(headers[2].PixelData))
    save(headers[2], tmp_path / "02 (1)")
    with pytest.raises(ValueError, match=r"02, 02 \(1\) have one SOPInstanceUID.* and different pixels"):
        find_stack(tmp_path)


def test_a_copy_in_another_encoding_is_a_copy(tmp_path):
    headers = write(tmp_path)
    headers[2].ContentTime = "235959"  # as archives change it
    save(headers[2], tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)


# -- headers that lack something ------------------------------------------------------------------------
@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "Modality", "SeriesNumber", "ImageType"])
def test_what_need_not_be_there_is_not_missed(tmp_path, keyword):
    write(tmp_path, without(keyword))
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        (["ImageOrientationPatient"], "6 files: ImageOrientationPatient is missing"),
        (["PixelSpacing"], "6 files: PixelSpacing is missing"),
        (["ImagePositionPatient"], "ImagePositionPatient is missing, so that nothing says where the slices lie"),
        (["Rows"], "6 files: no image"),
    ],
)
def test_what_must_be_there_is_named(tmp_path, keywords, words):
    write(tmp_path, without(*keywords))
    with pytest.raises(ValueError, match=words):
        find_stack(tmp_path)


def test_frames_without_places_are_named(tmp_path):
    def edit(ds, k):
        ds.NumberOfFrames, ds.PixelData = 6, VOXELS.transpose(2, 1, 0).astype("<u2").tobytes()

    write(tmp_path, edit, storage=CTImageStorage)
    with pytest.raises(ValueError, match="several frames, and nothing says where they lie"):
        find_stack(tmp_path)


@pytest.mark.parametrize("position", [["nan", "0", "0"], ["inf", "0", "0"], None, ["1", "2"]])
@pytest.mark.parametrize("k", [0, 2, 5])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_one_slice_without_a_place_is_named(tmp_path, position, k):
    """At an end it would leave no hole, and inside it would put slices in the wrong order."""
    write(tmp_path, lambda ds, j: setattr(ds, "ImagePositionPatient", position) if j == k else None)
    with pytest.raises(ValueError, match=f"ImagePositionPatient of {k:02d} is (nan|inf|missing).*repair the header"):
        find_stack(tmp_path)
