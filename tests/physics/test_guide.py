"""A guide in a run: found, placed, compared, refused in words, and registered once."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.files.doubts import doubts_of
from interslice.files.prepared_record import prepared_of
from interslice.physics import guide as guides
from interslice.physics.guide import SHARED, Guided, Pose, check_pose, resampled
from interslice.physics.mutual_information import register
from interslice.physics.thick import ThroughPlaneSampling
from interslice.usage import UsageError
from tests.support.scans import INFERENCE, head_voxels, write_volume

SHAPE = (36, 32, 36)
AFFINE = nib.affines.from_matvec(np.eye(3), [-18.0, -16.0, -18.0])


def turned(degrees, shift):
    return nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians(degrees)), shift)


def folds(seed=0, shape=SHAPE):
    """(X, Y, Z) in a range of 2: smooth blobs of two tissues within a ball, which tell one head from another."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, *shape, generator=generator)
    for _ in range(3):
        noise = torch.nn.functional.avg_pool3d(noise, 5, 1, 2, count_include_pad=False)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = torch.sigmoid(30 * (0.85 - grid.norm(dim=0)))
    return -1 + inside * (0.8 + torch.tanh(1.5 * noise[0, 0] / noise.std()))


def other_contrast(volume):
    """Dark where it was bright within the head, and air as it was."""
    return torch.where(volume < -0.9, volume, -0.2 - volume).numpy() * 200 + 500


def measured(volume, ratio=3, affine=AFFINE, name="scan.nii.gz"):
    """The thick scan of a volume as `prepare` sees it: scaled, with its operator."""
    operator = ThroughPlaneSampling(ratio=ratio).for_grid(tuple(volume.shape), (1.0, 1.0, 1.0))
    affine = operator.range_affine(torch.from_numpy(affine))
    meta = {"operator": operator, "filename_or_obj": str(name), "case": "scan"}
    return MetaTensor(operator.forward(volume)[None], affine=affine, meta=meta)


def guided(image, guide, **settings):
    return Guided("image", str(guide), **settings)({"image": image})["image"]


@pytest.fixture
def t1(tmp_path):
    return write_volume(tmp_path / "t1.nii.gz", other_contrast(folds()).astype(np.float32), AFFINE)


def test_a_guide_of_the_same_grid_is_given_as_it_is_in_a_range_of_two(t1):
    image = guided(measured(folds()), t1)
    operator = image.meta["operator"]
    own = torch.from_numpy(nib.load(t1).get_fdata(dtype=np.float32))
    given = operator.guide
    slope = float((given.max() - given.min()) / (own.max() - own.min()))
    torch.testing.assert_close(given, given.min() + slope * (own - own.min()), rtol=0, atol=1e-3)
    assert -1.3 < float(given.min()) < -0.7 and 0.7 < float(given.max()) < 1.3
    said = prepared_of(image)["guide"]
    assert said["file"] == str(t1) and said["moved_mm"] == 0 == said["turned_degrees"] and said["covered"] == 1
    assert said["shared_edges"] > 0.45 and not doubts_of(image)
    assert prepared_of(image, named=False)["guide"]["file"] != str(t1)


def test_without_a_guide_measurements_pass_as_they_are():
    image = measured(folds())
    operator = image.meta["operator"]
    assert Guided("image")({"image": image})["image"] is image
    assert image.meta["operator"] is operator and not operator.guided and prepared_of(image) == {}


def test_a_guide_that_lies_elsewhere_is_registered_and_the_same_case_once(t1, tmp_path, monkeypatch):
    wrong = turned((4, -3, 5), (2.0, -1.5, 1.0))
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(nib.load(t1).get_fdata(dtype=np.float32), wrong @ AFFINE), moved)
    calls = []
    monkeypatch.setattr(guides, "register", lambda *a, **k: calls.append(1) or register(*a, **k))
    transform = Guided("image", str(moved))
    first = transform({"image": measured(folds())})["image"]
    found = len(calls)
    second = transform({"image": measured(folds())})["image"]
    assert found == len(calls) > 0 and torch.equal(
        first.meta["operator"].guide.nan_to_num(9), second.meta["operator"].guide.nan_to_num(9)
    )
    other = transform({"image": measured(folds() * 0.99)})["image"]
    assert len(calls) > found and other.meta["operator"].guided
    (pose,) = [p for p in transform._poses.values() if p.shared == max(q.shared for q in transform._poses.values())]
    corners = np.array([[x, y, z, 1] for x in (-12, 12) for y in (-10, 10) for z in (-14, 14)]).T
    assert np.linalg.norm(((pose.matrix - wrong) @ corners)[:3], axis=0).mean() < 0.8  # mm; voxels of 1 mm, slices of 3
    by_headers = transform.__class__("image", str(moved), "header")
    with pytest.raises(ValueError, match="shares .* of its edges"):
        by_headers({"image": measured(folds())})


def test_a_guide_of_another_person_is_refused_by_name(tmp_path):
    stranger = write_volume(tmp_path / "b.nii.gz", other_contrast(folds(seed=5)).astype(np.float32), AFFINE)
    with pytest.raises(ValueError, match=rf"scan.nii.gz: its guide {stranger} shares 0\.\d\d of its edges .*person"):
        guided(measured(folds()), stranger)


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [
        (np.where(folds().numpy() > 0, np.nan, 1.0), AFFINE, "voxels are NaN"),
        (np.stack([folds().numpy()] * 3, -1), AFFINE, "expected one volume|3-D volume"),
        (folds().numpy()[:, :, :4], AFFINE, "36 x 32 x 4 voxels are too few for a guide, which has 8"),
        (np.ones(SHAPE), AFFINE, "every voxel is 1"),
        (other_contrast(folds()), turned((0, 0, 0), (300, 0, 0)) @ AFFINE, "shows 0% of the subject, and at least 50%"),
    ],
    ids=["NaN", "4-D", "thin", "constant", "elsewhere"],
)
def test_a_guide_that_is_none_is_refused_by_name(voxels, affine, words, tmp_path):
    path = write_volume(tmp_path / "bad.nii.gz", voxels.astype(np.float32), affine)
    with pytest.raises(ValueError, match=words) as refused:
        guided(measured(folds()), path, registration="header")
    assert re.search(r"scan.nii.gz: its guide .*bad.nii.gz", str(refused.value))


def test_options_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="guide .*none.nii.gz does not exist: name a scan of the same patient"):
        Guided("image", str(tmp_path / "none.nii.gz"))
    with pytest.raises(UsageError, match="guide_registration must be one of auto, header, got 'x'"):
        Guided("image", None, "x")


def test_a_folder_has_a_guide_for_each_case(t1, tmp_path):
    folder = tmp_path / "guides"
    folder.mkdir()
    scan = write_volume(tmp_path / "thick.nii.gz", np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"has no guide for it: expected thick.nii.gz or scan.nii.gz there"):
        guided(measured(folds(), name=scan), folder)
    (folder / "scan.nii.gz").write_bytes(t1.read_bytes())  # by the name of the case
    assert prepared_of(guided(measured(folds(), name=scan), folder, registration="header"))["guide"]["file"].endswith(
        "guides/scan.nii.gz"
    )
    (folder / "thick.nii.gz").write_bytes(t1.read_bytes())  # by that of the file, first
    assert prepared_of(guided(measured(folds(), name=scan), folder, registration="header"))["guide"]["file"].endswith(
        "guides/thick.nii.gz"
    )


def test_what_makes_a_guide_less_useful_is_a_doubt(t1, tmp_path):
    half = tmp_path / "half.nii.gz"
    nib.save(nib.load(t1).slicer[:, :22], half)
    with pytest.warns(UserWarning, match="the guide shows [78].% of the subject"):
        image = guided(measured(folds()), half, registration="header")
    given = image.meta["operator"].guide
    assert torch.isnan(given[:, 22:]).all() and torch.isfinite(given[:, :22]).all()
    thick = tmp_path / "thick.nii.gz"
    operator = ThroughPlaneSampling(ratio=3).for_grid(SHAPE, (1.0, 1.0, 1.0))
    voxels = operator.forward(torch.from_numpy(nib.load(t1).get_fdata(dtype=np.float32))).numpy()
    nib.save(nib.Nifti1Image(voxels, operator.range_affine(torch.from_numpy(AFFINE)).numpy()), thick)
    with pytest.warns(UserWarning, match="3 mm long across the slices, which are 3 mm apart: it shows little"):
        assert len(doubts_of(guided(measured(folds()), thick, registration="header"))) == 1


def test_finer_voxels_of_a_guide_are_blurred_to_those_of_the_grid():
    """A single voxel of 1 / 3 mm keeps its sum, in voxels of the grid, wherever it lies."""
    fine = torch.zeros(60, 60, 60)
    fine[31, 28, 30] = 27.0
    guide = MetaTensor(fine[None], affine=np.diag([1 / 3, 1 / 3, 1 / 3, 1.0]))
    placed = resampled(guide, np.eye(4), (20, 20, 20), np.eye(4))
    known = placed[torch.isfinite(placed)]
    assert float(known.sum()) == pytest.approx(1.0, abs=0.05) and float(known.max()) < 0.7


def test_the_limit_is_the_least_that_passes():
    check_pose(Pose(np.eye(4), SHARED, 0.5), "t1.nii.gz")
    for shared, covered in ((SHARED - 1e-6, 1.0), (1.0, 0.499)):
        with pytest.raises(ValueError, match="its guide t1.nii.gz sh"):
            check_pose(Pose(np.eye(4), shared, covered), "t1.nii.gz")


def test_a_run_with_a_guide_records_it_and_follows_it(run_here, tiny_overrides, tmp_path):
    head = head_voxels((32, 30, 33))
    truth = -1 + torch.from_numpy(head) / 500
    image = measured(truth, affine=np.eye(4))
    scan = write_volume(tmp_path / "in" / "a.nii.gz", image.as_tensor()[0].numpy(), image.affine.numpy())
    guide = write_volume(tmp_path / "t1.nii.gz", np.where(head < 50, head, 1000 - head).astype(np.float32), np.eye(4))
    options = tiny_overrides(scan, guide=str(guide), guide_registration="header")
    options.pop("num_steps")
    run_here("inference", INFERENCE, options)
    record = json.loads((tmp_path / "results" / "a" / "run.json").read_text(encoding="utf-8"))
    assert record["guide"]["file"] == str(guide) and record["guide"]["shared_edges"] > SHARED
    assert record["settings"]["start"].startswith("ConsistentTotalVariation")
    assert (record["settings"]["num_steps"], record["settings"]["start_fraction"]) == (1, 0.01)
    result = nib.load(tmp_path / "results" / "a" / "a_recon.nii.gz").get_fdata()
    assert result.shape == tuple(truth.shape)
