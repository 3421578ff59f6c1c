"""Label maps: carried to another grid by vote, read with their scan, written beside its result."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.files import label_vote
from interslice.files.findings import Findings
from interslice.files.label_vote import signed_distance, vote
from interslice.files.masks import CarryMaskd, LabelMap, doubt_about, is_on_grid_of, label_map
from interslice.physics.foreground import foreground_box
from interslice.physics.measurement import reconstructed
from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling.inside import MARGIN, InsideInferer
from interslice.sampling.volume_inferer import VolumeInferer
from tests.support.helpers import repeatable
from tests.support.scans import INFERENCE, OBLIQUE, thick_voxels, whole_message, write_volume

THICK = np.diag([1.0, 1.0, 4.0, 1.0])
FINE = np.diag([1.0, 1.0, 1.0, 1.0])
FINE[2, 3] = -1.5
"""Four voxels to a slice, the first slice's middle between the second and the third."""


def ball(shape, affine, centre, radius):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return np.linalg.norm(grid @ affine[:3, :3].T + affine[:3, 3] - centre, axis=-1) < radius


@repeatable
@given(st.integers(0, 1000), st.booleans())
def test_at_the_middle_of_its_voxels_a_map_is_itself(seed, thick):
    labels = np.random.default_rng(seed).choice([0, 1, 2, 77, 900], (6, 5, 4)).astype(np.int16)
    affine = OBLIQUE @ (THICK if thick else np.eye(4))
    assert np.array_equal(vote(labels, affine, labels.shape, affine), labels)


@repeatable
@given(st.integers(0, 1000), st.permutations(range(3)))
def test_the_order_and_direction_of_axes_and_the_numbers_of_labels_change_nothing(seed, order):
    labels = np.random.default_rng(seed).choice([0, 1, 2], (7, 6, 5)).astype(np.uint8)
    flipped = labels[::-1].transpose(order)
    to_flipped = np.zeros((4, 4))
    to_flipped[3, 3] = 1
    for new, old in enumerate(order):
        to_flipped[old, new] = 1
    back = np.diag([-1.0, 1, 1, 1])
    back[0, 3] = 6
    affine = THICK
    target = FINE @ np.diag([0.7, 1.3, 1.0, 1])
    target[:3, 3] += np.sqrt([0.002, 0.003, 0.005])  # no place is as near to one voxel as to another
    there = vote(labels, affine, (9, 4, 18), target)
    assert np.array_equal(there, vote(np.ascontiguousarray(flipped), affine @ back @ to_flipped, (9, 4, 18), target))
    renamed = np.array([0, 40, 3000], np.int16)
    assert np.array_equal(renamed[there], vote(renamed[labels], affine, (9, 4, 18), target))


def test_between_thick_slices_borders_are_smooth():
    centre, radius = np.array([15.0, 15.0, 18.0]), 12.0
    labels = ball((31, 31, 10), THICK, centre, radius).astype(np.uint8)
    truth = ball((31, 31, 40), FINE, centre, radius)
    ours = vote(labels, THICK, truth.shape, FINE).astype(bool)
    nearest = np.repeat(labels, 4, axis=2).astype(bool)

    def wrong(found):
        return (found != truth).sum()

    assert wrong(ours) < 0.75 * wrong(nearest)


def test_a_place_beyond_the_map_has_no_label():
    labels = np.ones((4, 4, 4), np.uint8)
    target = np.eye(4)
    target[:3, 3] = -3
    out = vote(labels, np.eye(4), (10, 10, 10), target)
    assert out.sum() == 64 and (out[3:7, 3:7, 3:7] == 1).all()


def test_the_distance_to_a_straight_border_is_that_of_the_middles_to_it():
    inside = np.zeros((9, 3, 3), bool)
    inside[4:] = True
    distance = signed_distance(inside, (0.5, 0.5, 0.5))
    assert distance[:, 1, 1] == pytest.approx(0.5 * (np.arange(9) - 3.5))


def scan(affine=THICK, shape=(20, 18, 6)):
    return MetaTensor(torch.rand(1, *shape), affine=torch.from_numpy(affine), meta={"filename_or_obj": "scan.nii.gz"})


def as_map(labels, affine=THICK):
    return LabelMap(np.asarray(labels, np.uint8), affine, "mask.nii.gz")


def test_a_mask_on_the_grid_of_its_scan_is_not_doubted_whatever_the_order_of_its_axes():
    ones = np.ones((20, 18, 6))
    assert doubt_about(as_map(ones), scan()) == ""
    back = np.diag([-1.0, 1, 1, 1])
    back[0, 3] = 19
    assert doubt_about(as_map(ones, THICK @ back), scan()) == ""


def test_a_mask_on_another_grid_is_said_and_one_elsewhere_refused():
    assert "another grid" in doubt_about(as_map(np.ones((10, 9, 12)), np.diag([2.0, 2, 2, 1])), scan())
    half = THICK.copy()
    half[2, 3] = 12.0
    assert "50% of it beyond the scan" in doubt_about(as_map(np.ones((20, 18, 6)), half), scan())
    far = THICK.copy()
    far[0, 3] = 500
    with pytest.raises(ValueError, match="none of its mask mask.nii.gz lies within the scan"):
        doubt_about(as_map(np.ones((20, 18, 6)), far), scan())


def test_of_a_simulated_scan_the_grid_of_its_truth_is_no_other():
    mask = as_map(np.ones((20, 18, 24)), FINE)
    truth = MetaTensor(torch.rand(1, 20, 18, 24), affine=torch.from_numpy(FINE))
    assert is_on_grid_of(mask, truth) and not is_on_grid_of(mask, scan())


@pytest.mark.parametrize("values, words", [
    (0.0, "is empty"), (0.5, "holds 0.5, and labels are whole numbers"), (np.nan, "NaN"), (3e7, "at most 16777216"),
])  # fmt: skip
def test_what_is_no_label_map_is_refused(values, words):
    volume = MetaTensor(torch.full((1, 4, 4, 4), float(values)), affine=torch.eye(4))
    with pytest.raises(ValueError, match=words):
        label_map(volume, "mask.nii.gz")
    with pytest.raises(ValueError, match="holds 2 volumes: a mask is one 3-D volume"):
        label_map(MetaTensor(torch.ones(2, 4, 4, 4)), "mask.nii.gz")


def test_the_smallest_type_that_holds_the_labels_is_taken():
    for high, kind in ((255, np.uint8), (256, np.int16), (40000, np.int32)):
        volume = MetaTensor(torch.tensor([[[[0.0, high]]]]), affine=torch.eye(4))
        assert label_map(volume, "m").labels.dtype == kind
    assert label_map(MetaTensor(torch.tensor([[[[-1.0, 3]]]]), affine=torch.eye(4)), "m").labels.dtype == np.int16


@pytest.fixture
def masked(tmp_path):
    """A thick scan and its label map, each with its first axis from right to left."""
    affine = OBLIQUE @ THICK
    write_volume(tmp_path / "scans" / "head.nii.gz", thick_voxels(), affine=affine)
    labels = ball((20, 18, 6), THICK, (9, 8, 10), 7).astype(np.int16) * 300
    labels[9:11, 8:10, 2:4] = 7
    write_volume(tmp_path / "masks" / "head.nii.gz", labels, affine=affine)
    return tmp_path, labels, affine


def test_a_mask_is_written_beside_its_result_on_its_grid(masked, run_here, tiny_overrides):
    folder, labels, affine = masked
    run_here("inference", [INFERENCE], tiny_overrides(folder / "scans", mask_dir=str(folder / "masks"), report=True))
    case = folder / "results" / "head"
    recon, mask = nib.load(case / "head_recon.nii.gz"), nib.load(case / "head_mask.nii.gz")
    assert mask.shape == recon.shape and np.allclose(mask.affine, recon.affine) and mask.get_data_dtype() == np.int16
    found = np.asarray(mask.dataobj)
    assert set(np.unique(found)) == {0, 7, 300}
    expected = vote(labels, affine, recon.shape, recon.affine)
    assert np.array_equal(found, expected)
    assert "head_mask.nii.gz" in json.loads((case / "run.json").read_text(encoding="utf-8"))["files"]


def test_inside_samples_the_mask_alone_and_agrees_with_the_data(masked, run_here, tiny_overrides):
    folder, _, _ = masked
    ids = {"mask_dir": str(folder / "masks" / "head.nii.gz"), "noise_level": 0.0}
    run_here("inference", [INFERENCE], tiny_overrides(folder / "scans", inside=True, **ids))
    case = folder / "results" / "head"
    inside = nib.load(case / "head_recon.nii.gz").get_fdata()
    mask = np.asarray(nib.load(case / "head_mask.nii.gz").dataobj) != 0
    assert json.loads((case / "run.json").read_text(encoding="utf-8"))["relative_residual"] < 1e-3
    means = inside.reshape(20, 18, 6, 4).mean(3)
    assert np.abs(means - thick_voxels()).max() < 0.01 * thick_voxels().max()
    ids |= {"output_dir": str(folder / "cubic"), "start": "@baselines#cubic_consistent", "inferer": "@sampler"}
    ids |= {"data_consistency": {"_target_": "interslice.sampling.NullSpace"}}
    run_here("inference", [INFERENCE], tiny_overrides(folder / "scans", **ids))
    whole = nib.load(folder / "cubic" / "head" / "head_recon.nii.gz").get_fdata()
    differs = np.abs(inside - whole) > 1e-3 * whole.max()
    assert differs[~mask].mean() > 0.3 and mask.any()


def test_within_the_mask_the_noise_of_the_data_stays_left_out(tmp_path):
    """The sampler follows noisy data in part; the blend mends its border, and brings no noise back."""
    truth = torch.rand(1, 12, 12, 24, generator=torch.Generator().manual_seed(0))
    operator = ThroughPlaneSampling().for_scan((12, 12, 6), (1.0, 1.0, 4.0))
    y = operator.forward(truth[0]) + 0.1
    labels = np.zeros((12, 12, 6), np.uint8)
    labels[2:9, 3:8, 1:4] = 1
    measurement = MetaTensor(y[None], affine=torch.from_numpy(THICK))
    shifted = np.diag([1.0, 1.0, 4.0, 1.0])
    shifted[2, 3] = 1.5  # its borders cut through slices
    measurement.meta |= {"operator": operator, "label_map": as_map(labels, shifted)}

    class Sampled(VolumeInferer):
        def reconstruct(self, part, network):
            box = foreground_box(torch.from_numpy(on) != 0, margin=MARGIN)
            return reconstructed(truth[0][(*box[:2], slice(None))], part, Findings())

    on = measurement.meta["label_map"].on(operator.domain_shape, operator.domain_affine(measurement.affine).numpy())
    found = InsideInferer(Sampled(), True).reconstruct(measurement, torch.nn.Identity()).as_tensor()[0]
    inside = torch.from_numpy(on) != 0
    share = operator.forward(inside.float())
    assert ((share > 0) & (share < 1)).any() and (share == 1).any() and (share == 0).any()
    assert torch.allclose(operator.forward(found), y - 0.1 * share, atol=1e-5)


@pytest.mark.parametrize("ids, words", [
    ({"inside": True}, "this scan has none"), ({"mask_dir": "nowhere"}, "mask_dir nowhere does not exist"),
])  # fmt: skip
def test_what_cannot_be_restricted_is_refused_before_the_work(ids, words, masked, run_here, tiny_overrides):
    with pytest.raises(RuntimeError) as error:
        run_here("inference", [INFERENCE], tiny_overrides(masked[0] / "scans", **ids))
    assert words in whole_message(error.value)
    assert not (masked[0] / "results").exists()


def test_a_folder_of_scans_has_a_folder_of_masks_and_those_without_one_are_named(
    masked, run_here, tiny_overrides, capfd
):
    folder, _, affine = masked
    write_volume(folder / "scans" / "more.nii.gz", thick_voxels(), affine=affine)
    with pytest.raises(RuntimeError) as error:
        one = str(folder / "masks" / "head.nii.gz")
        run_here("inference", [INFERENCE], tiny_overrides(folder / "scans", mask_dir=one))
    assert "is one file, and there are 2 scans: name a folder" in whole_message(error.value)
    run_here("inference", [INFERENCE], tiny_overrides(folder / "scans", mask_dir=str(folder / "masks")))
    assert f"more has no mask: {folder / 'masks'} holds no more.nii.gz" in capfd.readouterr().err
    assert [p.parent.name for p in (folder / "results").glob("*/*_mask.nii.gz")] == ["head"]


def test_large_grids_are_voted_on_slab_by_slab_with_the_same_result(monkeypatch):
    labels = np.random.default_rng(3).choice([0, 1, 2], (9, 8, 7)).astype(np.uint8)
    target = OBLIQUE @ FINE
    at_once = vote(labels, OBLIQUE @ THICK, (9, 8, 26), target)
    monkeypatch.setattr(label_vote, "SLAB", 100)
    assert np.array_equal(vote(labels, OBLIQUE @ THICK, (9, 8, 26), target), at_once)


def test_a_transform_reads_the_mask_into_the_scan(masked):
    folder, labels, affine = masked
    item = CarryMaskd("image")({"image": scan(affine), "mask": str(folder / "masks" / "head.nii.gz")})
    assert "mask" not in item and np.array_equal(item["image"].meta["label_map"].labels, labels)
    assert CarryMaskd("image")({"image": scan()}).keys() == {"image"}
