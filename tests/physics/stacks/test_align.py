"""The stacks of a case are brought to each other before their volume is sampled."""

import json

import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.files.alignment import read_poses, write_poses, write_tfm
from interslice.files.combined import Combined
from interslice.files.doubts import doubts_of
from interslice.files.prepared import ONLY_CHECKED
from interslice.files.save_poses import SavePoses
from interslice.physics.measurement import operator_of
from interslice.physics.stacks import AlignStacksd
from interslice.physics.stacks.motion import angle_of, rigid
from interslice.usage import UsageError
from tests.physics.stacks.moved import SHAPE, apart, moved_stacks

TURNS, SHIFTS = [(5, -6, 4), (-3, 7, -5)], [(3, -2, 4), (-4, 1, 2)]
pytestmark = pytest.mark.filterwarnings("ignore:case.nii")


def measurement(operator, stacks=None):
    """What `scale` gives of stacks."""
    operator = operator.replaced(stacks or operator.stacks)
    image = MetaTensor(operator.measurement()[None], affine=operator.affine)
    combined = Combined("all", tuple({"name": stack.name} for stack in operator.stacks))
    image.meta |= {"operator": operator, "stacks": operator.stacks, "filename_or_obj": "case.nii", "combined": combined}
    return image


def aligned(image, **settings):
    return AlignStacksd("image", **settings)({"image": image})["image"]


@pytest.fixture(scope="module")
def three():
    """Three stacks, two of them moved, and their poses."""
    return moved_stacks(("axial", "coronal", "sagittal"), TURNS, SHIFTS)


@pytest.fixture(scope="module")
def placed(three):
    """The measurement of these, aligned."""
    return aligned(measurement(three[0]))


def test_stacks_are_placed_and_the_measurement_is_theirs(three, placed):
    operator = operator_of(placed)
    for stack, pose in zip(operator.stacks, three[1]):
        assert max(apart(stack.poses[0], pose)) < 0.3
    assert placed.meta["stacks"] == operator.stacks
    torch.testing.assert_close(placed.as_tensor()[0], operator.measurement())
    assert not doubts_of(placed)


def test_the_record_says_how_they_lie(three, placed):
    first, *others = placed.meta["combined"].record(named=True)["stacks"]
    assert first == {"name": "axial", "turned_degrees": 0.0, "moved_mm": 0.0}
    for said, pose in zip(others, three[1][1:]):
        assert said["turned_degrees"] == pytest.approx(angle_of(pose), abs=0.3)
        assert said["similarity"] > 0.8 and said["overlap"] > 0.7
        assert said["gain"] == pytest.approx(1, abs=0.03)


def test_aligned_stacks_agree_better(three, placed):
    """Least squares of stacks that lie right leaves less."""
    misfits = []
    for operator, y in ((three[0], three[0].measurement()), (operator_of(placed), placed.as_tensor()[0])):
        x = operator.linear_reconstruction(y)
        misfits.append(float((operator.forward(x) - y).norm() / (y + 1).norm()))
    assert misfits[1] < 0.6 * misfits[0]


def test_the_stack_of_another_head_is_left_out_by_name(three):
    strange, _ = moved_stacks(seed=1)
    stacks = [three[0].stacks[0], three[0].stacks[1], strange.stacks[1].moved(name="other.nii")]
    image = aligned(measurement(three[0], stacks))
    assert [stack.name for stack in image.meta["stacks"]] == ["axial", "coronal"]
    combined = image.meta["combined"]
    assert "another person" in combined.left_out["other.nii"]
    assert [record["name"] for record in combined.stacks] == ["axial", "coronal"]
    assert any(said.startswith("other.nii is left out: ") for said in doubts_of(image))


def test_of_two_heads_the_reference_is_reconstructed_and_that_is_said():
    (one, _), (other, _) = moved_stacks(), moved_stacks(seed=1)
    image = aligned(measurement(one, [one.stacks[0], other.stacks[1].moved(name="other.nii")]))
    assert len(image.meta["stacks"]) == 1
    assert any("axial is reconstructed by itself" in said for said in doubts_of(image))
    assert image.shape == (1, one.stacks[0].voxels.numel())


def test_a_stack_waits_for_those_that_cover_it():
    """The second sees nothing of the first, and both see the third."""
    operator, _ = moved_stacks(("axial", "axial", "coronal"))
    first, second, third = operator.stacks
    half = first.count // 2
    first = first.moved(voxels=first.voxels[:, :, :half].clone(), poses=None, weights=None)
    affine = second.affine.clone()
    affine[:3, 3] += (half + 1) * second.affine[:3, 2]
    second = second.moved(voxels=second.voxels[:, :, half + 1 :].clone(), affine=affine, poses=None, weights=None)
    image = aligned(measurement(operator, [first, second, third]), rounds=1)
    assert {stack.name for stack in image.meta["stacks"]} == {"axial", "axial 2", "coronal"}
    mm, _ = apart(image.meta["stacks"][1].poses[0], torch.eye(4, dtype=torch.float64))
    assert mm < 0.5  # of six slices


def test_a_bad_slice_is_named_and_the_stack_is_placed_all_the_same(three):
    operator, poses = three
    stack = operator.stacks[1]
    voxels = stack.voxels.clone()
    voxels[:, 6] = 0.3 * (voxels[:, 6] + 1) - 1
    image = aligned(measurement(operator, [operator.stacks[0], stack.moved(voxels=voxels), operator.stacks[2]]))
    found = image.meta["stacks"][1]
    assert found.weights[6] < 0.3 and (found.weights < 1).sum() == 1
    assert max(apart(found.poses[0], poses[1])) < 0.3
    assert any("slices of coronal" in said and "slice 7 (" in said for said in doubts_of(image))
    assert list(image.meta["combined"].stacks[1]["slices_that_count_less"]) == ["7"]


def test_outliers_off_keeps_every_weight(three):
    stack = three[0].stacks[1]
    voxels = stack.voxels.clone()
    voxels[:, 6] = -1
    stacks = [three[0].stacks[0], stack.moved(voxels=voxels)]
    image = aligned(measurement(three[0], stacks), outliers=False, rounds=1)
    assert all((stack.weights == 1).all() for stack in image.meta["stacks"])


def test_no_rounds_leave_the_poses_and_match_intensities(three):
    first, second = moved_stacks()[0].stacks
    brighter = second.moved(voxels=1.5 * (second.voxels + 1) - 1)
    image = aligned(measurement(three[0], [first, brighter]), rounds=0)
    assert (image.meta["stacks"][1].poses == torch.eye(4, dtype=torch.float64)).all()
    assert image.meta["combined"].stacks[1]["gain"] == pytest.approx(1.5, abs=0.05)
    assert (image.meta["stacks"][1].voxels - second.voxels).square().mean().sqrt() < 0.03


def test_far_motions_are_doubted(three, tmp_path):
    far = rigid(torch.tensor([0, 40.0, 0, 0, 0, 0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    write_poses(tmp_path / "poses.json", {"coronal": [far]})
    image = aligned(measurement(three[0], three[0].stacks[:2]), poses=str(tmp_path / "poses.json"))
    assert any("coronal was turned by 40 degrees" in said for said in doubts_of(image))


def test_a_lone_stack_stays_as_it_is(three):
    image = measurement(three[0], three[0].stacks[:1])
    assert aligned(image) is image


def test_a_case_that_is_only_checked_is_not_aligned(three):
    item = {"image": measurement(three[0]), ONLY_CHECKED: True}
    assert AlignStacksd("image")(item)["image"] is item["image"]


# -- poses in files ---------------------------------------------------------------------------------
def test_poses_are_written_and_given_back(placed, three, tmp_path):
    placed.meta["case"] = "case"
    SavePoses().write({"image": placed}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case_poses.json", "case_stack2.tfm", "case_stack3.tfm"]
    image = aligned(measurement(three[0]), poses=str(tmp_path / "case_poses.json"))
    for stack, given in zip(placed.meta["stacks"], image.meta["stacks"]):
        torch.testing.assert_close(given.poses, stack.poses, atol=1e-9, rtol=0)
    assert (operator_of(image).domain_shape == SHAPE) and "RAS" in json.loads(
        (tmp_path / "case_poses.json").read_text()
    )["convention"]


def test_poses_of_each_slice_are_kept(three, tmp_path):
    stack = three[0].stacks[1]
    poses = torch.stack([rigid(torch.tensor([k, 0, -k, 0.5 * k, 1, 2]).double(), torch.ones(3).double())
                         for k in range(stack.count)])  # fmt: skip
    write_poses(tmp_path / "poses.json", {"coronal": poses})
    image = aligned(measurement(three[0], three[0].stacks[:2]), poses=tmp_path / "poses.json")
    torch.testing.assert_close(image.meta["stacks"][1].poses, poses)


@pytest.mark.slow  # ITK loads for seconds
def test_itk_reads_the_transform_and_finds_where_the_header_puts_a_place(tmp_path):
    pose = rigid(torch.tensor([10.0, -20, 30, 4, 5, 6]).double(), torch.tensor([1.0, -2, 3]).double()).numpy()
    write_tfm(tmp_path / "a.tfm", pose)
    (transform,) = itk.transformread(str(tmp_path / "a.tfm"))
    for place in np.eye(3) * 50:
        there = (pose[:3, :3] @ place + pose[:3, 3]) * [-1, -1, 1]
        back = np.asarray(transform.TransformPoint(there.tolist())) * [-1, -1, 1]
        np.testing.assert_allclose(back, place, atol=1e-9)


@pytest.mark.parametrize(("poses", "said"), [
    ({"elsewhere": [np.eye(4)]}, "has poses of elsewhere, and the stacks are axial, coronal"),
    ({"coronal": [np.eye(4), 2 * np.eye(4)]}, "2 poses of coronal, which has 14 slices"),
    ({"coronal": [np.diag([1.1, 1, 1, 1])]}, "no rigid motion"),
    ({"coronal": [np.diag([-1.0, 1, 1, 1])]}, "no rigid motion"),
])  # fmt: skip
def test_poses_that_do_not_fit_are_refused(poses, said, three, tmp_path):
    write_poses(tmp_path / "poses.json", poses)
    with pytest.raises(ValueError, match=said):
        aligned(measurement(three[0], three[0].stacks[:2]), poses=str(tmp_path / "poses.json"))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"stacks": 3}', '{"stacks": {"a": [[1]]}}', "\x00", '{"stacks": {"a": []}}']
)
def test_what_is_no_file_of_poses_is_refused(text, tmp_path):
    path = tmp_path / "poses.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="poses"):
        read_poses(path)
    with pytest.raises(ValueError, match="--poses names a file of poses"):
        read_poses(tmp_path / "missing.json")


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"rounds": 1.5}, {"motion": "x"}, {"outliers": 3}, {"even": "x"}])
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        AlignStacksd("image", **wrong)
