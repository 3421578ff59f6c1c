"""What parallel and fan beams refuse: matrices that do not fit, and scans, grids and arrays that do not go together."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given

from interslice.physics.ct import Grid, SparseRadon, sparse_radon
from interslice.physics.ct.sparse_radon import check_memory, expected_entries
from tests.physics.ct.test_sparse_radon import BEAMS, operators, scan, tiny
from tests.support.helpers import repeatable


@repeatable
@given(operator=operators())
def test_the_matrix_has_no_more_entries_than_expected_before_it_is_built(operator):
    geometry = operator.geometry.one_row()
    assert operator._rows[1].numel() <= expected_entries(geometry, operator.grid, operator.model)


def with_memory(monkeypatch, free):
    monkeypatch.setattr(sparse_radon, "available_memory", lambda: free)


def test_a_matrix_that_would_not_fit_is_refused_before_it_is_built(monkeypatch):
    geometry, grid = scan("parallel", tuple(range(100)), 200, num_rows=1), Grid((190, 191, 1), (1.0, 1.0, 1.0))
    with_memory(monkeypatch, 200_000_000)
    expected = r"takes about \d+ MB of memory to build, and 200 MB are available: use fewer views, larger voxels"
    with pytest.raises(MemoryError, match=expected):
        SparseRadon(geometry, grid, "joseph")


def test_the_limit_of_memory(monkeypatch):
    entries = 10**6
    with_memory(monkeypatch, int(0.8 * entries * sparse_radon.BYTES_PER_ENTRY))
    check_memory(entries)
    with pytest.raises(MemoryError):
        check_memory(entries + 1)


def test_a_cone_beam_is_referred_to_its_operator():
    geometry = replace(scan("fan"), beam="cone")
    with pytest.raises(ValueError, match='"parallel" and "fan" beams, got \'cone\': use ConeBeam'):
        SparseRadon(geometry, Grid((4, 5, 2), (1.0, 1.0, 1.0)))


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="model must be one of .* got 'siddon'"):
        SparseRadon(scan("fan"), Grid((4, 5, 2), (1.0, 1.0, 1.0)), "siddon")


@pytest.mark.parametrize("beam", BEAMS)
def test_slices_and_rows_must_agree(beam):
    with pytest.raises(ValueError, match=f"volume has 3 slices, the projections have 2 rows: in a {beam} beam"):
        SparseRadon(scan(beam), Grid((4, 5, 3), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("model", ["joseph", "strip"])
def test_a_source_within_the_volume_is_refused(model):
    near = scan("fan", source_to_isocenter=(150.0,) * 5 + (6.0,))
    with pytest.raises(ValueError, match="the source, 6 mm from the isocenter, lies within the volume"):
        SparseRadon(near, Grid((10, 10, 2), (1.0, 1.0, 1.0)), model)


def test_other_shapes_are_refused():
    operator = tiny("parallel", "joseph")
    with pytest.raises(ValueError, match=r"SparseRadon expects a volume of shape \(\.\.\., 4, 5, 2\), got \(4, 2, 5\)"):
        operator.forward(torch.zeros(4, 2, 5))
    with pytest.raises(ValueError, match=r"expects a sinogram of shape \(\.\.\., 6, 9, 2\), got \(1, 6, 2, 9\)"):
        operator.adjoint(torch.zeros(1, 6, 2, 9))
