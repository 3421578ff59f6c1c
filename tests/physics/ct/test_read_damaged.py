"""Damaged projections are refused in our words: what numpy and the parsers say stands beside them, and is no reason."""

import json

import numpy as np
import pytest

from interslice.physics.ct.read import read_projections

GEOMETRY = {
    "beam": "parallel", "angles": [18.0 * i for i in range(10)], "num_columns": 16, "column_size": 2.0, "num_rows": 3,
    "row_size": 2.0,
}  # fmt: skip
LINE_INTEGRALS = np.ones((10, 16, 3), np.float32)
BOX = {"shape": [8, 8, 3], "spacing": [2.0, 2.0, 2.0]}


def write(folder, values=LINE_INTEGRALS, **others):
    path = folder / "scan.npz"
    np.savez(path, projections=values)
    path.with_suffix(".json").write_text(json.dumps(GEOMETRY | others), encoding="utf-8")
    return path


def test_what_is_damaged_below_is_well_before(tmp_path):
    assert read_projections(write(tmp_path, grid=BOX)).shape == (1, 10, 16, 3)


@pytest.mark.parametrize(
    "stored", [np.array([{}, None]), np.array(["a", "b"]), np.zeros((10, 16, 3), [("a", "f4"), ("b", "f4")])]
)
def test_arrays_that_hold_no_numbers(tmp_path, stored):
    with pytest.raises(ValueError, match=r"scan.npz: (the file cannot be read, is it damaged\? \(|projections are)"):
        read_projections(write(tmp_path, stored))


@pytest.mark.parametrize(
    "grid",
    [3, [8, 8, 3], {"shape": [8, 8, 3]}, BOX | {"x": 1}, BOX | {"shape": 3}, BOX | {"shape": "abc"}],
    ids=str,
)
def test_a_grid_that_is_none(tmp_path, grid):
    with pytest.raises(ValueError, match="scan.npz: (grid must have the fields shape and spacing|shape must be three)"):
        read_projections(write(tmp_path, grid=grid))


@pytest.mark.parametrize("content", [b"\xff\xfe\xe9", b"[" * 100_000], ids=["no text", "deep"])
def test_a_geometry_that_cannot_be_decoded(tmp_path, content):
    path = write(tmp_path)
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match="scan.npz: scan.json is not JSON: "):
        read_projections(path)
