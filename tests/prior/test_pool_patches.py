"""Patches of the pool: those that RandSlicePatchesd cuts, with the same law of positions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.stats import chi2_contingency

from interslice.prior.patches import RandSlicePatchesd
from interslice.prior.pool import VolumePool
from interslice.prior.pool_patches import PatchBatches

SHAPE = (13, 17, 11)


def numbered(shape=SHAPE, spacing=(1.0, 1.0, 1.0)):
    """Every voxel has its own value in [0, 1]: a patch tells where it comes from."""
    values = torch.arange(np.prod(shape)).view(1, *shape) / np.prod(shape)
    return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing, 1.0])))


def batches_of(*volumes, **options):
    data = [{"image": f"{n}.nii"} for n in range(len(volumes))]
    pool = VolumePool(data, lambda item: {"image": volumes[int(item["image"].removesuffix(".nii"))]}, coarser=False)
    return PatchBatches(pool, **({"batch_size": 16, "patch_size": 8} | options))


def place(patch, shape=SHAPE):
    """(axis, index of the first voxel) of a patch of `numbered`."""
    index = np.stack(np.unravel_index(np.rint(patch.numpy() * np.prod(shape)).astype(int), shape))
    first = index[:, 0, 0]
    return next(a for a in range(3) if (index[a] == first[a]).all()), *first.tolist()


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(*(st.integers(2, 24),) * 3), min_size=1, max_size=3),
    side=st.integers(1, 20), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_a_patch_is_the_window_of_its_slice_padded_with_its_border(shapes, side, seed):
    torch.manual_seed(seed)
    volumes = [torch.rand(1, *shape) for shape in shapes]
    batches = batches_of(*volumes, patch_size=side)
    volume, axis, start = batches.draw()
    patches = batches.gather(volume, axis, start)
    assert patches.shape == (16, 1, side, side)
    for patch, v, a, s in zip(patches, volume.tolist(), axis.tolist(), start.tolist(), strict=True):
        image = volumes[v][0].select(a, s.pop(a))
        window = image[s[0] : s[0] + side, s[1] : s[1] + side]
        assert min(s) >= 0 and all(w == min(side, n) for w, n in zip(window.shape, image.shape, strict=True))
        missing = (0, side - window.shape[1], 0, side - window.shape[0])
        assert (patch[0] - F.pad(window[None, None], missing, mode="replicate")[0, 0]).abs().max() < 1e-5


@pytest.mark.parametrize(("foreground", "side"), [(-1.0, 6), (0.6, 6), (0.97, 4), (2.0, 12)])
def test_positions_have_the_law_of_the_reference(foreground, side):
    """Two samples of 6,000 positions: of the axis, and of each index given the axis, by a test of chi squared."""
    torch.manual_seed(3)
    batches = batches_of(numbered(), patch_size=side, batch_size=6000, foreground=foreground)
    _, axis, start = batches.draw()
    ours = np.column_stack([axis, start])
    cut = RandSlicePatchesd("image", side, 6000, foreground=foreground)
    cut.set_random_state(3)
    theirs = np.array([place(item["image"][0]) for item in cut({"image": numbered()})])
    for sample in (ours, theirs):
        assert set(sample[:, 0]) == {0, 1, 2}
    keys = [lambda s: s[:, 0], *(lambda s, d=d: s[:, 0] * 100 + s[:, d + 1] for d in range(3))]
    for key in keys:
        a, b = key(ours), key(theirs)
        names = np.union1d(a, b)
        table = np.array([[(x == n).sum() for n in names] for x in (a, b)])
        table = table[:, table.sum(0) >= 10]
        assert chi2_contingency(table).pvalue > 1e-4


def test_volumes_are_drawn_by_their_weights():
    torch.manual_seed(0)
    batches = batches_of(numbered((20, 20, 20)), numbered((10, 10, 10)), batch_size=20_000)
    volume, *_ = batches.draw()
    assert volume.float().mean() == pytest.approx(100 / 500, abs=0.015)


def test_thick_scans_are_cut_in_their_sharp_plane_alone():
    _, axis, _ = batches_of(numbered(spacing=(1, 1, 4)), batch_size=300).draw()
    assert set(axis.tolist()) == {2}


def test_patches_prefer_the_subject_to_air():
    volume = torch.zeros(1, 40, 40, 40)
    volume[:, 25:, 25:, 25:] = 1  # one voxel in twenty
    torch.manual_seed(0)
    choosy, careless = (next(iter(batches_of(volume, batch_size=300, foreground=f)))["image"] > 0 for f in (0.1, -1.0))
    assert choosy.flatten(1).any(1).float().mean() > 0.5 and careless.flatten(1).any(1).float().mean() < 0.3


def test_the_generator_decides_and_values_are_in_the_priors_range():
    batches = batches_of(numbered(), augment=[lambda p: p * 0.5])

    def batch(seed):
        torch.manual_seed(seed)
        return next(iter(batches))["image"]

    assert torch.equal(batch(1), batch(1)) and not torch.equal(batch(1), batch(2))
    assert batch(1).shape == (16, 1, 8, 8) and batch(1).min() >= -1 and batch(1).max() <= 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"patch_size": 0}, {"foreground": "x"}])
def test_values_without_sense_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        batches_of(numbered(), **options)
