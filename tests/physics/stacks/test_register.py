"""A stack is found where it lies."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from interslice.physics.stacks import StackedSlices
from interslice.physics.stacks.motion import angle_of, numbers_of, rigid
from interslice.physics.stacks.others import Others
from interslice.physics.stacks.register import Sloped, View, centre_of, places_of, register, taken
from tests.physics.stacks.made import several
from tests.physics.stacks.moved import SHAPE, apart, blobs, moved_stacks


def of_reference(operator):
    return Others.of(operator, operator.stacks[:1])


@pytest.mark.parametrize("seed", range(4))
def test_a_motion_is_found_within_03_mm_and_03_degrees(seed):
    random = np.random.default_rng(seed)
    turn, shift = random.uniform(-8, 8, 3), random.uniform(-5, 5, 3)
    plane = "coronal" if seed % 2 else "sagittal"
    operator, poses = moved_stacks(("axial", plane), [turn], [shift], seed)
    found = register(of_reference(operator), operator.stacks[1])
    mm, degrees = apart(found.pose, poses[1])
    assert mm < 0.3 and degrees < 0.3
    assert found.similarity > 0.8 and found.overlap > 0.7


@pytest.mark.parametrize("turn", [(14, 0, 0), (0, -14, 0), (0, 0, 14)])
def test_a_large_turn_is_found(turn):
    operator, poses = moved_stacks(turns=[turn], shifts=[(6, -6, 5)], noise=0.0)
    mm, degrees = apart(register(of_reference(operator), operator.stacks[1]).pose, poses[1])
    assert mm < 0.3 and degrees < 0.3


def test_what_lies_right_stays():
    operator, _ = moved_stacks()
    mm, degrees = apart(register(of_reference(operator), operator.stacks[1]).pose, torch.eye(4, dtype=torch.float64))
    assert mm < 0.1 and degrees < 0.2


def test_gain_and_offset_do_not_matter():
    operator, _ = moved_stacks(turns=[(3, -4, 2)], shifts=[(2, 1, -3)])
    others, stack = of_reference(operator), operator.stacks[1]
    found = register(others, stack)
    other = register(others, stack.moved(voxels=0.37 * stack.voxels + 0.2))
    torch.testing.assert_close(other.pose, found.pose, atol=2e-3, rtol=0)
    assert other.similarity == pytest.approx(found.similarity, abs=1e-3)


def test_the_pose_follows_the_frame():
    """All moved by M, what was T is M T M^-1."""
    operator, _ = moved_stacks(turns=[(3, -4, 2)], shifts=[(2, 1, -3)])
    m = rigid(torch.tensor([10.0, 20.0, -40.0, 30.0, -12.0, 7.0], dtype=torch.float64), torch.zeros(3).double())
    others, stack = of_reference(operator), operator.stacks[1]
    found = register(others, stack, several=False)
    elsewhere = Others(others.x, m @ others.affine, others.measured, others.background)
    there = register(elsewhere, stack.moved(affine=m @ stack.affine), several=False)
    mm, degrees = apart(torch.linalg.inv(m) @ there.pose @ m, found.pose)
    assert mm < 0.02 and degrees < 0.02


def test_other_heads_are_unlike():
    operator, _ = moved_stacks()
    for seed in (1, 2, 3):
        strange, _ = moved_stacks(seed=seed)
        assert register(of_reference(operator), strange.stacks[1]).similarity < 0.6


def test_a_bad_slice_without_weight_does_not_pull():
    operator, poses = moved_stacks(turns=[(4, 2, -3)], shifts=[(2, -1, 3)])
    stack = operator.stacks[1]
    voxels, weights = stack.voxels.clone(), stack.weights.clone()
    voxels[:, 3:6], weights[3:6] = voxels[:, 3:6].roll(9, 0), 0.0
    mm, degrees = apart(register(of_reference(operator), stack.moved(voxels=voxels, weights=weights)).pose, poses[1])
    assert mm < 0.3 and degrees < 0.3


def test_a_step_of_least_squares_meets_a_small_motion():
    """With data that the operator itself made, one undamped step leaves an error of second order."""
    operator, _ = moved_stacks(noise=0.0)
    x = torch.from_numpy(gaussian_filter(blobs(), 2.5)) / 500 - 1
    stack = operator.stacks[1]
    for scale in (1.0, 0.5):
        true = rigid(scale * torch.tensor([0.4, -0.3, 0.5, 0.2, 0.3, -0.25], dtype=torch.float64), centre_of(stack))
        moved = StackedSlices([stack.moved(poses=true @ stack.poses)], SHAPE, operator.affine)
        y = moved.forward(x).reshape(stack.slices.shape).movedim(0, stack.axis)
        view = View(Sloped.of(Others(x, operator.affine), 0.0), stack.moved(voxels=y))
        step = rigid(view.step(torch.eye(4, dtype=torch.float64), 0.0), centre_of(stack))
        before, after = (apart(pose, true) for pose in (torch.eye(4, dtype=torch.float64), step))
        assert after[0] < 0.1 * before[0] and after[1] < 0.1 * before[1]


def test_places_are_where_the_operator_measures():
    """A coordinate, measured, is that of the place."""
    for stack in several():
        stack = stack.moved(weights=torch.ones(stack.count))
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, 3] = -25.0
        grid = torch.stack(torch.meshgrid(*[torch.arange(60.0) - 25] * 3, indexing="ij"))
        measured = StackedSlices([stack], (60, 60, 60), affine, "torch").forward(grid).mT
        torch.testing.assert_close(measured.double(), places_of(stack), atol=1e-3, rtol=0)


def test_large_stacks_are_thinned_within_their_slices():
    operator, _ = moved_stacks()
    stack = operator.stacks[1].moved(voxels=torch.zeros(512, 30, 512), poses=None, weights=None)
    factors = taken(stack, 0.0)
    assert factors[stack.axis] == 1 and 512 * 30 * 512 / (factors[0] * factors[2]) <= 200_000
    assert taken(operator.stacks[1], 0.0) == [1, 1, 1]


def test_six_numbers_are_a_motion_and_back():
    numbers = torch.tensor([10.0, -20.0, 30.0, 4.0, -5.0, 6.0], dtype=torch.float64)
    centre = torch.tensor([3.0, 2.0, -9.0], dtype=torch.float64)
    motion = rigid(numbers, centre)
    torch.testing.assert_close(numbers_of(motion, centre), numbers)
    assert angle_of(motion) == pytest.approx(float(numbers[:3].norm()))
    torch.testing.assert_close(motion[:3, :3] @ centre + motion[:3, 3], centre + numbers[3:])
