"""How stacks lie to each other: planes, angles, overlaps of boxes with known answers."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.stacks.placed import angle_between, are_alike, meeting, overlap, plane_of
from tests.support.helpers import repeatable

BOX = (np.diag([1.0, 1.0, 4.0, 1.0]), (20, 20, 5))


def moved(box, shift, angles=(0, 0, 0)):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(angles)), shift)
    return turn @ box[0], box[1]


@pytest.mark.parametrize(("axis", "plane"), [(0, "sagittal"), (1, "coronal"), (2, "axial")])
@pytest.mark.parametrize("off", [0, 10, 30])
def test_a_plane_is_called_by_its_normal(axis, plane, off):
    tilt = nib.eulerangles.euler2mat(*np.radians([[0, off, 0], [off, 0, 0], [0, 0, off]][axis]))
    normal = tilt @ np.eye(3)[axis]
    for sign in (1, -1):
        assert plane_of(sign * normal) == ("oblique " if off == 30 else "") + plane
    assert angle_between(normal, np.eye(3)[axis]) == pytest.approx(off, abs=1e-4)


def test_normals_are_alike_up_to_their_sign():
    z, near = np.array([0, 0, 1.0]), np.array([0, np.sin(0.2), -np.cos(0.2)])
    assert are_alike([z, near]) and are_alike([z])
    assert not are_alike([z, near, np.array([0, 1.0, 0])])


@pytest.mark.parametrize(("shift", "share"), [((0, 0, 0), 1), ((10, 0, 0), 0.5), ((0, 0, 10), 0.5), ((20, 0, 0), 0)])
def test_overlap_of_shifted_boxes(shift, share):
    assert overlap(BOX, moved(BOX, shift)) == pytest.approx(share, abs=0.04)


angles = st.tuples(*[st.floats(-180, 180)] * 3)
shifts = st.tuples(*[st.floats(-30, 30)] * 3)


@repeatable
@given(angles, shifts, angles, shifts)
def test_overlap_does_not_hang_on_where_both_lie(angles, shift, angles2, shift2):
    other = moved(BOX, shift, angles)
    world = moved((np.eye(4), ()), shift2, angles2)[0]
    both = [(world @ affine, shape) for affine, shape in (BOX, other)]
    assert overlap(*both) == pytest.approx(overlap(BOX, other), abs=0.02)


def test_a_chain_of_boxes_hangs_together():
    boxes = [moved(BOX, (15 * k, 0, 0)) for k in range(3)] + [moved(BOX, (200, 0, 0))]
    assert meeting(boxes, 0) == meeting(boxes, 2) == {0, 1, 2}
    assert meeting(boxes, 3) == {3}
