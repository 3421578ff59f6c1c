"""Measured projections: what is read is what was written, with its geometry, and what is none is refused."""

import json
import re
import warnings
from dataclasses import asdict, replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.physics.ct import Grid, ScanGeometry, Tomography
from interslice.physics.ct.read import LoadProjectionsd, read_projections
from tests.support.scans import ROOT, Marker, cut_short

VIEWS, COLUMNS, ROWS = 20, 32, 4
ANGLES = tuple(9.0 * i for i in range(VIEWS))
GEOMETRY = ScanGeometry(
    beam="parallel", angles=ANGLES, num_columns=COLUMNS, column_size=2.0, num_rows=ROWS, row_size=3.0,
    world=((0.0, -1.0, 0.0, 5.0), (1.0, 0.0, 0.0, -4.0), (0.0, 0.0, 1.0, 60.0), (0.0, 0.0, 0.0, 1.0)),
)  # fmt: skip
GRID = Grid((16, 16, ROWS), (2.0, 2.0, 3.0))
PLAIN = Tomography(background=0.0)


def two_boxes():
    """(20, 32, 4) line integrals of two dense boxes."""
    mu = torch.zeros(1, *GRID.shape)
    mu[:, 2:10, 4:14] = 0.06
    mu[:, 10:13, 4:7, 1:] = 0.1
    y = PLAIN.for_measurement(MetaTensor(torch.zeros(1, *GEOMETRY.range_shape), meta=texts(GEOMETRY, GRID))).forward(mu)
    return y[0].numpy()


@pytest.fixture(scope="module")
def values():
    return two_boxes()


def texts(geometry, grid):
    return {"geometry": geometry, "grid": grid}


def write_array(path, values):
    """The array (views, columns, rows) in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".npz"):
        np.savez_compressed(path, projections=values)
    elif path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    else:
        itk = pytest.importorskip("itk")
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(values.T)), str(path))
    return path


def write(folder, values, geometry=GEOMETRY, name="scan.npz", **others):
    """Projections and their JSON; `others` are added to its fields."""
    path = write_array(folder / name, values)
    fields = json.loads(geometry.to_json()) if isinstance(geometry, ScanGeometry) else dict(geometry)
    path.with_name(name.split(".")[0] + ".json").write_text(json.dumps(fields | others), encoding="utf-8")
    return path


def read_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return read_projections(path)


def refusal(path):
    """The message of the ValueError; it opens with the file."""
    with pytest.raises(ValueError) as caught:
        read_projections(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message[len(f"{path}: ") :]


# -- what is read ---------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".NPZ"])
def test_every_format_gives_the_same_projections_and_geometry(tmp_path, values, suffix):
    path = write_array(tmp_path / f"scan{suffix.lower()}", values)
    path = path.rename(tmp_path / f"scan{suffix}")
    (tmp_path / "scan.json").write_text(GEOMETRY.to_json(), encoding="utf-8")
    y = read_quietly(path)
    assert y.shape == (1, VIEWS, COLUMNS, ROWS) and y.dtype == torch.float32
    assert torch.equal(y.as_tensor()[0], torch.from_numpy(values))
    assert y.meta["geometry"] == GEOMETRY
    assert y.meta["filename_or_obj"] == str(path) and "grid" not in y.meta


def test_the_transform_reads_its_key_and_leaves_the_rest(tmp_path, values):
    path = str(write(tmp_path, values))
    data = LoadProjectionsd("image")({"image": path, "other": path})
    assert torch.equal(data["image"].as_tensor(), read_projections(path).as_tensor()) and data["other"] == path


def test_one_slice_may_come_without_an_axis_of_rows(tmp_path, values):
    geometry = replace(GEOMETRY, num_rows=1)
    for name in ("a.npz", "b.nii.gz", "c.mha"):
        y = read_quietly(write(tmp_path, np.ascontiguousarray(values[..., 1]), geometry, name))
        assert torch.equal(y.as_tensor()[0, ..., 0], torch.from_numpy(values[..., 1]))


def test_values_that_change_from_view_to_view_are_read(tmp_path):
    iso = [300.0, 301.0, 299.0]
    geometry = ScanGeometry(
        beam="cone", angles=(5, 250, 100), num_columns=6, column_size=1.5, num_rows=4, row_size=2.0,
        source_to_isocenter=iso, source_to_detector=500.0, column_offset=[0.0, 1.0, -1.0], row_offset=2.5,
        source_column_offset=0.5,
    )  # fmt: skip
    y = read_quietly(write(tmp_path, np.full((3, 6, 4), 0.5, np.float32), geometry))
    assert y.meta["geometry"] == geometry
    assert geometry.source_to_isocenter == tuple(iso)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_numbers_of_any_width_are_line_integrals(tmp_path, values, kind):
    y = read_quietly(write(tmp_path, values.astype(kind)))
    np.testing.assert_allclose(y.as_tensor()[0], values, rtol=1e-3)


def test_a_slope_in_the_header_is_applied(tmp_path, values):
    path = write(tmp_path, values, name="scan.nii")
    image = nib.Nifti1Image(np.round(values * 1000).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.001, 0)
    nib.save(image, path)
    np.testing.assert_allclose(read_quietly(path).as_tensor()[0], values, atol=6e-4)


@pytest.mark.parametrize("name", ["scan.npz", "scan.nii.gz", "scan.mha"])
def test_counts_become_line_integrals(tmp_path, values, name):
    """p = -log(N / I0), also of whole numbers."""
    counts = np.random.default_rng(0).poisson(6e4 * np.exp(-values.astype(float)))
    y = read_quietly(write(tmp_path, counts.astype(np.float32), name=name, air_counts=60000))
    np.testing.assert_allclose(y.as_tensor()[0], -np.log((counts + 0.5) / 6e4), atol=1e-5)
    if name.endswith("npz"):
        again = read_quietly(write(tmp_path, counts.astype(np.uint32), name=name, air_counts=6e4))
        assert torch.equal(again.as_tensor(), y.as_tensor())


def test_no_air_counts_is_line_integrals(tmp_path, values):
    y = read_quietly(write(tmp_path, values, air_counts=None, grid=None))
    assert torch.equal(y.as_tensor()[0], torch.from_numpy(values)) and "grid" not in y.meta


def test_the_grid_of_the_file_is_the_grid_of_the_reconstruction(tmp_path, values):
    y = read_quietly(write(tmp_path, values, grid=asdict(GRID)))
    assert y.meta["grid"] == GRID
    assert PLAIN.for_measurement(y).grid == GRID
    centred = {"shape": [16, 16, 4], "spacing": [2.0, 2.0, 3.0]}
    assert read_quietly(write(tmp_path, values, grid=centred)).meta["grid"] == GRID
    assert PLAIN.for_measurement(read_quietly(write(tmp_path, values))).grid.shape == (32, 32, 4)  # the field of view


def test_two_volumes_in_one_folder_have_a_geometry_each(tmp_path, values):
    half = replace(GEOMETRY, angles=ANGLES[:5])
    first, second = write(tmp_path, values, name="a.npz"), write(tmp_path, values[:5], half, name="a.b.npz")
    (tmp_path / "a.json").write_text(GEOMETRY.to_json(), encoding="utf-8")
    (tmp_path / "a.b.json").write_text(half.to_json(), encoding="utf-8")
    assert read_quietly(first).shape[1] == 20 and read_quietly(second).shape[1] == 5


def test_the_embedded_measurement_is_read_without_complaint():
    y = read_quietly(ROOT / "sample_data/ct/measured/lidc_idri_0001_30views.npz")
    assert y.shape == (1, 30, 182, 48)
    assert y.meta["grid"].shape == (128, 128, 48)
    assert 3 < float(y.max()) < 12 and abs(float(y[:, :, :8].mean())) < 0.01  # a chest; air beside it


# -- what is refused ------------------------------------------------------------------------------
def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.npz does not exist: name a file of projections \(.npz, .nii"):
        read_projections(tmp_path / "none.npz")


def test_a_missing_geometry(tmp_path, values):
    path = write_array(tmp_path / "scan.nii.gz", values)
    (tmp_path / "other.json").write_text(GEOMETRY.to_json(), encoding="utf-8")
    with pytest.raises(FileNotFoundError) as caught:
        read_projections(path)
    assert str(caught.value) == f"{path}: no geometry beside the projections: expected scan.json or scan.xml"


def with_value(values, index, value):
    changed = values.copy()
    changed[index] = value
    return changed


ARRAYS = {
    "NaN": (lambda v: with_value(v, (2, 3, slice(0, 2)), np.nan), "2 values are NaN or infinite; repair"),
    "infinite": (lambda v: with_value(v, (2, 3, 1), np.inf), "1 values are NaN or infinite"),
    "all zero": (np.zeros_like, "every value is zero"),
    "counts without air_counts": (
        lambda v: 1e4 * np.exp(-v),
        "values from .* to 10000 are not line integrals .* for counts, state air_counts",
    ),
    "large and negative": (lambda v: v - 30, "values from -30 to .* are not line integrals"),
    "complex": (lambda v: v + 1j * v, "the projections are complex numbers: save line integrals or counts"),
    "a view too many": (lambda v: v[[*range(20), 0]], r"are \(21, 32, 4\) .* geometry says \(20, 32, 4\): correct one"),
    "other axes": (lambda v: v.transpose(2, 1, 0), r"are \(4, 32, 20\) \(views, columns, rows\), the geometry says"),
    "4-D": (
        lambda v: np.stack([v, v], 3),
        r"projections are \(views, columns, rows\), got an array of shape \(20, 32, 4, 2\)",
    ),
    "1-D": (lambda v: v[:, 0, 0], r"projections are \(views, columns, rows\), got an array of shape \(20,\)"),
    "words": (lambda v: np.full(v.shape, "dense"), "could not convert string to float"),
    "nothing": (lambda v: v[:0], r"are \(0, 32, 4\)"),
}


@pytest.mark.parametrize(("change", "message"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_no_projections(tmp_path, values, change, message):
    assert re.search(message, refusal(write(tmp_path, change(values))))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_complex_images_are_refused_too(tmp_path, values, name):
    """Reading their real part alone would be silent nonsense."""
    path = write(tmp_path, (values + 1j * values).astype(np.complex64), name=name)
    assert "the projections are complex numbers" in refusal(path)


COUNTS = {
    "NaN": (lambda n: with_value(n, (0, 0, 0), np.nan), 1e4, "1 counts are NaN or infinite"),
    "all zero": (np.zeros_like, 1e4, "every count is zero"),
    "all negative": (lambda n: -n, 1e4, "every count is zero"),
    "air_counts zero": (lambda n: n, 0, "air_counts must be a positive number, got 0"),
    "air_counts negative": (lambda n: n, -5.0, "air_counts must be a positive number, got -5.0"),
    "air_counts NaN": (lambda n: n, float("nan"), "air_counts must be a positive number, got nan"),
    "air_counts a word": (lambda n: n, "many", "air_counts must be a positive number, got 'many'"),
    "air_counts a list": (lambda n: n, [1e4], r"air_counts must be a positive number, got \[10000.0\]"),
    "line integrals": (lambda n: n * 0 + 2.0, 1e14, "are not line integrals"),
}


@pytest.mark.parametrize(("change", "air", "message"), COUNTS.values(), ids=COUNTS)
@pytest.mark.filterwarnings("ignore")
def test_counts_that_are_none(tmp_path, values, change, air, message):
    counts = np.random.default_rng(0).poisson(1e4 * np.exp(-values.astype(float))).astype(np.float32)
    assert re.search(message, refusal(write(tmp_path, change(counts), air_counts=air)))


FIELDS = {
    "no beam": ({"beam": None}, "beam must be one of"),
    "unknown field": ({"pitch": 1.0}, "unknown fields pitch; known: angles"),
    "angle NaN": ({"angles": [float("nan")] * 20}, r"angles\[0\] is nan, not a finite number"),
    "fan without distances": ({"beam": "fan"}, "a fan beam needs source_to_isocenter"),
    "too few angles": (
        {"angles": [0, 1, 2]},
        r"are \(20, 32, 4\) \(views, columns, rows\), the geometry says \(3, 32, 4\)",
    ),
    "offsets of another count": ({"column_offset": [0, 1]}, "column_offset has 2 values for 20 angles"),
    "grid of two axes": (
        {"grid": {"shape": [16, 16], "spacing": [2, 2, 3]}},
        "shape must be three positive whole numbers",
    ),
    "grid without spacing": ({"grid": {"shape": [16, 16, 4]}}, "spacing"),
    "grid with more": ({"grid": asdict(GRID) | {"origin": 0}}, "origin"),
    "grid is a number": ({"grid": 5}, "."),
    "world singular": ({"world": [[0] * 4] * 4}, "world must be an invertible 4 x 4 matrix"),
}


@pytest.mark.parametrize(("change", "message"), FIELDS.values(), ids=FIELDS)
def test_fields_that_are_no_geometry(tmp_path, values, change, message):
    assert re.search(message, refusal(write(tmp_path, values, **change)))


@pytest.mark.parametrize("name", ["angles", "column_size", "num_rows"])
def test_a_geometry_that_lacks_a_field(tmp_path, values, name):
    fields = json.loads(GEOMETRY.to_json())
    del fields[name]
    assert refusal(write(tmp_path, values, fields)) == f"the geometry lacks {name}"


TEXTS = {
    "cut short": (lambda text: text[:50], "scan.json is not JSON: "),
    "empty": (lambda text: "", "scan.json is not JSON: "),
    "XML": (lambda text: "<geometry/>", "scan.json is not JSON: "),
    "a list": (lambda text: "[1, 2]", "scan.json is not a JSON object with the fields of a geometry"),
    "a number": (lambda text: "3", "scan.json is not a JSON object"),
    "nothing": (lambda text: "null", "scan.json is not a JSON object"),
    "an empty object": (lambda text: "{}", "the geometry lacks angles, beam, column_size"),
}


@pytest.mark.parametrize(("change", "message"), TEXTS.values(), ids=TEXTS)
def test_a_damaged_geometry_file(tmp_path, values, change, message):
    path = write(tmp_path, values)
    described = tmp_path / "scan.json"
    described.write_text(change(described.read_text(encoding="utf-8")), encoding="utf-8")
    assert message in refusal(path)


def test_a_geometry_file_that_is_no_text(tmp_path, values):
    path = write(tmp_path, values)
    (tmp_path / "scan.json").write_bytes(b"\xff\xfe\x00{")
    assert refusal(path)


def garbled(path, share):
    """The same length, but some bytes are others: a bad sector."""
    content = bytearray(path.read_bytes())
    where = slice(int(share * len(content)), int(share * len(content)) + 8)
    content[where] = bytes(255 - b for b in content[where])
    path.write_bytes(content)
    return path


def text_instead(path):
    path.write_text("not an array", encoding="utf-8")
    return path


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
@pytest.mark.parametrize("name", ["scan.npz", "scan.nii.gz"])
def test_garbled_bytes_are_noticed(tmp_path, values, name, share):
    """Compressed formats have a checksum."""
    assert refusal(garbled(write(tmp_path, values, name=name), share))


@pytest.mark.parametrize("damage", [cut_short, text_instead])
@pytest.mark.parametrize("name", ["scan.npz", "scan.nii", "scan.nii.gz", "scan.mha"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, values, name, damage):
    assert refusal(damage(write(tmp_path, values, name=name)))


def test_an_npz_without_the_array(tmp_path, values):
    path = write(tmp_path, values)
    np.savez(path, sinogram=values, angles=np.array(ANGLES))
    assert refusal(path) == "the file holds sinogram, angles, but no array `projections`"
    np.savez(path)
    assert refusal(path) == "the file holds nothing, but no array `projections`"


def test_an_array_that_hides_code_is_not_loaded(tmp_path, values):
    path = write(tmp_path, values)
    np.savez(path, projections=np.array([Marker(tmp_path / "marker")], dtype=object))
    assert "allow_pickle" in refusal(path)
    assert not (tmp_path / "marker").exists()
