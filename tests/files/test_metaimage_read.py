"""MetaImage: headers written by hand; what ITK would crash on, or read from memory that nobody wrote, is refused."""

import warnings

import itk
import numpy as np
import pytest

from interslice.files.check import check_volume
from interslice.files.read import LoadVolumed
from tests.support.headers import VOXELS, affine_of, write_mha
from tests.support.scans import cut_short


def load(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


GAPS = {
    "empty": "\n",
    "spaces": "  \n",
    "CRLF": "\r\n",
    "comments": "\nComment = a\n\nComment = b\n",
    "colon": "A: b\n",
}


@pytest.mark.parametrize("lines", GAPS.values(), ids=GAPS)
def test_lines_that_itk_skips_are_skipped(tmp_path, lines):
    path = write_mha(tmp_path / "scan.mha")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"DimSize", lines.encode() + b"DimSize"))
    np.testing.assert_array_equal(itk.array_from_image(itk.imread(str(path), itk.F)).T, VOXELS)
    np.testing.assert_array_equal(load(path)[0], VOXELS)


FOUR = {"NDims": 4, "DimSize": "6 5 4 1", "ElementSpacing": "1 1.5 2 1", "Offset": "-10 20 30 0",
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"}  # fmt: skip
SAME = {
    "plain": {}, "a trailing axis of one": FOUR, "one channel": {"ElementNumberOfChannels": 1},
    "Position": {"Offset": None, "Position": "-10 20 30"}, "Origin": {"Offset": None, "Origin": "-10 20 30"},
    "Rotation": {"TransformMatrix": None, "Rotation": "1 0 0 0 1 0 0 0 1"},
    "ElementSize": {"ElementSpacing": None, "ElementSize": "1 1.5 2"}, "HeaderSize": {"HeaderSize": -1},
    "no orientation in letters": {"AnatomicalOrientation": None}, "no letters": {"AnatomicalOrientation": "???"},
    "millimetres": {"DistanceUnits": "mm"},
}  # fmt: skip


@pytest.mark.parametrize("fields", SAME.values(), ids=SAME)
def test_headers_that_say_the_same_are_read_the_same(tmp_path, fields):
    path = write_mha(tmp_path / "scan.mha", **fields)
    load(path)  # the first use of ITK warns of itself
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        volume = load(path)
    np.testing.assert_array_equal(volume[0], VOXELS)
    np.testing.assert_allclose(volume.affine, affine_of())


def test_the_matrix_holds_the_axes_in_its_rows(tmp_path):
    path = write_mha(tmp_path / "scan.mha", TransformMatrix="0 1 0 -1 0 0 0 0 1", AnatomicalOrientation="ALI")
    expected = np.array([[0, 1.5, 0, 10], [-1, 0, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(load(path).affine, expected)


@pytest.mark.parametrize(("unit", "factor"), [("cm", 10), ("um", 0.001)])
def test_lengths_become_millimetres(tmp_path, unit, factor):
    with pytest.warns(UserWarning, match=f"lengths are in {unit}, and are converted to mm"):
        volume = load(write_mha(tmp_path / "scan.mha", DistanceUnits=unit))
    np.testing.assert_allclose(volume.affine, np.diag([*[factor] * 3, 1]) @ affine_of())


DOUBTFUL = {
    "no matrix": ({"TransformMatrix": None}, "left and right are not known; LPS is assumed, as by ITK"),
    "letters that differ": (
        {"AnatomicalOrientation": "LPS"}, "TransformMatrix, which is used, says RAI, and AnatomicalOrientation LPS"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_doubts_are_said(tmp_path, fields, message):
    with pytest.warns(UserWarning, match=message):
        volume = load(write_mha(tmp_path / "scan.mha", **fields))
    np.testing.assert_allclose(volume.affine, affine_of())


def test_shear_is_kept_and_refused(tmp_path):
    volume = load(write_mha(tmp_path / "scan.mha", TransformMatrix="1 0 0 0 1 0 0.3 0 0.954"))
    with pytest.raises(ValueError, match="17.5 degrees off a right angle"):
        check_volume(volume)


REFUSED = {
    "NDims below 0": ({"NDims": -1}, "NDims = -1: expected 3 axes"),
    "NDims of 99": ({"NDims": 99}, "NDims = 99: expected 3 axes"),
    "no NDims": ({"NDims": None}, "NDims = : expected 1 whole numbers"),
    "a size below 0": ({"DimSize": "6 -5 4"}, "DimSize = 6 -5 4 is not positive"),
    "no size": ({"DimSize": None}, "DimSize = : expected 3 whole numbers"),
    "too few voxels": ({"DimSize": "60000 60000 60000"}, "480 of 864000000000000 bytes"),
    "a time series": (FOUR | {"DimSize": "6 5 2 2"}, r"an image of 4 dimensions \(6, 5, 2, 2\); split it first"),
    "a vector": ({"ElementNumberOfChannels": 2}, "expected one volume, got 2"),
    "no type": ({"ElementType": "MET_FOO"}, "ElementType = MET_FOO: expected one of MET_CHAR"),
    "no image": ({"ObjectType": "Tube"}, "ObjectType = Tube: expected Image"),
    "no spacing": ({"ElementSpacing": None}, "the header states no spacing"),
    "spacing of 0": ({"ElementSpacing": "1 1 0"}, "is not positive in each direction"),
    "spacing of NaN": ({"ElementSpacing": "1 1 nan"}, "ElementSpacing = 1 1 nan: expected 3 numbers"),
    "axes in a plane": ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "has axes in one plane"),
    "a short matrix": ({"TransformMatrix": "1 0 0"}, "expected 9 numbers"),
    "a header before the voxels": ({"HeaderSize": 400}, "80 of 480 bytes"),
    "a field twice": ({"Offset": "0 0 0\nDimSize = 1 1 1"}, "the header states DimSize twice"),
    "a list of files": ({"data": "LIST"}, "the voxels lie in several files"),
    "numbered files": ({"data": "a%03d.raw 1 4 1"}, "the voxels lie in several files"),
    "no data file": ({"data": "none.raw"}, "its voxels are missing: none.raw is not beside it"),
    "compressed, it says": ({"CompressedData": True, "CompressedDataSize": 99}, "0 of 480 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_itk_could_not_take_is_refused_in_words(tmp_path, fields, message):
    path = write_mha(tmp_path / "scan.mha", **fields)
    with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
        load(path)


def test_a_compressed_file_that_was_cut_short_is_refused(tmp_path):
    image = itk.image_from_array(np.random.default_rng(0).random((20, 30, 40), np.float32))
    itk.imwrite(image, str(tmp_path / "scan.mha"), compression=True)
    cut_short(tmp_path / "scan.mha")
    with pytest.raises(ValueError, match=r"\d+ of 96000 bytes of voxels are there"):
        load(tmp_path / "scan.mha")


@pytest.mark.parametrize(
    "content",
    [b"\n" * 100_000, b"\0" * 1000, "".join(f"A{n} = 1\n" for n in range(10_000)).encode(), b"ElementDataFile"],
)
def test_what_is_no_header_is_refused(tmp_path, content):
    (tmp_path / "scan.mha").write_bytes(content)
    with pytest.raises(ValueError, match="this is no MetaImage header, or it is damaged"):
        load(tmp_path / "scan.mha")
