"""Flat and dark fields, bad elements and numbers of photons, as a geometry file states them."""

import json
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.doubts import doubts_of
from interslice.files.limits import COPIES
from interslice.physics.ct import counting
from interslice.physics.ct.counted import Counted, dark_elements
from interslice.physics.ct.counting import rays_of
from interslice.physics.ct.read import read_projections
from tests.support.helpers import repeatable

SHAPE = (12, 40, 3)
"""views, columns, rows"""


def line_integrals():
    """A smooth object that moves with the views."""
    view, column, row = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return 3.0 * np.exp(-(((column - 20 - 4 * np.sin(view)) / 7.0) ** 2)) + 0 * row


def detector(seed=0):
    """(flat, dark): elements of different gain and dark current, in counts."""
    random = np.random.default_rng(seed)
    dark = random.uniform(50, 150, SHAPE[1:])
    return dark + 1e5 * random.uniform(0.6, 1.4, SHAPE[1:]), dark


def write(folder, counts, arrays=None, **stated):
    """A scan of counts with the fields that the JSON file states; `arrays` by the name of their file."""
    views, columns, rows = counts.shape
    fields = {"beam": "parallel", "angles": list(np.arange(views) * 180.0 / views), "num_columns": columns}
    fields |= {"column_size": 2.0, "num_rows": rows, "row_size": 2.0}
    (folder / "scan.json").write_text(json.dumps(fields | stated))
    np.savez(folder / "scan.npz", projections=counts)
    for name, array in (arrays or {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(folder / name, array)
    return folder / "scan.npz"


def read(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        projections = read_projections(path)
    return projections, " ".join(str(w.message) for w in caught)


def test_flat_and_dark_fields_undo_gain_and_dark_current(tmp_path):
    flat, dark = detector()
    p = line_integrals()
    counts = dark + (flat - dark) * np.exp(-p)
    path = write(tmp_path, counts, {"flat.npy": flat, "dark.npy": dark}, flat="flat.npy", dark="dark.npy")
    found, said = read(path)
    np.testing.assert_allclose(found.as_tensor()[0], p, atol=2e-4)
    assert "noise" in found.meta and said == ""


def test_the_mean_of_several_frames_is_taken_and_folders_inside_are_looked_into(tmp_path):
    flat, dark = detector()
    frames = np.random.default_rng(1).poisson(flat, (50, *flat.shape))
    counts = dark + (flat - dark) * np.exp(-line_integrals())
    arrays = {"fields/flat.npy": frames, "fields/dark.npy": dark[None]}
    found, _ = read(write(tmp_path, counts, arrays, flat="fields/flat.npy", dark="fields/dark.npy"))
    np.testing.assert_allclose(found.as_tensor()[0], line_integrals(), atol=3e-3)


def test_dark_current_is_taken_from_counts_of_one_air(tmp_path):
    _, dark = detector()
    counts = dark + 1e5 * np.exp(-line_integrals())
    found, _ = read(write(tmp_path, counts, {"dark.npy": dark}, air_counts=1e5, dark="dark.npy"))
    np.testing.assert_allclose(found.as_tensor()[0], line_integrals(), atol=2e-4)


def test_bad_elements_are_interpolated_said_and_have_no_weight(tmp_path):
    flat, dark = detector()
    flat[7] = dark[7] + 5.0  # sees nothing
    bad = np.zeros(SHAPE[1:], np.uint8)
    bad[20, 1] = 1
    counts = dark + (flat - dark) * np.exp(-line_integrals())
    counts[:, 20, 1] = 1e9
    arrays = {"flat.npy": flat, "dark.npy": dark, "bad.npy": bad}
    path = write(tmp_path, counts, arrays, flat="flat.npy", dark="dark.npy", bad_pixels="bad.npy")
    found, said = read(path)
    np.testing.assert_allclose(found.as_tensor()[0], line_integrals(), atol=0.1)
    assert "2 columns (7, 20) hold bad elements, which are interpolated from their neighbours" in said
    assert doubts_of(found) and doubts_of(found)[0] in said
    lost = np.isinf(found.meta["noise"].variance)
    assert lost[:, 7].all() and lost[:, 20, 1].all() and lost.sum() == SHAPE[0] * (SHAPE[2] + 1)


def bowtie(columns=120, rows=3):
    """Counts through a filter that lets 3 % through at the edges, of elements of different gain."""
    share = np.exp(-3.5 * np.abs(np.linspace(-1, 1, columns)) ** 3)
    return 1e5 * share[:, None] * np.random.default_rng(3).uniform(0.6, 1.4, (columns, rows))


@pytest.mark.parametrize("columns", [40, 120, 736])
def test_a_bowtie_filter_darkens_edges_that_are_good(columns):
    flat = bowtie(columns)
    assert flat[[0, -1]].max() < 0.1 * np.median(flat) and not dark_elements(flat).any()


@repeatable
@given(start=st.integers(0, 119), length=st.integers(1, 30), seen=st.floats(-20.0, 50.0), row=st.integers(0, 2),
       bright=st.integers(0, 119))  # fmt: skip
def test_elements_that_see_nothing_are_told_behind_a_bowtie_filter(start, length, seen, row, bright):
    """At its edges and in its middle, beside one that is far too bright."""
    flat, place = bowtie(), np.zeros((120, 3), bool)
    place[start : start + length, row] = True
    flat[bright] *= 30.0
    flat[place] = seen
    assert np.array_equal(dark_elements(flat), place)


def test_a_scan_behind_a_bowtie_filter_is_read(tmp_path):
    flat = bowtie(SHAPE[1])
    path = write(tmp_path, flat * np.exp(-line_integrals()), {"flat.npy": flat}, flat="flat.npy")
    found, said = read(path)
    np.testing.assert_allclose(found.as_tensor()[0], line_integrals(), atol=2e-3)
    assert said == "" and np.isfinite(found.meta["noise"].variance).all()


def test_a_row_that_sees_nothing_is_refused(tmp_path):
    flat = bowtie(SHAPE[1])
    flat[:, 1] = 3.0
    path = write(tmp_path, flat * np.exp(-line_integrals()), {"flat.npy": flat}, flat="flat.npy")
    with pytest.raises(ValueError, match="are bad, up to 40 beside each other"):
        read(path)


@repeatable
@given(air=st.floats(0.5, 6e4), photons=st.floats(1e3, 1e6), seed=st.integers(0, 9))
def test_another_unit_of_counts_with_the_photons_is_the_same_measurement(air, photons, seed):
    """Values of any scale, with the number of photons through air: the line integrals and variances of the photons."""
    counts = np.random.default_rng(seed).poisson(photons * np.exp(-line_integrals())).astype(float)
    p, noise = rays_of(counts, photons, 4.0)
    stated = Counted(air, photons=photons, electronic_noise=4.0 * air / photons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, told, said = stated.read(counts * (air / photons), "scan")
    np.testing.assert_allclose(found, p, rtol=1e-4, atol=1e-4)
    assert np.median(np.abs(told.variance / noise.variance - 1)) < 1e-4  # rounding may ask other neighbours
    assert said == []


def test_transmission_of_an_unknown_number_of_photons_has_no_noise(tmp_path):
    found, _ = read(write(tmp_path, np.exp(-line_integrals()), air_counts=1.0))
    assert "noise" not in found.meta
    found, _ = read(write(tmp_path, np.exp(-line_integrals()), air_counts=1.0, photons=1e5))
    np.testing.assert_allclose(found.meta["noise"].variance[:, 0], 1e-5, rtol=0.05)


def test_read_out_noise_counts(tmp_path):
    counts = 1e3 * np.exp(-line_integrals())
    plain, noisy = (
        read(write(tmp_path, counts, air_counts=1e3, electronic_noise=s))[0].meta["noise"].variance for s in (0.0, 30.0)
    )
    assert np.allclose(noisy[:, 0], (1e3 + 900) / 1e6, rtol=0.05) and (noisy > plain).all()


REFUSED = {
    "two airs": ({"air_counts": 1e5, "flat": "flat.npy"}, "counts through air are stated once"),
    "photons alone": ({"photons": 1e5}, "photons say nothing of line integrals: state air_counts or flat"),
    "dark alone": ({"dark": "dark.npy"}, "dark say nothing of line integrals"),
    "photons 0": ({"air_counts": 1.0, "photons": 0}, "photons must be a number above 1"),
    "read-out of transmission": ({"air_counts": 1.0, "electronic_noise": 0.01}, "is transmission, no count of photons"),
    "read-out": ({"air_counts": 1e5, "electronic_noise": -1}, "electronic_noise must be a number of counts from 0"),
    "no file": ({"flat": "other.npy"}, "flat names other.npy, and there is no such file"),
    "a number": ({"flat": 5}, "flat must be the name of a file beside the projections"),
    "elsewhere": ({"flat": "../flat.npy"}, "flat must be the name of a file beside the projections"),
    "absolute": ({"flat": "/etc/passwd"}, "flat must be the name of a file beside the projections"),
    "another size": ({"flat": "small.npy"}, r"flat has \(3, 3\) \(columns, rows\), and the projections have"),
    "objects": ({"flat": "objects.npy"}, "flat.*objects.npy|objects.npy"),
    "NaN": ({"flat": "nan.npy"}, "nan.npy: 1 values are NaN or infinite"),
    "swapped": ({"flat": "dark.npy", "dark": "flat.npy"}, "are the two swapped"),
    "too many bad": ({"air_counts": 1e5, "bad_pixels": "many.npy"}, "are bad, up to 12 beside each other, and at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_do_not_go_together_are_refused(name, tmp_path):
    stated, message = REFUSED[name]
    flat, dark = detector()
    nan, many = flat.copy(), np.zeros(SHAPE[1:], bool)
    nan[3, 1], many[10:22] = np.nan, True
    arrays = {"flat.npy": flat, "dark.npy": dark, "small.npy": np.ones((3, 3)), "nan.npy": nan, "many.npy": many}
    counts = dark + (flat - dark) * np.exp(-line_integrals())
    path = write(tmp_path, counts, arrays | {"objects.npy": np.array([None])}, **stated)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    flat, _ = detector()
    np.save(tmp_path / "secret.npy", flat)
    (inside := tmp_path / "scans").mkdir()
    (inside / "flat.npy").symlink_to(tmp_path / "secret.npy")
    path = write(inside, flat * np.exp(-line_integrals()), flat="flat.npy")
    with pytest.raises(ValueError, match="lies outside of the folder"):
        read(path)


@pytest.mark.parametrize("stated", ["air", "flat", "transmission"])
def test_views_are_read_some_at_once_in_the_memory_that_reading_is_checked_for(stated, tmp_path, monkeypatch):
    """As all at once, to the last bit, in the arrays that a file's size is held against."""
    shape = (96, 40, 16)
    flat, dark = np.full(shape[1:], 2e3) + np.arange(16), np.full(shape[1:], 100.0)
    bad = np.zeros(shape[1:], np.uint8)
    bad[20, 1] = 1
    truth = np.linspace(0.0, 6.0, 40)[None, :, None] + np.zeros(shape)
    counts = np.random.default_rng(0).poisson(2e3 * np.exp(-truth)).astype(np.float32)
    counts[:, 30, 3] = 7.0  # one value in all views
    fields = {"air": {"air_counts": 2e3}, "transmission": {"air_counts": 1.0}, "flat": {
        "flat": "flat.npy", "dark": "dark.npy", "bad_pixels": "bad.npy", "electronic_noise": 3.0}}[stated]  # fmt: skip
    counts = {"air": counts, "flat": counts + 100, "transmission": counts / 2e3}[stated]
    path = write(tmp_path, counts, {"flat.npy": flat + 100, "dark.npy": dark, "bad.npy": bad}, **fields)
    whole, said = read(path)
    monkeypatch.setattr(counting, "AT_ONCE", 3 * 40 * 16)
    tracemalloc.start()
    found, said_there = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.equal(found.as_tensor(), whole.as_tensor()) and said == said_there
    if stated != "transmission":
        assert np.array_equal(found.meta["noise"].variance, whole.meta["noise"].variance)
    assert peak < COPIES * counts.size * 4 + 2e5  # what Python itself takes


def test_what_is_read_is_what_torch_takes(tmp_path):
    found, _ = read(write(tmp_path, 1e5 * np.exp(-line_integrals()), air_counts=1e5))
    assert found.dtype == torch.float32 and tuple(found.shape) == (1, *SHAPE)
