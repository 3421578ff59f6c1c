"""Slices that do not fit are found, and good ones are left alone."""

import pytest
import torch

from interslice.physics.stacks.matching import matched
from interslice.physics.stacks.motion import rigid
from interslice.physics.stacks.others import Others
from interslice.physics.stacks.outliers import named_slices, slice_weights_of
from interslice.physics.stacks.register import centre_of
from interslice.physics.stacks.slice_motion import one_slice, placed_in_plane, placed_slices
from tests.physics.stacks.moved import AFFINE, BRIGHT, apart, blobs, moved_stacks


def of_reference(operator):
    return Others.of(operator, operator.stacks[:1])


def with_slice(stack, k, change):
    """The stack with what `change` makes of its slice k (I, J)."""
    slices = stack.slices.clone()
    slices[k] = change(slices[k])
    return stack.moved(voxels=slices.movedim(0, stack.axis))


@pytest.mark.parametrize("seed", range(4))
def test_good_slices_keep_their_weight_those_at_the_border_too(seed):
    operator, _ = moved_stacks(("axial", "coronal", "sagittal"), seed=seed)
    for stack in operator.stacks:
        weights = slice_weights_of(Others.of(operator, [s for s in operator.stacks if s is not stack]), stack)
        assert (weights == 1).all()


@pytest.mark.parametrize("k", [4, 7, 10])
def test_a_slice_that_lost_signal_is_named_and_counts_less(k):
    operator, _ = moved_stacks()
    stack = with_slice(operator.stacks[1], k, lambda v: 0.4 * (v + 1) - 1)
    weights = slice_weights_of(of_reference(operator), stack)
    assert weights[k] < 0.4
    assert (weights == 1).sum() == stack.count - 1
    assert named_slices(stack.moved(weights=weights)) == f"slice {k + 1} ({float(weights[k]):.2f})"


def test_the_fewer_slices_count_the_better_is_what_they_make():
    """A bad slice in the reference spoils the volume less when it counts less."""
    operator, _ = moved_stacks()
    first, second = operator.stacks
    bad = with_slice(first, 6, lambda v: 0.3 * (v + 1) - 1)
    weights = slice_weights_of(Others.of(operator, [second]), bad)
    truth = torch.from_numpy(blobs()) / BRIGHT * 2 - 1
    errors = [
        (Others.of(operator, [s, second]).x - truth).square().mean() for s in (bad, bad.moved(weights=weights), first)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[1] - errors[2] < 0.3 * (errors[0] - errors[2])


def test_a_gain_is_found_and_taken_out():
    operator, _ = moved_stacks()
    stack = operator.stacks[1]
    usual = matched(of_reference(operator), stack, smooth=False)
    found = matched(of_reference(operator), stack.moved(voxels=1.7 * (stack.voxels + 1) - 1), smooth=False)
    assert usual.gain == pytest.approx(1, abs=0.03)
    assert found.gain == pytest.approx(1.7 * usual.gain, rel=1e-4)
    torch.testing.assert_close(found.stack.voxels, usual.stack.voxels, atol=1e-4, rtol=1e-4)


def test_a_smooth_bias_is_taken_out():
    operator, _ = moved_stacks(noise=0.0)
    stack = operator.stacks[1]
    i = torch.linspace(-1, 1, stack.voxels.shape[0])[:, None, None]
    biased = stack.moved(voxels=(stack.voxels + 1) * (1.2 + 0.2 * i) - 1)
    found = matched(of_reference(operator), biased)
    inside = stack.voxels > -0.5
    errors = [((v + 1) / (stack.voxels + 1))[inside].log().std() for v in (biased.voxels, found.stack.voxels)]
    assert errors[1] < 0.4 * errors[0]
    assert found.gain == pytest.approx(1.2, abs=0.06)


def test_what_fits_is_hardly_changed_by_matching():
    operator, _ = moved_stacks()
    stack = operator.stacks[1]
    change = matched(of_reference(operator), stack).stack.voxels - stack.voxels
    assert change.square().mean().sqrt() < 0.02


def moved_slice(operator, k, motion):
    """The second stack with its slice k as it is where a motion takes it, of the blobs themselves."""
    from interslice.physics.stacks.simulate import scanned

    stack = operator.stacks[1]
    y = scanned(blobs(), AFFINE.numpy(), one_slice(stack, k).moved(poses=motion[None]))
    return with_slice(stack, k, lambda v: torch.from_numpy(y / BRIGHT * 2 - 1).movedim(stack.axis, 0)[0].float())


def test_a_slice_that_moved_is_placed_and_the_others_stay():
    operator, _ = moved_stacks(("axial", "coronal"))
    stack, k = operator.stacks[1], 6
    numbers = torch.tensor([3.0, 4.0, -3.0, 2.0, -1.5, 2.5], dtype=torch.float64)
    motion = rigid(numbers, centre_of(one_slice(stack, k)))
    placed = placed_slices(of_reference(operator), moved_slice(operator, k, motion))
    mm, degrees = apart(placed.poses[k], motion)
    assert mm < 0.8 and degrees < 1.2  # of (3.5 mm, 5.8 degrees), from 13 x 50 x 50 mm
    for other in set(range(stack.count)) - {k}:
        mm, degrees = apart(placed.poses[other], torch.eye(4, dtype=torch.float64))
        assert mm < 0.5, other


def test_a_slice_of_a_lone_stack_moves_within_its_plane():
    operator, _ = moved_stacks(("axial", "coronal"), ratio=2)
    stack, k = operator.stacks[1], 14
    motion = rigid(torch.tensor([0.0, 5.0, 0.0, 3.0, 0.0, -2.0], dtype=torch.float64), centre_of(one_slice(stack, k)))
    placed = placed_in_plane(moved_slice(operator, k, motion))
    mm, degrees = apart(placed.poses[k], motion)
    assert mm < 0.5 and degrees < 1.0
    turned = placed.poses @ torch.linalg.inv(stack.affine.new_tensor(placed.poses[0].tolist()))
    assert torch.allclose(turned[:, 1, :3], torch.eye(3, dtype=torch.float64)[1], atol=1e-6)  # none left its plane
    for other in set(range(stack.count)) - {k}:
        assert apart(placed.poses[other], torch.eye(4, dtype=torch.float64))[0] < 0.5, other
