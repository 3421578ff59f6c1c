"""The grid of several stacks: fine, along the reference, and around all where asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.stacks.grid import common_grid
from tests.physics.stacks.made import stack
from tests.support.helpers import repeatable

angles, places = st.floats(-60, 60), st.floats(-20, 20)


@repeatable
@given(turn=st.tuples(angles, angles, angles), place=st.tuples(places, places, places), axis=st.integers(0, 2))
def test_the_grid_is_isotropic_and_lies_as_the_reference(turn, place, axis):
    reference = stack(axis, pitch=3.0, thickness=2.4, spacing=0.8, turn=turn, place=place)
    other = stack((axis + 1) % 3, spacing=1.1, turn=turn, place=place)
    shape, affine = common_grid([reference, other])
    assert affine[:3, :3].norm(dim=0).tolist() == pytest.approx([0.8] * 3)
    turned = torch.linalg.inv(reference.affine[:3, :3]) @ affine[:3, :3]
    torch.testing.assert_close(turned, torch.diag(turned.diagonal()), atol=1e-9, rtol=0)
    # Its first voxel begins where slice 0 and pixel (0, 0) begin.
    begin = torch.tensor([-0.5, -0.5, -0.5, 1.0], dtype=torch.float64)
    corner = torch.linalg.inv(reference.affine) @ affine @ begin
    expected = [-0.5] * 3 + [1.0]
    expected[axis] = -2.4 / 2 / 3.0
    assert corner.tolist() == pytest.approx(expected, abs=1e-9)
    length = (reference.count - 1) * 3.0 + 2.4
    assert shape[axis] * 0.8 == pytest.approx(length, abs=0.8)


def test_all_is_covered_where_asked():
    reference, other = stack(2, (10, 10, 12)), stack(1, (16, 12, 10), place=(-3.2, 4, 1))
    shape, affine = common_grid([reference, other], cover="all")
    ends = (affine[:3, :3] @ (torch.tensor(shape).double() - 0.5)) + affine[:3, 3]
    begins = (affine[:3, :3] @ torch.full((3,), -0.5).double()) + affine[:3, 3]
    corner = torch.tensor([n - 0.5 for n in other.voxels.shape]).double()
    first = other.affine[:3, :3] @ torch.full((3,), -0.5).double() + other.affine[:3, 3]
    last = other.affine[:3, :3] @ corner + other.affine[:3, 3]
    assert bool((begins <= first + 0.02).all()) and bool((ends >= last - 0.02).all())
    within, _ = common_grid([reference, other])
    assert all(n >= m for n, m in zip(shape, within)) and shape != within


def test_voxels_are_as_asked_and_not_finer_than_a_tenth_of_the_slices():
    reference = stack(2, (20, 20, 40), pitch=10.0, spacing=0.5)
    assert float(common_grid([reference])[1][:3, 0].norm()) == pytest.approx(1.0)
    assert float(common_grid([reference], spacing=0.7)[1][:3, 0].norm()) == pytest.approx(0.7)
