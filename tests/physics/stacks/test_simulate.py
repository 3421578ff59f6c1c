"""Stacks of a known volume: where they lie, what they hold, and how well the operator predicts them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.physics.measurement import SIMULATED, Measured, operator_of
from interslice.physics.stacks import ScaleStacksd, SimulateStacksd, Stacks
from interslice.physics.stacks.scanner import motion_about
from interslice.usage import UsageError
from tests.physics.stacks.made import on_grid
from tests.support.scans import OBLIQUE, head_voxels

SHAPE = (24, 22, 20)


def volume(values=None, affine=None):
    affine = torch.eye(4, dtype=torch.float64) if affine is None else torch.as_tensor(affine)
    values = on_grid(SHAPE, affine) + 3 if values is None else torch.from_numpy(values)
    return MetaTensor(values[None], affine=affine, meta={"filename_or_obj": "head.nii.gz"})


def simulated(scanner, noise=0.0, of=None):
    return SimulateStacksd("image", scanner, noise)({"image": volume() if of is None else of})


def test_aligned_stacks_without_noise_hold_means_of_the_volume():
    item = simulated(Stacks(orientations=["axial", "coronal"], ratio=4))
    axial, coronal = item["image"].meta["stacks"]
    truth = item["label"].as_tensor()[0]
    torch.testing.assert_close(axial.voxels, truth.reshape(24, 22, 5, 4).mean(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(coronal.voxels, truth[:, :20].reshape(24, 5, 4, 20).mean(2), atol=2e-3, rtol=0)
    assert torch.equal(truth, volume().as_tensor()[0])


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("known", [True, False])
def test_the_operator_predicts_moved_stacks_if_it_is_told_how_they_moved(known, affine):
    smooth = volume(np.asarray(on_grid(SHAPE, np.eye(4)) + 3), affine)
    item = simulated(Stacks(ratio=4, turn=8, shift=3, motion_known=known), of=smooth)
    operator = item["image"].meta[SIMULATED]
    y = operator.forward(item["label"].as_tensor()[0])
    within = torch.nn.functional.pad(torch.ones([n - 2 for n in SHAPE]), [1] * 6)
    counts = operator.split(operator.forward(within) > 0.999)[1]
    error = (operator.split(y)[1] - operator.split(item["image"].as_tensor()[0])[1]).abs()[counts]
    assert counts.float().mean() > 0.3
    assert float(error.max()) < 0.02 if known else float(error.max()) > 0.1


def test_the_first_stack_lies_as_the_volume_and_the_seed_moves_the_others():
    operators = [Stacks(turn=8, shift=5, seed=seed).for_volume(volume()) for seed in (0, 0, 1)]
    poses = [operator.stacks[1].poses[0] for operator in operators]
    assert torch.equal(poses[0], poses[1]) and not torch.allclose(poses[0], poses[2])
    assert torch.equal(operators[0].stacks[0].poses[0], torch.eye(4, dtype=torch.float64))
    for pose in poses:
        turn = np.degrees(np.arccos((np.trace(pose[:3, :3].numpy()) - 1) / 2))
        assert 0 < turn <= 8 * np.sqrt(3)


def test_a_motion_about_the_middle_leaves_it_where_it_is():
    affine = torch.from_numpy(OBLIQUE)
    middle = torch.cat(
        [affine[:3, :3] @ torch.tensor([11.5, 10.5, 9.5]).double() + affine[:3, 3], torch.ones(1).double()]
    )
    moved = motion_about(SHAPE, affine, (5, 6, -7), (1.0, -2.0, 0.5)) @ middle
    torch.testing.assert_close(moved[:3] - middle[:3], torch.tensor([1.0, -2.0, 0.5]).double())


def test_noise_is_that_share_of_the_maximum_and_belongs_to_the_seed():
    still, noisy = (simulated(Stacks(), noise)["image"].as_tensor()[0] for noise in (0.0, 0.1))
    assert float((noisy - still).std()) == pytest.approx(0.1 * float(volume().max()), rel=0.05)
    assert torch.equal(noisy, simulated(Stacks(), 0.1)["image"].as_tensor()[0])


def test_scaling_is_that_of_the_first_stack_for_all_and_is_undone():
    item = simulated(Stacks(), of=volume(head_voxels(SHAPE)))
    scale = ScaleStacksd("image")
    item = scale(Measured("image", Stacks())(item))
    operator = operator_of(item["image"])
    first = operator.stacks[0].voxels
    assert float(first.min()) == pytest.approx(-1, abs=0.05) and 0.5 < float(first.max()) < 1.6
    torch.testing.assert_close(item["image"].as_tensor()[0], operator.measurement())
    result = MetaTensor(item["label"].as_tensor(), applied_operations=item["image"].applied_operations)
    back = scale.inverse({"image": result})["image"]
    torch.testing.assert_close(back.as_tensor(), volume(head_voxels(SHAPE)).as_tensor(), rtol=1e-4, atol=0.05)
    predicted = operator.forward(item["label"].as_tensor()[0])
    counts = operator.rows > 0
    assert float((predicted - item["image"].as_tensor()[0])[counts].abs().mean()) < 0.05


@pytest.mark.parametrize("given, words", [
    ({"orientations": "axial"}, "orientations must be a list"), ({"orientations": []}, "orientations must be a list"),
    ({"orientations": ["upright"]}, "one of axial, coronal, sagittal"), ({"ratio": 1.0}, "ratio must be"),
    ({"turn": 90}, "turn must be"), ({"shift": -1}, "shift must be"), ({"cover": "some"}, "cover must be one of"),
    ({"spacing": 0}, "spacing must be"), ({"motion_known": "perhaps"}, "motion_known"), ({"seed": -1}, "seed"),
    ({"backend": "gpu"}, "backend must be one of"), ({"profile": "round"}, "profile must be one of"),
])  # fmt: skip
def test_options_out_of_range_are_refused(given, words):
    with pytest.raises(UsageError, match=words):
        Stacks(**given)


def test_a_volume_that_is_too_thin_is_refused_and_a_scan_without_stacks():
    with pytest.raises(ValueError, match="20 mm thick across its axial slices, less than 3 of 8 mm"):
        Stacks(ratio=8).for_volume(volume())
    with pytest.raises(ValueError, match="on the volume's own grid"):
        Stacks(spacing=0.5).for_volume(volume())
    with pytest.raises(ValueError, match="carries no stacks"):
        Stacks().for_measurement(volume())
