"""Files that are not what their suffix says, and those that no reader takes: read, or refused in plain words."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from interslice.files.check import check_volume
from interslice.files.read import LoadVolumed
from interslice.files.scan import unreadable
from interslice.files.volume_read import READERS
from tests.support.scans import thick_voxels

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])


def load(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


SCAN = nib.Nifti1Image(thick_voxels(), AFFINE).to_bytes()
MISNAMED = {
    "plain .nii.gz": ("scan.nii.gz", SCAN),
    "compressed .nii": ("scan.nii", gzip.compress(SCAN)),
    "plain .mgz": ("scan.mgz", nib.MGHImage(thick_voxels(), AFFINE).to_bytes()),
    "compressed .mgh": ("scan.mgh", gzip.compress(nib.MGHImage(thick_voxels(), AFFINE).to_bytes())),
    "capitals": ("SCAN.NII.GZ", gzip.compress(SCAN)),
}


@pytest.mark.parametrize(("name", "content"), MISNAMED.values(), ids=MISNAMED)
def test_the_content_says_whether_it_is_compressed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    volume = load(tmp_path / name)
    np.testing.assert_array_equal(volume[0], thick_voxels())
    np.testing.assert_array_equal(volume.affine, AFFINE)


def colours():
    voxels = np.zeros((6, 5, 4), [(c, "u1") for c in "RGB"])
    voxels["R"] = 7
    return nib.Nifti1Image(voxels, AFFINE).to_bytes()


def without_geometry():
    content = bytearray(nib.MGHImage(thick_voxels(), AFFINE).to_bytes())
    content[28:30] = bytes(2)
    return bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n"
NRRD = (
    b"NRRD0004\ntype: float\ndimension: 3\nsizes: 20 18 6\nencoding: gzip\nendian: little\n"
    b"space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,4)\nspace origin: (0,0,0)\n\n"
) + gzip.compress(np.asfortranarray(thick_voxels()).tobytes("F"))
REFUSED = {
    "colours": ("scan.nii", colours(), r"the voxels are colours \(RGB\); save the volume in grey values"),
    "no NIfTI": ("scan.nii.gz", gzip.compress(b"not a scan" * 99), "this is no NIfTI file"),
    "empty": ("scan.nii", b"", "the file is empty: copy or download it again"),
    "an empty mha": ("scan.mha", b"", "the file is empty"),
    "a page of the web": ("scan.nii.gz", b"<!DOCTYPE html>\n<html>" * 30, "no volume, but text .* '<!DOCTYPE html>'"),
    "a page as NRRD": ("scan.nrrd", b"\n<html><head>" * 30, "no volume, but text that begins with '<html><head>'"),
    "words": ("scan.mgz", b"404: not found", "no volume, but text that begins with '404: not found'"),
    "a pointer": ("scan.nii.gz", LFS, r"a pointer whose data were not fetched by Git LFS \(git lfs pull\)"),
    "a pointer as NRRD": ("scan.nrrd", LFS, "a pointer whose data were not fetched by Git LFS"),
    "a pointer of git-annex": ("scan.mha", b"/annex/objects/SHA256E-s9--0a.mha\n", "not fetched by git-annex"),
    "a gzipped NRRD cut short": ("scan.nrrd", NRRD[:-90], "truncated or damaged"),
    "Analyze 7.5": (
        "scan.nii",
        nib.AnalyzeImage(thick_voxels(), AFFINE).header.binaryblock,
        "no NIfTI file, but Analyze",
    ),
    "half a gzip": ("scan.nii.gz", gzip.compress(SCAN)[:1500], "is it damaged"),
    "half a pair": ("scan.hdr", SCAN[:348], "is it damaged.*scan.img"),
    "no MGH": ("scan.mgh", b"\0" * 400, "is it damaged"),
    "MGH without geometry": ("scan.mgh", without_geometry(), "states no spacing and no orientation"),
    "another format": ("scan.png", b"x", r"expected DICOM, or a name that ends with one of \.nii, \.nii\.gz"),
}


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_words(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)^{tmp_path / name}: .*{message}"):
        load(tmp_path / name)


def test_analyze_is_refused(tmp_path):
    nib.save(nib.AnalyzeImage(thick_voxels(), AFFINE), tmp_path / "scan.hdr")
    with pytest.raises(ValueError, match=r"Analyze 7\.5, which does not state which side is left"):
        load(tmp_path / "scan.hdr")


def test_axes_of_a_time_series_are_not_dropped(tmp_path):
    nib.save(nib.Nifti1Image(np.stack([thick_voxels()] * 3, -1)[..., None], AFFINE), tmp_path / "scan.nii")
    volume = load(tmp_path / "scan.nii")
    assert volume.shape == (3, 20, 18, 6)
    with pytest.raises(ValueError, match="expected one volume, got 3"):
        check_volume(volume)
    nib.save(nib.Nifti1Image(np.stack([thick_voxels()] * 3, -1)[..., None, :], AFFINE), tmp_path / "vectors.nii")
    with pytest.raises(ValueError, match=r"a vector of 3 numbers \(dim\[5\]\), and its volumes are no time points"):
        load(tmp_path / "vectors.nii")


def test_several_paths_are_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(SCAN)
    (tmp_path / "b.nii").write_bytes(SCAN)
    with pytest.raises(ValueError, match="expected one volume, got 2"):
        LoadVolumed("image")({"image": [str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]})


def test_our_own_words_pass_and_those_of_libraries_do_not(tmp_path, monkeypatch):
    def failing(path, limits):
        raise ValueError("buffer size must be a multiple of element size")

    (tmp_path / "scan.nii").write_bytes(SCAN)
    monkeypatch.setitem(READERS, "NIfTI", failing)
    with pytest.raises(ValueError, match=r"the file cannot be read, is it damaged\? \(ValueError: buffer size"):
        load(tmp_path / "scan.nii")


@pytest.mark.filterwarnings("ignore:.*left and right are not known")
def test_the_voxels_of_a_pair_may_look_like_words(tmp_path):
    nib.save(nib.Nifti1Pair(np.full((4, 4, 4), ord("<"), np.uint8), AFFINE), tmp_path / "scan.hdr")
    assert (load(tmp_path / "scan.img") == ord("<")).all()


def test_the_link_of_a_file_that_was_not_fetched_is_named(tmp_path):
    (tmp_path / "scan.nii").symlink_to(".git/annex/objects/a.nii")
    with pytest.raises(FileNotFoundError, match="is a link to .git/annex/objects/a.nii, which is not there: fetch it"):
        load(tmp_path / "scan.nii")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.nii does not exist"):
        load(tmp_path / "none.nii")


def test_a_library_s_reason_is_one_line_however_long_it_is():
    said = unreadable(RuntimeError("/src/reader.cxx:102:\nITK ERROR: it cannot be read.\n" + "Reason: damaged " * 50))
    assert said.startswith("the file cannot be read, is it damaged? (RuntimeError: /src/reader.cxx:102: ITK ERROR: it")
    assert "\n" not in said and len(said) < 260 and said.endswith(")")
